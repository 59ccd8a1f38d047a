"""Complexity measures: one number of a trained network that is said to predict how well it generalizes.

Jiang et al. 2020 and Dziugaite et al. 2020 ranked them for feed-forward networks. Every measure is a function of a
`Trained` network; `MEASURES` is the table of them. No rule is known here, and nothing is trained.
"""

from bpgen.complexity.table import MEASURES, SHARPNESS, Measure, measured
from bpgen.complexity.trained import Trained

__all__ = ["MEASURES", "SHARPNESS", "Measure", "Trained", "measured"]
