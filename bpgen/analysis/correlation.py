"""Correlations over runs whose uncertainty is over seeds: pooled or within conditions, plain, partial or by rank."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bpgen.analysis.statistics import RNG, Array, Effect, not_measured

PERMUTATIONS = 500


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
    planned, n = values["seed"].nunique(), data["seed"].nunique()
    if n < 4 or len(data) < 6 or data[x].std() == 0 or data[y].std() == 0:
        return not_measured(planned, n, "too few runs")
    runs = _Runs.of(data, columns, within, rank)
    left_out = np.array([runs.take(runs.seed != seed).z for seed in range(n)])
    pseudo = n * runs.z - (n - 1) * left_out
    return FisherZ(
        estimate=runs.z,
        se=float(pseudo.std(ddof=1) / math.sqrt(n)),
        df=n - 1,
        n=n,
        planned=planned,
        note=f"{len(data)} runs",
        permuted=runs.permuted if within else None,
    )


@dataclass(frozen=True)
class FisherZ(Effect):
    """A Fisher z with a permutation test of its own.

    permuted: gives r, and r with x moved between seeds many times; None where that is no test.
    """

    permuted: Callable[[], tuple[float, Array]] | None = None

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
        """The correlation; 0 where one of the measures does not vary."""
        x, y, *given = stats.rankdata(self.measures, axis=1) if self.rank else self.measures
        if self.within:
            x, y, *given = (self._within(v) for v in (x, y, *given))
        if given and np.ptp(given[0]) > 0:
            design = np.column_stack([np.ones_like(x), given[0]])
            x, y = (v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (x, y))
        return 0.0 if x.std() == 0 or y.std() == 0 else float(stats.pearsonr(x, y).statistic)

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
        complete = np.isin(np.arange(len(self.seed)), cells)
        rng, results = np.random.default_rng(RNG), np.empty(PERMUTATIONS)
        for i in range(PERMUTATIONS):
            measures = self.measures.copy()
            measures[0, cells] = measures[0, cells[rng.permutation(len(cells))]]
            results[i] = replace(self, measures=measures).take(complete).r
        return self.take(complete).r, results

    def _within(self, v: Array) -> Array:
        """Without the mean of each condition."""
        n = np.bincount(self.condition).clip(1)
        return v - (np.bincount(self.condition, v) / n)[self.condition]
