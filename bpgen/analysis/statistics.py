"""Effects over seeds: paired differences and ratios, decided by intervals.

Units are seeds. The same seed gives the same initial weights and batches under every rule, so differences are taken
within seeds, and every interval is over seeds.

`Effect` is what every analysis ends in: estimate, standard error and degrees of freedom, hence a Student interval. Its
decision rule is in `bpgen.analysis.verdicts`. Beside it stand, without deciding: the BCa bootstrap interval over seeds
(scipy; too narrow below about 15 seeds), the sign-flip permutation test (exact; with n seeds its two-sided p cannot be
below 2^(1-n), 0.06 for 5) and Wilcoxon's signed-rank test.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats

Array = NDArray[np.float64]
ROUNDING = 1e-9  # values that differ by less than this part of them are equal
RNG = 20220600  # of bootstrap and permutation: the same table gives the same numbers


@dataclass(frozen=True)
class Effect:
    """An estimate over seeds.

    Attributes:
        estimate, se, df: value, its standard error, degrees of freedom of Student's distribution.
        n: seeds that have a value. `planned` of them were run.
        values: by seed, for figures.
        note: what a reader must know, e.g. how many runs never reached the matched loss.
    """

    estimate: float
    se: float
    df: float
    n: int
    planned: int
    values: dict[int, float] = field(default_factory=dict)
    note: str = ""

    @property
    def testable(self) -> bool:
        """Whether there is an error to test against; seeds that are all equal have shown none, and prove nothing."""
        return self.df >= 1 and math.isfinite(self.se) and self.se > 0

    @cached_property
    def bca(self) -> tuple[float, float] | None:
        """Bootstrap interval over seeds at 95 %, or none where it cannot be had."""
        return bootstrap_interval(self._x) if self._varied else None

    @cached_property
    def p_permutation(self) -> float:
        """Two-sided p-value of no effect, by flipping signs; nan where it cannot be had."""
        return _sign_flip(self._x) if self._varied else math.nan

    @cached_property
    def p_wilcoxon(self) -> float:
        """Two-sided p-value of no effect, by signed ranks; nan where it cannot be had."""
        return float(stats.wilcoxon(self._x).pvalue) if self._varied else math.nan

    @property
    def _x(self) -> Array:
        return np.array(list(self.values.values()), dtype=float)

    @property
    def _varied(self) -> bool:
        return len(self.values) >= 3 and self.se > 0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided interval; infinite where there are too few seeds for one, and a point where they are all equal."""
        half = float(special.stdtrit(self.df, 0.5 + level / 2)) * self.se if self.df >= 1 else math.inf
        half = half if math.isfinite(half) else math.inf
        return self.estimate - half, self.estimate + half

    def p_above(self, bound: float) -> float:
        """One-sided p-value of H0: effect <= bound, against the effect being larger."""
        return float(special.stdtr(self.df, (bound - self.estimate) / self.se)) if self.testable else 1.0

    def p_below(self, bound: float) -> float:
        """One-sided p-value of H0: effect >= bound, against the effect being smaller."""
        return float(special.stdtr(self.df, (self.estimate - bound) / self.se)) if self.testable else 1.0


def paired(values: pd.DataFrame, column: str, condition: str, reference: str, log: bool = False) -> Effect:
    """Mean over seeds of (condition - reference), within seeds; of logarithms with `log`, hence a log ratio."""
    wide = by_seed(values, column)
    if condition not in wide or reference not in wide:
        return not_measured(len(wide))
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = (np.log(wide[c]) if log else wide[c] for c in (condition, reference))
    difference = (x - y).replace([np.inf, -np.inf], np.nan)
    missing = [f"{int(wide[c].isna().sum())} of {c}" for c in (condition, reference) if wide[c].isna().any()]
    note = f"never reached the matched loss: {', '.join(missing)}" if missing else ""
    return mean_effect({int(k): float(v) for k, v in difference.dropna().items()}, len(wide), note)


def by_seed(values: pd.DataFrame, column: str) -> pd.DataFrame:
    """A measure with one row per seed and one column per condition; nan where a run has none."""
    return values.pivot_table(index="seed", columns="condition", values=column, dropna=False)


def not_measured(planned: int, n: int = 0, note: str = "not measured") -> Effect:
    """The effect where there is nothing to estimate it from: undecided."""
    return Effect(math.nan, math.nan, 0, n, planned, note=note)


def mean_effect(values: dict[int, float], planned: int, note: str = "") -> Effect:
    """The mean over seeds of one number per seed."""
    x = np.array(list(values.values()), dtype=float)
    n = len(x)
    mean = float(x.mean()) if n else math.nan
    if n < 2:
        return Effect(mean, math.nan, 0, n, planned, values=values, note=note)
    varied = np.ptp(x) > ROUNDING * np.abs(x).max()
    se = float(x.std(ddof=1) / math.sqrt(n)) if varied else 0.0
    note = "; ".join(part for part in (note, "" if varied else "the same in all seeds") if part)
    return Effect(mean, se, n - 1, n, planned, values=values, note=note)


def bootstrap_interval(x: Array, statistic: Callable[..., float] = np.mean) -> tuple[float, float] | None:
    """BCa interval over seeds at 95 %, or none where scipy finds it undefined."""
    rng = np.random.default_rng(RNG)
    with np.errstate(all="ignore"):
        result = stats.bootstrap((x,), statistic, method="BCa", n_resamples=2000, rng=rng, vectorized=True)
    low, high = (float(v) for v in result.confidence_interval)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def _sign_flip(x: Array) -> float:
    """Two-sided sign-flip permutation test of a mean of zero; exact up to 12 seeds."""
    result = stats.permutation_test(
        (x, np.zeros_like(x)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=5000,
        vectorized=True,
        rng=np.random.default_rng(RNG),
    )
    return float(result.pvalue)


def holm(p: list[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given."""
    order = np.argsort(p)
    adjusted, running = np.empty(len(p)), 0.0
    for position, index in enumerate(order):
        running = max(running, min(1.0, (len(p) - position) * p[index]))
        adjusted[index] = running
    return [float(v) for v in adjusted]
