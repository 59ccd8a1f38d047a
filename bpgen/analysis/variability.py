"""Variability over seeds: the ratio of two standard deviations, paired by seed, by a jackknife of log variances."""

from __future__ import annotations

import math
from functools import cache, partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bpgen.analysis.statistics import TRIMMED, Array, Effect, Location, Side, by_seed, not_measured
from bpgen.analysis.worst import Bounded, jackknife

FEWEST_SEEDS, ENOUGH_SEEDS = 6, 20


def spread(values: pd.DataFrame, column: str, condition: str, reference: str) -> Effect:
    """log(standard deviation / that of the reference) over the seeds that both have.

    Its standard error is that of a jackknife over seeds (Miller 1968), which leaves out both of a pair, so that what
    the conditions share is not counted twice, as in the test of Pitman and Morgan (1939); unlike that one it holds
    its level for heavy tails. Below 6 seeds there is no estimate; below 20 there is little power: with 10 independent
    pairs a spread twice as large goes unseen more often than not. Simulated (tests/analysis), 2.5 % are at most 3.6 %
    for normal and Student values, correlated or not, and up to 5 % for values as skewed as an exponential.

    Where planned seeds have no value, a second test has to agree, with them at their worst (`_at_worst`); then 2.5 %
    hold whoever drops out (`tests/analysis/test_dropout.py`). It costs power: with a fifth of 20 seeds missing under
    one condition, a spread that is three times as large is seen in 16 % of studies, one that is five times in 66 %.
    """
    wide = by_seed(values, column)
    if condition not in wide or reference not in wide:
        return not_measured(len(wide))
    planned = wide[[condition, reference]].to_numpy(float).T
    pairs = planned[:, np.isfinite(planned).all(axis=0)]
    n = pairs.shape[1]
    if n < FEWEST_SEEDS:
        return not_measured(len(wide), n, f"no test of spread below {FEWEST_SEEDS} seeds")
    found = jackknife(lambda kept: _log_ratio(pairs[:, kept]), n)
    if not found.df:
        return not_measured(len(wide), n, "no spread")
    note = f"little power below {ENOUGH_SEEDS} seeds" if n < ENOUGH_SEEDS else ""
    worst = cache(partial(_at_worst, planned)) if n < len(wide) else None
    return Bounded(*found, n, len(wide), note=note, at_worst=worst)


def _log_ratio(pairs: Array) -> float:
    """Of the standard deviations of two rows."""
    x, y = pairs.std(axis=1, ddof=1)
    return math.log(x / y) if x > 0 and y > 0 else math.nan


def _at_worst(planned: Array, side: Side) -> Location:
    """The least (above) or largest (below) log ratio of spreads that the missing seeds of two rows may hide.

    By root mean square distances from the median without the `cut` largest ones: at its least with the missing values
    at whichever median makes it so, at its largest with them beyond all others. Not to be tested where more than a
    fifth are missing.
    """
    cut = planned.shape[1] // TRIMMED
    if np.isnan(planned).sum(axis=1).max() > cut:
        return Location(-math.inf if side == "above" else math.inf, math.nan, 0)

    def ratio(kept: NDArray[np.bool_]) -> float:
        x, y = planned[:, kept]
        far, near = (y, x) if side == "above" else (x, y)
        difference = _least(near, cut) - _largest(far, cut)
        return difference if side == "above" else -difference

    with np.errstate(divide="ignore", invalid="ignore"):
        return jackknife(ratio, planned.shape[1])


def _medians(row: Array) -> tuple[Array, Array]:
    """The values that are there, in order, and the median with none, one, ... of the missing ones above them all."""
    present = np.sort(row[np.isfinite(row)])
    missing = len(row) - len(present)
    padded = np.concatenate([np.full(missing, -np.inf), present, np.full(missing, np.inf)])
    return present, np.array([np.median(padded[above : above + len(row)]) for above in range(missing + 1)])


def _least(row: Array, cut: int) -> float:
    """Log trimmed spread with the missing values at the median: of whichever stretch of the others lies closest."""
    present, medians = _medians(row)
    stretches = np.lib.stride_tricks.sliding_window_view(present, len(present) - cut)
    centers = stretches.mean(axis=1).clip(medians[0], medians[-1])
    return float(np.log(np.min(np.sum((stretches - centers[:, None]) ** 2, axis=1)) / (len(row) - cut)) / 2)


def _largest(row: Array, cut: int) -> float:
    """Log trimmed spread with the missing values beyond the others, as many above as makes it largest."""
    present, medians = _medians(row)
    distance = np.sort(np.abs(present - medians[:, None]), axis=1)[:, : len(row) - cut]
    return float(np.log(np.max(np.mean(distance**2, axis=1))) / 2)
