"""Variability over seeds: the ratio of two standard deviations, paired by seed, by a jackknife of log variances."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from bpgen.analysis.statistics import Array, Effect, by_seed, not_measured

FEWEST_SEEDS, ENOUGH_SEEDS = 6, 20


def spread(values: pd.DataFrame, column: str, condition: str, reference: str) -> Effect:
    """log(standard deviation / that of the reference) over the seeds that both have.

    Its standard error is that of a jackknife over seeds (Miller 1968), which leaves out both of a pair, so that what
    the conditions share is not counted twice, as in the test of Pitman and Morgan (1939); unlike that one it holds
    its level for heavy tails. Below 6 seeds there is no estimate; below 20 there is little power: with 10 independent
    pairs a spread twice as large goes unseen more often than not. Simulated (tests/analysis), 2.5 % are at most 3.6 %
    for normal and Student values, correlated or not, and up to 5 % for values as skewed as an exponential. A seed
    without a value cannot be counted at its worst, for its spread has no bound: where the fifth with the largest
    values is missing under one condition, errors are up to 17 % with 20 seeds and 28 % with 40.
    """
    wide = by_seed(values, column)
    if condition not in wide or reference not in wide:
        return not_measured(len(wide))
    pairs = wide[[condition, reference]].dropna().to_numpy(float).T
    n = pairs.shape[1]
    if n < FEWEST_SEEDS:
        return not_measured(len(wide), n, f"no test of spread below {FEWEST_SEEDS} seeds")
    left_out = np.array([_log_ratio(np.delete(pairs, seed, axis=1)) for seed in range(n)])
    estimate = _log_ratio(pairs)
    if not (math.isfinite(estimate) and np.isfinite(left_out).all()):
        return not_measured(len(wide), n, "no spread")
    se = float((n - 1) * left_out.std(ddof=1) / math.sqrt(n))
    note = f"little power below {ENOUGH_SEEDS} seeds" if n < ENOUGH_SEEDS else ""
    return Effect(estimate, se, n - 1, n, len(wide), note=note)


def _log_ratio(pairs: Array) -> float:
    """Of the standard deviations of two rows."""
    x, y = pairs.std(axis=1, ddof=1)
    return math.log(x / y) if x > 0 and y > 0 else math.nan
