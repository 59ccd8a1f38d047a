"""Divergence as an outcome of its own: how much more often runs of one rule do not survive, paired by seed.

Seeds are compared within pairs: b diverge under the rule only, c under the reference only. That the rule diverges no
more often is put to McNemar's exact test (1947: b of b + c, binomial); any other difference d of the two shares to the
score test of Tango (1998, Statistics in Medicine 17:891), whose inversion is the interval. Neither assumes normality
over seeds, so that nothing is trimmed and no signs are flipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import special, stats
from scipy.optimize import brentq

from bpgen.analysis.matching import blown_up
from bpgen.analysis.statistics import Effect, Location, Side

DIVERGED = "diverged"


def diverged(table: pd.DataFrame) -> pd.DataFrame:
    """By seed (rows) and condition (columns), whether a run diverged or blew up; nan of one that did not end."""
    if "status" not in table:
        table = table.assign(status="finished")
    lost = (table["status"] == DIVERGED) | (blown_up(table) if len(table) else False)
    ended = table["status"].isin(["finished", DIVERGED])
    share = lost.astype(float).where(ended)
    return share.groupby([table["seed"], table["condition"]]).max().unstack("condition")


def divergence(table: pd.DataFrame, condition: str, reference: str) -> Effect:
    """The share of seeds that diverge under a condition, less that under the reference; with a note where any does.

    Args:
        table: a row per run and evaluation, with `status`.
        condition, reference: as its column `condition` names them.
    """
    wide = diverged(table).reindex(columns=[condition, reference])
    pairs = wide.dropna()
    values = {int(str(seed)): float(d) for seed, d in (pairs[condition] - pairs[reference]).items()}
    n, planned, more = len(values), len(wide), list(values.values())
    note = ", ".join(f"{int(wide[c].sum())} of {c}" for c in wide if wide[c].sum() > 0)
    note = note and f"diverged: {note}"
    if n < 2:
        return Effect(math.nan, math.nan, 0, n, planned, values, note)
    se = float(np.std(more, ddof=1) / math.sqrt(n))
    return ShareDifference(float(np.mean(more)), se, n - 1, n, planned, values, note)


@dataclass(frozen=True)
class ShareDifference(Effect):
    """A difference of two paired shares; its values are 1, 0 or -1."""

    def locations(self, side: Side) -> list[Location]:
        """The mean alone: rare events are what a trimmed mean leaves out."""
        return [self.student]

    @property
    def trimmed_mean(self) -> float:
        """The mean, for the same reason."""
        return self.estimate

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Tango's."""
        z = float(special.ndtri(0.5 + level / 2))
        low = -1.0 if self._score(-1) <= z else brentq(lambda d: self._score(d) - z, -1, self.estimate)
        high = 1.0 if self._score(1) >= -z else brentq(lambda d: self._score(d) + z, self.estimate, 1)
        return float(low), float(high)

    def bounds(self, level: float) -> tuple[float, float]:
        """The same: seeds without a value did not end, and say nothing about divergence."""
        return self.interval(level)

    def p_above(self, bound: float) -> float:
        """One-sided p-value of H0: difference <= bound."""
        return self._exact(*self._discordant) if bound == 0 else float(special.ndtr(-self._score(bound)))

    def p_below(self, bound: float) -> float:
        """One-sided p-value of H0: difference >= bound."""
        return self._exact(*self._discordant[::-1]) if bound == 0 else float(special.ndtr(self._score(bound)))

    def p_flips(self, side: Side, bound: float) -> float:
        """That of the test itself, which assumes no normality."""
        return self.p_above(bound) if side == "above" else self.p_below(bound)

    @cached_property
    def _discordant(self) -> tuple[int, int]:
        x = np.array(list(self.values.values()))
        return int((x > 0).sum()), int((x < 0).sum())

    @staticmethod
    def _exact(b: int, c: int) -> float:
        return float(stats.binom.sf(b - 1, b + c, 0.5)) if b + c else 1.0

    def _score(self, d: float) -> float:
        """Tango's statistic of a difference d: standard normal if that is the truth."""
        (b, c), n = self._discordant, self.n
        if abs(d) >= 1:
            return math.copysign(math.inf, b - c - n * d) if b - c != n * d else 0.0
        linear, constant = -b - c + (2 * n - b + c) * d, -c * d * (1 - d)
        q = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)  # of the reference only, given d
        variance = n * (2 * q + d * (1 - d))
        return (b - c - n * d) / math.sqrt(variance) if variance > 0 else 0.0
