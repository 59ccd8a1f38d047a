"""Effects over seeds: paired differences and ratios, decided by tests that have to agree.

Units are seeds. The same seed gives the same initial weights and batches under every rule, so differences are taken
within seeds, and every interval is over seeds.

`Effect` is what every analysis ends in: a mean over seeds, its standard error and degrees of freedom, hence a Student
interval. Three tests look at it, and no verdict stands against one of them (`bpgen.analysis.verdicts`):

- Student's t of the seeds that have a value.
- Its trimmed form (Tukey and McLaughlin 1963, Yuen 1974), which leaves out a fifth of the seeds at either end and so
  does not hang on single ones. Planned seeds without a value (diverged, or never at the matched loss) count as the
  worst, below all others for "larger than" and above all others for "smaller than" (worst-rank imputation; Lachin
  1999): who drops out is not left to chance. Where they are more than a fifth, it decides nothing.
- Flips of signs (Fisher 1935), which do not assume normality; one-sided p cannot be below 2^-n.

Beside them stand, without deciding, the BCa bootstrap interval over seeds (scipy; too narrow below about 15 seeds) and
Wilcoxon's signed-rank test.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats

Array = NDArray[np.float64]
ROUNDING = 1e-9  # values that differ by less than this part of them are equal
RNG = 20220600  # of bootstrap and permutation: the same table gives the same numbers


TRIMMED = 5  # one in so many seeds at either end
Side = Literal["above", "below"]  # of a bound, where an effect is shown to be


class Location(NamedTuple):
    """A mean of some kind, its standard error, and degrees of freedom of Student's distribution."""

    estimate: float
    se: float
    df: float

    @property
    def testable(self) -> bool:
        """Whether there is an error to test against; seeds that are all equal have shown none, and prove nothing."""
        return self.df >= 1 and math.isfinite(self.se) and self.se > 0

    def p(self, side: Side, bound: float) -> float:
        """One-sided p-value against being on that side of a bound."""
        distance = self.estimate - bound if side == "above" else bound - self.estimate
        return float(special.stdtr(self.df, -distance / self.se)) if self.testable else 1.0

    def interval(self, level: float) -> tuple[float, float]:
        """Interval; the whole line where there are too few seeds for one, and a point where they are all equal."""
        half = float(special.stdtrit(self.df, 0.5 + level / 2)) * self.se if self.df >= 1 else math.inf
        half = half if math.isfinite(half) else math.inf
        return self.estimate - half, self.estimate + half


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
    def student(self) -> Location:
        """The mean of the seeds that have a value."""
        return Location(self.estimate, self.se, self.df)

    @property
    def testable(self) -> bool:
        """Whether there is an error to test against."""
        return self.student.testable

    def trimmed(self, side: Side) -> Location:
        """The trimmed mean of all planned seeds, those without a value at the end that speaks against this side."""
        x, missing = self._x, self.planned - self.n
        cut = self.planned // TRIMMED
        if missing > cut or not len(x):
            return Location(-math.inf if side == "above" else math.inf, math.nan, 0)
        worst = x.min() if side == "above" else x.max()  # cut off or winsorized, so that any value beyond is the same
        x = np.sort(np.concatenate([np.full(missing, worst), x]))
        kept = x[cut : len(x) - cut]
        ends = x.clip(kept[0], kept[-1])
        varied = np.ptp(kept) > ROUNDING * np.abs(kept).max()
        se = ends.std(ddof=1) / ((len(kept) / len(x)) * math.sqrt(len(x))) if varied and len(x) > 1 else 0.0
        return Location(float(kept.mean()), float(se), len(kept) - 1)

    @property
    def trimmed_mean(self) -> float:
        """Of the seeds that have a value, without a fifth of them at either end."""
        return float(stats.trim_mean(self._x, 1 / TRIMMED)) if self.values else math.nan

    def locations(self, side: Side) -> list[Location]:
        """What has to be on that side of a bound for the effect to be there."""
        return [self.student, self.trimmed(side)] if self.values else [self.student]

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
        """Student's two-sided interval; infinite where there are too few seeds, and a point where all are equal."""
        return self.student.interval(level)

    def bounds(self, level: float) -> tuple[float, float]:
        """The interval that all locations allow: wider for outliers, and for missing seeds at their worst."""
        low = min(at.interval(level)[0] for at in self.locations("above"))
        return low, max(at.interval(level)[1] for at in self.locations("below"))

    def p_above(self, bound: float) -> float:
        """One-sided p-value of H0: effect <= bound, against the effect being larger: the largest of Student's."""
        return max(at.p("above", bound) for at in self.locations("above"))

    def p_below(self, bound: float) -> float:
        """One-sided p-value of H0: effect >= bound, against the effect being smaller: the largest of Student's."""
        return max(at.p("below", bound) for at in self.locations("below"))

    def p_flips(self, side: Side, bound: float) -> float:
        """The same by flipping signs of the differences from the bound; 0 where there are no values to flip."""
        return flip_p(self._x - bound if side == "above" else bound - self._x) if self.values else 0.0


def paired(values: pd.DataFrame, column: str, condition: str, reference: str, log: bool = False) -> Effect:
    """Mean over seeds of (condition - reference), within seeds; of logarithms with `log`, hence a log ratio."""
    wide = by_seed(values, column)
    if condition not in wide or reference not in wide or wide[[condition, reference]].isna().to_numpy().all():
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


def flip_p(x: Array) -> float:
    """One-sided sign-flip test of a mean <= 0: the share of sign patterns with a mean as large; exact up to 12 seeds.

    That of scipy's `permutation_test`, a hundred times faster, for judgements ask it of every check.
    """
    if len(x) < 2:
        return 1.0
    flipped = _signs(len(x)) @ x
    return float(np.mean(flipped >= x.sum() - ROUNDING * np.abs(x).sum()))


@lru_cache
def _signs(n: int) -> Array:
    """All patterns of n signs, or 5000 of them, [patterns, n]; the first one flips nothing."""
    if n <= 12:
        return (1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)).astype(np.float64)
    signs: Array = np.random.default_rng(RNG).choice([-1.0, 1.0], size=(5000, n))
    signs[0] = 1
    return signs


def holm(p: list[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given."""
    order = np.argsort(p)
    adjusted, running = np.empty(len(p)), 0.0
    for position, index in enumerate(order):
        running = max(running, min(1.0, (len(p) - position) * p[index]))
        adjusted[index] = running
    return [float(v) for v in adjusted]
