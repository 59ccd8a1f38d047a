"""Effects that are no means over seeds, with planned seeds that have no value at their worst.

A mean can be trimmed (`Effect.trimmed`). A spread or a correlation is a statistic of all seeds at once, and so its
bounds are taken: what it would be had the missing runs been those that speak most against a side (worst-case bounds;
Horowitz and Manski 2000), by a form of the statistic that a fifth of the seeds cannot move without limit. The error of
the bound is that of a jackknife over all planned seeds, of whom missing a value is one outcome.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bpgen.analysis.statistics import Array, Effect, Location, Side


@dataclass(frozen=True)
class Bounded(Effect):
    """An effect over seeds of which some may have no value.

    at_worst: the statistic with those at their worst for being on that side of a bound; None where no seed is missing.
    """

    at_worst: Callable[[Side], Location] | None = None

    def locations(self, side: Side) -> list[Location]:
        """What has to be on that side of a bound for the effect to be there."""
        return [self.student, *([self.at_worst(side)] if self.at_worst is not None else [])]


def jackknife(statistic: Callable[[NDArray[np.bool_]], float], seeds: int) -> Location:
    """A statistic of the seeds that are kept, and its standard error by leaving out one after the other (Miller 1968).

    Not to be tested where it is not finite, or without one of the seeds is not.
    """
    everyone = np.ones(seeds, dtype=bool)
    left_out: Array = np.array([statistic(np.arange(seeds) != seed) for seed in range(seeds)])
    estimate = statistic(everyone)
    if not (math.isfinite(estimate) and np.isfinite(left_out).all()):
        return Location(estimate, math.nan, 0)
    return Location(estimate, float((seeds - 1) * left_out.std(ddof=1) / math.sqrt(seeds)), seeds - 1)
