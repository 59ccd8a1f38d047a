"""Values at matched training loss.

The Hessian of cross-entropy shrinks with the loss, and so does the gap, so that unmatched comparisons mislead: values
are compared where training losses are equal, at the first crossing of a level ℓ, interpolated between the two
evaluations around it, linearly in log ℓ (and sharpness in its logarithm). A run that never gets there has no value: it
is counted.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
LOSS = "train/loss"
LEAST = 1e-12  # a loss below this counts as this: one of exactly 0 has no logarithm
LOG_SCALE = ("sharpness/",)  # measures that are compared, and interpolated, in their logarithm


class Level(NamedTuple):
    """Where losses are matched: at the lowest training loss that at least a share of every condition's runs reach.

    One run that never learns must not move the level to where nothing has been learnt; it counts as never reached.

    share: of the runs.
    way: how far down to that loss, in log loss, from the lowest of the losses at the start.
    """

    share: float = 0.8
    way: float = 1.0

    def of(self, table: pd.DataFrame) -> float:
        """The loss, for the conditions in the table."""
        table = finished(table)
        least = table.groupby(["condition", "seed"])[LOSS].min().clip(lower=LEAST)
        lowest = [
            np.sort(own.to_numpy(float))[math.ceil(self.share * len(own)) - 1] for _, own in least.groupby("condition")
        ]
        if not lowest:
            return math.nan
        return float(max(lowest) ** self.way * start_loss(table) ** (1 - self.way))


LOWEST_COMMON = Level()


def start_loss(table: pd.DataFrame) -> float:
    """The lowest training loss at which any run starts: all runs pass what is below it."""
    return max(LEAST, float(table.sort_values("step").groupby(["condition", "seed"])[LOSS].first().min()))


def finished(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs that finished."""
    return table[table["status"] == "finished"] if "status" in table else table


def at_loss(table: pd.DataFrame, level: float, columns: list[str]) -> pd.DataFrame:
    """Values of every run where its training loss first comes down to `level`; see the module's docstring.

    Returns:
        One row per run: its keys, the columns (nan where never reached), `step`, and `reached`.
    """
    table = table.sort_values("step", kind="stable")
    loss = table[LOSS].clip(lower=LEAST).to_numpy(float)
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
    levels = np.geomspace(start_loss(table), lowest, points + 1)[1:]
    parts = [at_loss(table, float(level), [column]) for level in levels]
    result = parts[-1].copy()
    with np.errstate(invalid="ignore", divide="ignore"):
        result[column] = np.mean([np.log(part[column].to_numpy(float)) for part in parts], axis=0)
    return result
