"""Statistics of a study: paired by seed, at matched training loss, decided by intervals.

Units are seeds. The same seed gives the same initial weights and batches under every rule, so differences are taken
within seeds, and every interval is over seeds.

Matched training loss. The Hessian of cross-entropy shrinks with the loss, and so does the gap: values are compared
where training losses are equal: at the first crossing of a level ℓ, interpolated between the two evaluations around it,
linearly in log ℓ (and sharpness in its logarithm). A run that never gets there has no value: it is counted.

`Effect` is what every analysis ends in: estimate, standard error and degrees of freedom, hence a Student interval. Its
decision rule is in `bpgen.study.verdicts`. Beside it stand, without deciding: the BCa bootstrap interval over seeds
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
LOSS = "train/loss"
LOG_SCALE = ("sharpness/",)  # measures that are compared, and interpolated, in their logarithm
MIN_SEEDS_VARIABILITY = 20
_RNG = 20220600  # of bootstrap and permutation: the same table gives the same numbers


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
        """Two-sided interval; infinite where there are too few seeds for one."""
        half = half_width(self.se, self.df, level)
        return self.estimate - half, self.estimate + half

    def p_above(self, bound: float) -> float:
        """One-sided p-value of H0: effect <= bound, against the effect being larger."""
        if not (self.df >= 1 and math.isfinite(self.se)):
            return 1.0
        if self.se == 0:
            return 0.0 if self.estimate > bound else 1.0
        return float(special.stdtr(self.df, (bound - self.estimate) / self.se))

    def p_below(self, bound: float) -> float:
        """One-sided p-value of H0: effect >= bound, against the effect being smaller."""
        if not (self.df >= 1 and math.isfinite(self.se)):
            return 1.0
        if self.se == 0:
            return 0.0 if self.estimate < bound else 1.0
        return float(special.stdtr(self.df, (self.estimate - bound) / self.se))


def half_width(se: float, df: float, level: float) -> float:
    """Half a Student interval; infinite without degrees of freedom."""
    return float(special.stdtrit(df, 0.5 + level / 2)) * se if df >= 1 and math.isfinite(se) else math.inf


# Matched training loss


def common_loss(table: pd.DataFrame, share: float = 0.8) -> float:
    """The lowest training loss that at least `share` of the runs of every condition in the table reach.

    One run that never learns must not move the level to where nothing has been learnt; it counts as never reached.
    """
    least = finished(table).groupby(["condition", "seed"])[LOSS].min()
    levels = [np.sort(own.to_numpy(float))[math.ceil(share * len(own)) - 1] for _, own in least.groupby("condition")]
    return float(max(levels)) if levels else math.nan


def finished(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs that finished."""
    return table[table["status"] == "finished"] if "status" in table else table


def at_loss(table: pd.DataFrame, level: float, columns: list[str]) -> pd.DataFrame:
    """Values of every run where its training loss first comes down to `level`; see the module's docstring.

    Returns:
        One row per run: its keys, the columns (nan where never reached), `step`, and `reached`.
    """
    table = table.sort_values("step", kind="stable")
    loss = table[LOSS].to_numpy(float)
    numbers = {c: table[c].to_numpy(float) for c in ("step", *columns) if c in table}
    rows = []
    for keys, index in table.groupby(["condition", "rule", "seed"], sort=False).indices.items():
        row = dict(zip(("condition", "rule", "seed"), keys, strict=True))
        below = np.flatnonzero(loss[index] <= level)
        row["reached"] = bool(len(below))
        for column in ("step", *columns):
            values = numbers.get(column)
            row[column] = np.nan if values is None else _interpolate(loss[index], values[index], level, below, column)
        rows.append(row)
    return pd.DataFrame(rows, columns=["condition", "rule", "seed", "reached", "step", *columns])


def _interpolate(loss: Array, values: Array, level: float, below: NDArray[np.intp], column: str) -> float:
    if not len(below):
        return math.nan
    i = int(below[0])
    if i == 0:
        return float(values[0])  # there from the start
    log = column.startswith(LOG_SCALE) and values[i - 1] > 0 and values[i] > 0
    a, b = (math.log(values[i - 1]), math.log(values[i])) if log else (values[i - 1], values[i])
    w = (math.log(loss[i - 1]) - math.log(level)) / (math.log(loss[i - 1]) - math.log(loss[i]))
    value = (1 - w) * a + w * b
    return float(math.exp(value) if log else value)


def along_loss(table: pd.DataFrame, lowest: float, column: str, points: int = 12) -> pd.DataFrame:
    """Mean of a measure's logarithm over a range of matched losses, from near the start's down to `lowest`.

    The levels are spaced evenly in their logarithm and the same for all runs; the first is the lowest of the losses at
    the start, so every run passes them all unless it never reaches `lowest`.
    """
    start = table.sort_values("step").groupby(["condition", "seed"])[LOSS].first().min()
    levels = np.geomspace(start, lowest, points + 1)[1:]
    parts = [at_loss(table, float(level), [column]) for level in levels]
    result = parts[-1].copy()
    with np.errstate(invalid="ignore", divide="ignore"):
        result[column] = np.mean([np.log(part[column].to_numpy(float)) for part in parts], axis=0)
    return result


# Effects


def paired(values: pd.DataFrame, column: str, condition: str, reference: str, log: bool = False) -> Effect:
    """Mean over seeds of (condition - reference), within seeds; of logarithms with `log`, hence a log ratio."""
    wide = values.pivot_table(index="seed", columns="condition", values=column, dropna=False)
    if condition not in wide or reference not in wide:
        return Effect(math.nan, math.nan, 0, 0, len(wide), note="not measured")
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = (np.log(wide[c]) if log else wide[c] for c in (condition, reference))
    difference = (x - y).replace([np.inf, -np.inf], np.nan)
    missing = [f"{int(wide[c].isna().sum())} of {c}" for c in (condition, reference) if wide[c].isna().any()]
    note = f"never reached the matched loss: {', '.join(missing)}" if missing else ""
    return from_values({int(k): float(v) for k, v in difference.dropna().items()}, len(wide), note)


def from_values(by_seed: dict[int, float], planned: int, note: str = "") -> Effect:
    """The mean of one number per seed."""
    x = np.array(list(by_seed.values()), dtype=float)
    n = len(x)
    if n < 2:
        return Effect(float(x.mean()) if n else math.nan, math.nan, 0, n, planned, values=by_seed, note=note)
    se = float(x.std(ddof=1) / math.sqrt(n))
    return Effect(float(x.mean()), se, n - 1, n, planned, values=by_seed, note=note)


def bootstrap_interval(x: Array, statistic: Callable[..., float] = np.mean) -> tuple[float, float] | None:
    """BCa interval over seeds at 95 %, or none where scipy finds it undefined."""
    rng = np.random.default_rng(_RNG)
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
        rng=np.random.default_rng(_RNG),
    )
    return float(result.pvalue)


# Variability


def spread(values: pd.DataFrame, column: str, condition: str, reference: str) -> Effect:
    """log(standard deviation / that of the reference) over seeds, tested by Brown and Forsythe's statistic.

    The estimate is the log ratio of the mean absolute deviations from the medians, and its standard error is such that
    the test of any ratio r is the Brown-Forsythe test of the values against r times the reference's (t for two groups).
    It has almost no power below 20 seeds: with 10, a spread twice as large goes unseen more often than not.
    """
    wide = values.pivot_table(index="seed", columns="condition", values=column, dropna=False)
    if condition not in wide or reference not in wide:
        return Effect(math.nan, math.nan, 0, 0, len(wide), note="not measured")
    x, y = (wide[c].dropna().to_numpy(float) for c in (condition, reference))
    n = min(len(x), len(y))
    note = f"little power below {MIN_SEEDS_VARIABILITY} seeds" if n < MIN_SEEDS_VARIABILITY else ""
    if n < 3:
        return Effect(math.nan, math.nan, 0, n, len(wide), note=note)
    return Spread.of(x, y, len(wide), note)


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
        grid = self.estimate + np.linspace(-6, 6, 1201)
        limit = special.stdtrit(self.df, 0.5 + level / 2)
        kept = grid[[abs(self._t(float(g))) <= limit for g in grid]]
        low, high = float(kept.min()), float(kept.max())
        return (-math.inf if low == grid[0] else low), (math.inf if high == grid[-1] else high)


# Correlation


def correlation(
    values: pd.DataFrame, x: str, y: str, within: bool = False, given: str | None = None, rank: bool = False
) -> Effect:
    """Fisher's z = artanh(r) of two measures over runs, with a jackknife over seeds.

    All runs of a seed leave together, because they share weights and batches: seeds are independent, runs are not.

    Args:
        values: one row per run.
        x, y: columns; give logarithms as columns of their own.
        within: take each condition's mean away first, so that differences between conditions count for nothing
            (Simpson's paradox).
        given: partial correlation: a column whose linear effect is removed from both.
        rank: Spearman's correlation instead of Pearson's.
    """
    columns = [x, y, *([given] if given else [])]
    data = values[["condition", "seed", *columns]].replace([np.inf, -np.inf], np.nan).dropna()
    seeds = sorted(data["seed"].unique())
    planned = values["seed"].nunique()
    n = len(seeds)

    def z(part: pd.DataFrame) -> float:
        return math.atanh(float(np.clip(_r(part, x, y, within, given, rank), -0.999999, 0.999999)))

    if n < 4 or len(data) < 6 or data[x].std() == 0 or data[y].std() == 0:
        return Effect(math.nan, math.nan, 0, n, planned, note="too few runs")
    whole = z(data)
    left_out = np.array([z(data[data["seed"] != seed]) for seed in seeds])
    pseudo = n * whole - (n - 1) * left_out
    return Correlation(
        estimate=whole,
        se=float(pseudo.std(ddof=1) / math.sqrt(n)),
        df=n - 1,
        n=n,
        planned=planned,
        note=f"{len(data)} runs",
        shuffled=lambda: _permute_seeds(data, x, y, within, given, rank),
    )


@dataclass(frozen=True)
class Correlation(Effect):
    """A Fisher z with a permutation test of its own."""

    shuffled: Callable[[], float] = lambda: math.nan

    @cached_property
    def p_permutation(self) -> float:
        """Two-sided p-value with x moved between seeds; nan where that is no test."""
        return self.shuffled()


def _r(data: pd.DataFrame, x: str, y: str, within: bool, given: str | None, rank: bool) -> float:
    columns = [x, y, *([given] if given else [])]
    values = data[columns].rank() if rank else data[columns]
    if within:
        values = values - values.groupby(data["condition"]).transform("mean")
    a, b = values[x].to_numpy(float), values[y].to_numpy(float)
    if given:
        c = values[given].to_numpy(float)
        design = np.column_stack([np.ones_like(c), c])
        if np.ptp(c) > 0:
            a, b = (v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (a, b))
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(stats.pearsonr(a, b).statistic)


def _permute_seeds(
    data: pd.DataFrame, x: str, y: str, within: bool, given: str | None, rank: bool, times: int = 500
) -> float:
    """Two-sided p-value with x moved between seeds, conditions kept together; only within conditions is it a test."""
    if not within:
        return math.nan
    wide = data.pivot_table(index="seed", columns="condition", values=x)
    complete = data[data["seed"].isin(wide.dropna().index)].sort_values(["condition", "seed"])
    wide = wide.dropna().sort_index()
    if len(wide) < 4:
        return math.nan
    rng, observed = np.random.default_rng(_RNG), abs(_r(complete, x, y, within, given, rank))
    extreme = 0
    for _ in range(times):
        shuffled = wide.to_numpy()[rng.permutation(len(wide))]
        extreme += abs(_r(complete.assign(**{x: shuffled.T.ravel()}), x, y, within, given, rank)) >= observed - 1e-12
    return (extreme + 1) / (times + 1)


def holm(p: list[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given."""
    order = np.argsort(p)
    adjusted, running = np.empty(len(p)), 0.0
    for position, index in enumerate(order):
        running = max(running, min(1.0, (len(p) - position) * p[index]))
        adjusted[index] = running
    return [float(v) for v in adjusted]
