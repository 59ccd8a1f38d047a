"""Values at matched training loss.

The Hessian of cross-entropy shrinks with the loss, and so does the gap, so that unmatched comparisons mislead: values
are compared where training losses are equal, interpolated between the two evaluations around a level ℓ, linearly in
log ℓ (and sharpness in its logarithm). A run that never gets there has no value: it is counted.

A loss that jumps up and down first touches a level while it is, on average, still above it, so that of two equal rules
the rougher one would be measured too early. Hence a run is at ℓ where the monotone curve closest to its log loss
(isotonic regression; Barlow et al. 1972, Statistical Inference under Order Restrictions) comes down to ℓ. A loss that
never rises is its own monotone curve.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

Array = NDArray[np.float64]
LOSS, ACCURACY = "train/loss", "train/accuracy"
LOSS_ITSELF = "train/loss itself"  # where the error has taken its place
LEAST = 1e-12  # a loss below this counts as this: one of exactly 0 has no logarithm
LEAST_ERROR = 1e-3  # likewise a training error, which is a share of samples
ROUNDING = 1e-9  # in log loss
BLOWN_UP = 10  # times the loss at its start: a run that ends above has not finished, whatever its status
LOG_SCALE = ("sharpness/",)  # measures that are compared, and interpolated, in their logarithm
RUN = ["condition", "seed"]
Curve = Literal["monotone", "as it is"]
Measure = Literal["loss", "error"]


class Level(NamedTuple):
    """Where losses are matched: at the lowest training loss that a share of the seeds reach under every condition.

    One run that never learns must not move the level to where nothing has been learnt; it counts as never reached. The
    share is of all seeds that were planned: one whose run diverged under any condition reaches nothing.

    share: of the seeds; where fewer finish under every condition, the level is what all of those reach.
    way: how far down to that loss, in log loss, from the lowest of the losses at the start.
    curve: what comes down to it: the monotone curve closest to a run's log loss, or that loss as it is, which is at the
        level the first time it touches it.
    on: what is matched: the training loss, or in tasks with an accuracy the training error, see `on_error`.
    """

    share: float = 0.8
    way: float = 1.0
    curve: Curve = "monotone"
    on: Measure = "loss"

    def of(self, table: pd.DataFrame) -> float:
        """The loss, for the conditions in the table; nan where no seed finishes under all that have finished runs."""
        seeds, table = table["seed"].unique(), finished(table)
        if table.empty:
            return math.nan
        table = table.sort_values("step", kind="stable")
        least = table.groupby(RUN)[LOSS].agg(lambda loss: log_curve(loss.to_numpy(float), self.curve).min())
        together = least.unstack("condition").reindex(seeds).max(axis=1, skipna=False)
        reached = np.sort(together.dropna().to_numpy(float))
        if not len(reached):
            return math.nan
        lowest = reached[min(math.ceil(self.share * len(seeds)), len(reached)) - 1]
        return math.exp(self.way * lowest + (1 - self.way) * math.log(start_loss(table)))


LOWEST_COMMON = Level()


def log_curve(loss: Array, curve: Curve = "monotone") -> Array:
    """The log loss of a run, evaluation by evaluation, or the monotone curve closest to it."""
    log = np.log(loss.clip(min=LEAST))
    return np.asarray(isotonic_regression(log, increasing=False).x) if curve == "monotone" else log


def roughness(table: pd.DataFrame) -> pd.Series:
    """How far the log loss of every finished run is from its monotone curve: root mean square over evaluations."""
    runs = finished(table).sort_values("step", kind="stable").groupby(RUN, sort=False)[LOSS]
    return runs.agg(lambda loss: _distance(log_curve(loss.to_numpy(float), "as it is")))


def _distance(log: Array) -> float:
    return float(np.sqrt(np.mean((log - isotonic_regression(log, increasing=False).x) ** 2)))


def start_loss(table: pd.DataFrame) -> float:
    """The lowest training loss at which any run starts: all runs pass what is below it."""
    return max(LEAST, float(table.sort_values("step").groupby(RUN)[LOSS].first().min()))


def finished(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs that finished and have not blown up."""
    if "status" in table:
        table = table[table["status"] == "finished"]
    return table if table.empty or LOSS not in table else table[~blown_up(table)]


def blown_up(table: pd.DataFrame) -> NDArray[np.bool_]:
    """For every row, whether its run ends above `BLOWN_UP` times the loss that it starts at, or has one that is nan."""
    runs = table.groupby(RUN, sort=False).ngroup().to_numpy()
    loss, order = table[LOSS].to_numpy(float), np.argsort(table["step"].to_numpy(), kind="stable")
    start, end = np.empty(runs.max() + 1), np.empty(runs.max() + 1)
    start[runs[order[::-1]]], end[runs[order]] = loss[order[::-1]], loss[order]  # the last one written stays
    lost = np.isin(runs, runs[~np.isfinite(loss)])
    return np.asarray(lost | (end > BLOWN_UP * start)[runs])


def on_error(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the training error, 1 - accuracy, in place of the training loss; as it is where there is none.

    What matches losses then matches accuracies. The loss goes on as `LOSS_ITSELF`; blowing up is seen in it, so that
    such runs are marked as diverged.
    """
    if ACCURACY not in table or not table[ACCURACY].notna().any():
        return table
    status = table["status"] if "status" in table else pd.Series("finished", table.index)
    status = status.mask((status == "finished") & blown_up(table), "diverged")
    return table.assign(
        **{"status": status, LOSS_ITSELF: table[LOSS], LOSS: (1 - table[ACCURACY]).clip(lower=LEAST_ERROR)}
    )


def at_loss(table: pd.DataFrame, level: float, columns: list[str], curve: Curve = "monotone") -> pd.DataFrame:
    """Values of every run where its training loss comes down to `level`; see the module's docstring.

    Returns:
        One row per run: its keys, the columns (nan where never reached), `step`, and `reached`.
    """
    table = table.sort_values("step", kind="stable")
    loss = table[LOSS].to_numpy(float)
    numbers = {c: table[c].to_numpy(float) for c in ("step", *columns) if c in table}
    rows = []
    for keys, index in table.groupby(["condition", "rule", "seed"], sort=False).indices.items():
        row = dict(zip(("condition", "rule", "seed"), keys, strict=True))
        at = around(loss[index], level, curve)
        row["reached"] = at is not None
        for column in ("step", *columns):
            values = numbers.get(column)
            row[column] = np.nan if values is None else _interpolate(at, values[index], column)
        rows.append(row)
    return pd.DataFrame(rows, columns=["condition", "rule", "seed", "reached", "step", *columns])


def around(loss: Array, level: float, curve: Curve = "monotone") -> tuple[int, float] | None:
    """Between which evaluations of a run its loss comes down to a level: the later one's index, and its weight.

    None where the run never gets there; a run that is there from the start is so at its first evaluation.
    """
    log = log_curve(loss, curve) - math.log(max(level, LEAST))
    below = np.flatnonzero(log <= ROUNDING)
    if not len(below):
        return None
    i = int(below[0])
    return (i, float(log[i - 1] / (log[i - 1] - log[i]))) if i else (0, 1.0)


def _interpolate(at: tuple[int, float] | None, values: Array, column: str) -> float:
    """The value between two evaluations, see `around`."""
    if at is None:
        return math.nan
    i, w = at
    if i == 0:
        return float(values[0])
    in_log = column.startswith(LOG_SCALE) and values[i - 1] > 0 and values[i] > 0
    a, b = (math.log(values[i - 1]), math.log(values[i])) if in_log else (values[i - 1], values[i])
    value = (1 - w) * a + w * b
    return float(math.exp(value) if in_log else value)


def along_loss(
    table: pd.DataFrame, lowest: float, column: str, points: int = 12, curve: Curve = "monotone"
) -> pd.DataFrame:
    """Mean of a measure's logarithm over a range of matched losses, from near the start's down to `lowest`.

    The levels are spaced evenly in their logarithm and the same for all runs; the first is the lowest of the losses at
    the start, so every run passes them all unless it never reaches `lowest`.
    """
    levels = np.geomspace(start_loss(table), lowest, points + 1)[1:]
    parts = [at_loss(table, float(level), [column], curve) for level in levels]
    result = parts[-1].copy()
    with np.errstate(invalid="ignore", divide="ignore"):
        result[column] = np.mean([np.log(part[column].to_numpy(float)) for part in parts], axis=0)
    return result
