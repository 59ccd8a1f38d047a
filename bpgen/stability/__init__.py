"""Learning rules as dynamical systems, and the theorem of Liu et al. 2022; above rules and curvature."""

from bpgen.stability.jacobian import RuleJacobian
from bpgen.stability.update_map import StabilityResult, analyse, multipliers, stability

__all__ = ["RuleJacobian", "StabilityResult", "analyse", "multipliers", "stability"]
