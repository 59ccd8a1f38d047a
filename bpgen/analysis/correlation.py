"""Correlations over runs whose uncertainty is over seeds: pooled or within conditions, plain, partial or by rank."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import stats

from bpgen.analysis.statistics import RNG, Effect, not_measured


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
        return not_measured(planned, n, "too few runs")
    whole = z(data)
    left_out = np.array([z(data[data["seed"] != seed]) for seed in seeds])
    pseudo = n * whole - (n - 1) * left_out
    return FisherZ(
        estimate=whole,
        se=float(pseudo.std(ddof=1) / math.sqrt(n)),
        df=n - 1,
        n=n,
        planned=planned,
        note=f"{len(data)} runs",
        shuffled=lambda: _permute_seeds(data, x, y, within, given, rank),
    )


@dataclass(frozen=True)
class FisherZ(Effect):
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
    rng, observed = np.random.default_rng(RNG), abs(_r(complete, x, y, within, given, rank))
    extreme = 0
    for _ in range(times):
        shuffled = wide.to_numpy()[rng.permutation(len(wide))]
        extreme += abs(_r(complete.assign(**{x: shuffled.T.ravel()}), x, y, within, given, rank)) >= observed - 1e-12
    return (extreme + 1) / (times + 1)
