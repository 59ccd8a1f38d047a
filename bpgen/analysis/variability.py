"""Variability over seeds: the ratio of two spreads, decided by Brown and Forsythe's test."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import special, stats
from scipy.optimize import brentq

from bpgen.analysis.statistics import Array, Effect, by_seed, not_measured

ENOUGH_SEEDS = 20
WIDEST = 6.0  # log ratios beyond this on either side of the estimate count as infinite


@dataclass(frozen=True)
class Spread(Effect):
    """A log ratio of spreads whose p-values are Brown-Forsythe tests, and whose interval inverts them."""

    x: Array = field(default_factory=lambda: np.zeros(0))
    y: Array = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(cls, x: Array, y: Array, planned: int, note: str = "") -> Spread:
        """From the values of the condition and of the reference."""
        dx, dy = (np.abs(v - np.median(v)).mean() for v in (x, y))
        estimate = math.log(dx / dy) if dx > 0 and dy > 0 else math.nan
        effect = cls(estimate, math.nan, len(x) + len(y) - 2, min(len(x), len(y)), planned, note=note, x=x, y=y)
        low, high = effect.interval()
        se = (high - low) / (2 * special.stdtrit(effect.df, 0.975))
        return cls(estimate, float(se), effect.df, effect.n, planned, note=note, x=x, y=y)

    def _t(self, log_ratio: float) -> float:
        """Signed root of the Brown-Forsythe statistic of x against exp(log_ratio) y."""
        scaled = self.y * math.exp(log_ratio)
        statistic = float(stats.levene(self.x, scaled, center="median").statistic)
        sign = np.abs(self.x - np.median(self.x)).mean() - np.abs(scaled - np.median(scaled)).mean()
        return math.copysign(math.sqrt(statistic), sign)

    def p_above(self, bound: float) -> float:
        """One-sided Brown-Forsythe p-value of H0: log ratio <= bound."""
        return float(special.stdtr(self.df, -self._t(bound))) if math.isfinite(self.estimate) else 1.0

    def p_below(self, bound: float) -> float:
        """One-sided Brown-Forsythe p-value of H0: log ratio >= bound."""
        return float(special.stdtr(self.df, self._t(bound))) if math.isfinite(self.estimate) else 1.0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """All log ratios that the test does not reject."""
        if not math.isfinite(self.estimate):
            return -math.inf, math.inf
        limit = special.stdtrit(self.df, 0.5 + level / 2)
        lowest, highest = self.estimate - WIDEST, self.estimate + WIDEST
        low, high = -math.inf, math.inf
        if self._t(lowest) > limit:  # t falls from here on, through zero at the estimate
            low = brentq(lambda r: self._t(r) - limit, lowest, self.estimate)
        if self._t(highest) < -limit:
            high = brentq(lambda r: self._t(r) + limit, self.estimate, highest)
        return float(low), float(high)


def spread(values: pd.DataFrame, column: str, condition: str, reference: str) -> Effect:
    """log(standard deviation / that of the reference) over seeds, tested by Brown and Forsythe's statistic.

    The estimate is the log ratio of the mean absolute deviations from the medians, and its standard error is such that
    the test of any ratio r is the Brown-Forsythe test of the values against r times the reference's (t for two groups).
    It has almost no power below 20 seeds: with 10, a spread twice as large goes unseen more often than not.
    """
    wide = by_seed(values, column)
    if condition not in wide or reference not in wide:
        return not_measured(len(wide))
    x, y = (wide[c].dropna().to_numpy(float) for c in (condition, reference))
    n = min(len(x), len(y))
    note = f"little power below {ENOUGH_SEEDS} seeds" if n < ENOUGH_SEEDS else ""
    return not_measured(len(wide), n, note) if n < 3 else Spread.of(x, y, len(wide), note)
