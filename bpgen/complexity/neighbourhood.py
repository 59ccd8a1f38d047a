"""Measures of the training loss around a network's weights, at finite distances; of the true loss also with spikes."""

from __future__ import annotations

from bpgen.complexity.trained import Trained
from bpgen.curvature import measures

RADIUS = 0.05  # of SAM, its usual setting
SIGMA = 0.01  # of the noise on every weight
_STEPS, _DRAWS = 5, 10


def worst_case(net: Trained) -> float:
    """The largest rise of the loss found within a ball of radius 0.05 (Foret et al. 2021, SAM): a lower bound of it."""
    return measures.worst_case(net.at.value, net.at.theta, RADIUS, steps=_STEPS, seed=net.seed)


def under_noise(net: Trained) -> float:
    """The expected rise of the loss under weight noise of sd 0.01 (Neyshabur et al. 2017)."""
    return measures.under_noise(net.at.value, net.at.theta, SIGMA, draws=_DRAWS, seed=net.seed).mean
