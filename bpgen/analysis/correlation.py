"""Correlations over runs whose uncertainty is over seeds: pooled or within conditions, plain, partial or by rank.

Pooled over conditions a correlation is a description: it sees mostly the means of few conditions, of whose variation
the seeds say nothing. With two rules whose means differ by chance, every seed shows the same correlation. Within
conditions it can be tested: by a jackknife over seeds and by a permutation of seeds, which have to agree; and where
runs are missing, by ranks with these at their worst (`_at_worst`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bpgen.analysis.statistics import RNG, Array, Effect, Location, Side, not_measured
from bpgen.analysis.worst import Bounded, jackknife

PERMUTATIONS = 500
_ROUNDING = 1e-13  # what is left, in parts of the sum, of a measure that does not vary by itself


def correlation(
    values: pd.DataFrame, x: str, y: str, within: bool = False, given: str | None = None, rank: bool = False
) -> Effect:
    """Fisher's z = artanh(r) of two measures over runs, with a jackknife over seeds.

    All runs of a seed leave together, because they share weights and batches: seeds are independent, runs are not.

    Args:
        values: one row per run; of a planned run without values, an empty one.
        x, y: columns; give logarithms as columns of their own.
        within: take each condition's mean away first, so that differences between conditions count for nothing
            (Simpson's paradox).
        given: partial correlation: a column whose linear effect is removed from both.
        rank: Spearman's correlation instead of Pearson's.
    """
    columns = [x, y, *([given] if given else [])]
    table = values[["condition", "seed", *columns]].replace([np.inf, -np.inf], np.nan)
    data = table.dropna()
    planned, n = values["seed"].nunique(), data["seed"].nunique()
    if n < 4 or len(data) < 6 or data[x].std() == 0 or data[y].std() == 0:
        return not_measured(planned, n, "too few runs")
    runs = _Runs.of(data, columns, within, rank)
    found = jackknife(lambda kept: runs.take(kept[runs.seed]).z, n)
    all_runs = planned * values["condition"].nunique()
    missing = within and len(data) < all_runs
    return FisherZ(
        *found,
        n=n,
        planned=planned,
        note=f"{len(data)} of {all_runs} runs" if missing else f"{len(data)} runs",
        at_worst=cache(partial(_at_worst, _cells(table, columns))) if missing else None,
        permuted=runs.permuted if within else None,
    )


@dataclass(frozen=True)
class FisherZ(Bounded):
    """A Fisher z with a permutation test of its own, without which no correlation is shown.

    permuted: gives r, and r with x moved between seeds many times; None where that is no test.
    """

    permuted: Callable[[], tuple[float, Array]] | None = None

    def p_above(self, bound: float) -> float:
        """One-sided p-value of H0: z <= bound; of no correlation, the larger one of both tests."""
        return max(super().p_above(bound), self._permuted_p(1) if bound == 0 else 0.0)

    def p_below(self, bound: float) -> float:
        """One-sided p-value of H0: z >= bound; of no correlation, the larger one of both tests."""
        return max(super().p_below(bound), self._permuted_p(-1) if bound == 0 else 0.0)

    def _permuted_p(self, sign: int) -> float:
        """One-sided p-value with x moved between seeds; 1 where too few seeds are complete, 0 where it is no test."""
        if self._permutations is None:
            return 0.0 if self.permuted is None else 1.0
        r, permuted = self._permutations
        return float((np.sum(sign * permuted >= sign * r - 1e-12) + 1) / (len(permuted) + 1))

    @cached_property
    def p_permutation(self) -> float:
        """Two-sided p-value with x moved between seeds; nan where that is no test."""
        if self._permutations is None:
            return math.nan
        r, permuted = self._permutations
        return float((np.sum(np.abs(permuted) >= abs(r) - 1e-12) + 1) / (len(permuted) + 1))

    @cached_property
    def _permutations(self) -> tuple[float, Array] | None:
        r, permuted = self.permuted() if self.permuted is not None else (math.nan, np.zeros(0))
        return (r, permuted) if len(permuted) else None


@dataclass(frozen=True)
class _Runs:
    """Measures of runs: x, y and perhaps a third one that both are given, [measures, runs]."""

    measures: Array
    condition: NDArray[np.intp]
    seed: NDArray[np.intp]
    within: bool
    rank: bool

    @classmethod
    def of(cls, data: pd.DataFrame, columns: list[str], within: bool, rank: bool) -> _Runs:
        """From a table without gaps; conditions and seeds are numbered from 0."""
        condition, seed = (np.unique(data[c], return_inverse=True)[1] for c in ("condition", "seed"))
        return cls(data[columns].to_numpy(float).T, condition, seed, within, rank)

    def take(self, kept: NDArray[np.bool_]) -> _Runs:
        """Some of the runs."""
        measures, condition, seed = self.measures[:, kept], self.condition[kept], self.seed[kept]
        return replace(self, measures=measures, condition=condition, seed=seed)

    @property
    def r(self) -> float:
        """The correlation; 0 where one of the measures does not vary, or only as its condition and the third one do."""
        return float(self.rs(self.measures[:1])[0])

    def rs(self, x: Array) -> Array:
        """The correlations of many x [·,runs] with y, in the place of the own one."""
        _, y, *given = self.measures
        columns = [x, *(v[np.newaxis] for v in (y, *given))]
        if self.rank:
            columns = [stats.rankdata(v, axis=1) for v in columns]
        least = [_ROUNDING * np.abs(v).sum(axis=1) for v in columns]
        if self.within:
            columns = [self._within(v) for v in columns]
        if given and np.ptp(columns[2]) > 0:
            basis = np.linalg.qr(np.column_stack([np.ones(x.shape[1]), columns[2][0]]))[0]
            columns = [v - v @ basis @ basis.T for v in columns]
        x, y = (v - v.mean(axis=1, keepdims=True) for v in columns[:2])
        sizes = [np.linalg.norm(v, axis=1) for v in (x, y)]
        varies = (sizes[0] > least[0]) & (sizes[1] > least[1])
        return np.divide(x @ y[0], sizes[0] * sizes[1], out=np.zeros(len(x)), where=varies).clip(-1, 1)

    @property
    def z(self) -> float:
        """Fisher's z = artanh(r)."""
        return math.atanh(float(np.clip(self.r, -0.999999, 0.999999)))

    def permuted(self) -> tuple[float, Array]:
        """r, and r with x moved between seeds, conditions kept together; of the seeds that all conditions have."""
        cells = np.full((self.seed.max() + 1, self.condition.max() + 1), -1)
        cells[self.seed, self.condition] = np.arange(len(self.seed))
        cells = cells[(cells >= 0).all(axis=1)]  # [seeds, conditions]: which run
        if len(cells) < 4:
            return math.nan, np.zeros(0)
        is_complete = np.isin(np.arange(len(self.seed)), cells)
        complete, cells = self.take(is_complete), (is_complete.cumsum() - 1)[cells]
        rng, x = np.random.default_rng(RNG), complete.measures[0]
        moved = np.tile(x, (PERMUTATIONS, 1))
        moved[:, cells] = x[cells[[rng.permutation(len(cells)) for _ in moved]]]
        return complete.r, complete.rs(moved)

    def _within(self, v: Array) -> Array:
        """Rows [·,runs] without the mean of each condition."""
        belongs = self.condition[:, np.newaxis] == np.arange(self.condition.max() + 1)  # [runs, conditions]
        return v - (v @ belongs / belongs.sum(axis=0).clip(1))[:, self.condition]


def _cells(table: pd.DataFrame, columns: list[str]) -> Array:
    """The measures of every planned run, [measures, conditions, seeds]; all nan where one is missing."""
    wide = np.stack([table.pivot(index="condition", columns="seed", values=c).to_numpy(float) for c in columns])
    return np.where(np.isfinite(wide).all(axis=0), wide, np.nan)


def _at_worst(cells: Array, side: Side) -> Location:
    """Fisher's z of Spearman's correlation within conditions, with missing runs in the corner that speaks against it.

    For a correlation above a bound: largest in x, smallest in y. (Some of them in the opposite corner, smallest in x
    and largest in y, make the same sum of products of ranks.) Ranks bound what a run can do. A third measure is taken
    from the other two before they are ranked.
    """
    sign = 1 if side == "above" else -1

    def z(kept: NDArray[np.bool_]) -> float:
        sums = np.sum([_worst_sums(row, sign) for row in cells[:, :, kept].swapaxes(0, 1)], axis=0)
        covariance, x, y = (float(v) for v in sums)
        r = covariance / math.sqrt(x * y) if x > 0 and y > 0 else 0.0
        return sign * math.atanh(min(max(r, -0.999999), 0.999999))

    return jackknife(z, cells.shape[2])


def _worst_sums(row: Array, sign: int) -> tuple[float, float, float]:
    """Sums of products and squares of the centred ranks of one condition, [measures, seeds], missing runs at worst."""
    present = np.isfinite(row[0])
    x, y, *given = row[:, present]
    if given and len(x) > 1 and np.ptp(given[0]) > 0:
        x, y = (v - np.polyval(np.polyfit(given[0], v, 1), given[0]) for v in (x, y))
    n, missing = len(present), int((~present).sum())
    x, y = stats.rankdata(x), stats.rankdata(sign * y)
    a = np.concatenate([x, n - np.arange(missing)]) - (n + 1) / 2
    b = np.concatenate([y + missing, 1.0 + np.arange(missing)]) - (n + 1) / 2
    return float(a @ b), float(a @ a), float(b @ b)
