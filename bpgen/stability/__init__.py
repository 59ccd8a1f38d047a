"""Learning rules as dynamical systems, and the theorem of Liu et al. 2022; above rules and curvature."""

from bpgen.stability.jacobian import RuleJacobian
from bpgen.stability.measure import StabilityResult, measure, multipliers, stability

__all__ = ["RuleJacobian", "StabilityResult", "measure", "multipliers", "stability"]
