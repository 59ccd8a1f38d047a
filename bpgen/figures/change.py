"""How far training moved a matrix of weights, and along how many directions, as figures of a table."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from bpgen.figures.style import BLACK, BLUE, VERMILION


def size(ax: Axes, table: pd.DataFrame, *, weights: str) -> Axes:
    """‖W - W_0‖ along training; columns step, norm, relative."""
    ax.plot(table["step"], table["norm"], color=BLUE, marker=".")
    ax.set_ylim(bottom=0)
    ax.set(xlabel="training step", ylabel=f"‖{weights} - {weights}₀‖", title=f"Change of {weights}")
    return ax


def ranks(ax: Axes, table: pd.DataFrame, *, weights: str, outputs: int) -> Axes:
    """Ranks of W - W_0 along training, where it changed; columns step, norm, effective_rank, rank_99."""
    moved = table[table["norm"] > 0]
    ax.plot(moved["step"], moved["effective_rank"], color=BLUE, marker=".", label="effective rank")
    ax.plot(moved["step"], moved["rank_99"], color=VERMILION, ls="--", marker=".", label="rank, 99 %")
    ax.axhline(outputs, color=BLACK, ls=(0, (1, 3)), label=f"outputs, {outputs}")
    ax.set_ylim(bottom=0)
    ax.set_xlim(0, 1.05 * table["step"].max())
    ax.set(xlabel="training step", ylabel="directions", title=f"Rank of the change of {weights}")
    ax.legend(frameon=False)
    return ax
