"""Differences whose uncertainty is over seeds and over test items at once.

All seeds answer the same test items, so that an interval over seeds alone says how the mean would vary on these items,
not on others. A crossed bootstrap draws seeds and items independently, both with replacement (the pigeonhole bootstrap;
Owen 2007, The Annals of Applied Statistics 1:386), and so counts both; it never understates the variance.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from bpgen.analysis.statistics import RNG, Array


def crossed_interval(differences: Array, level: float = 0.95, draws: int = 2000) -> tuple[float, float]:
    """Interval of the mean over seeds and items, from the standard error of a crossed bootstrap and Student's t.

    Args:
        differences: of one rule to another, [seeds, items].
        level: of the interval.
        draws: of the bootstrap.

    Returns:
        Its ends; the whole line with fewer than three seeds.
    """
    seeds, items = differences.shape
    if seeds < 3 or items < 2:
        return -math.inf, math.inf
    rng = np.random.default_rng(RNG)
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds  # [draws, seeds]
    of_items = rng.multinomial(items, np.full(items, 1 / items), size=draws) / items
    means = ((of_seeds @ differences) * of_items).sum(1)
    se = float(means.std(ddof=1)) * math.sqrt(seeds / (seeds - 1))  # few seeds: the bootstrap's variance is (n - 1)/n
    half = float(special.stdtrit(seeds - 1, 0.5 + level / 2)) * se
    middle = float(differences.mean())
    return middle - half, middle + half
