"""How alike a run's activity is to another's along training, as figures of a table."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes

from bpgen.figures.style import BLACK, BLUE, GREEN, VERMILION


def angle(ax: Axes, table: pd.DataFrame) -> Axes:
    """Procrustes' angle and the distances 1 - CKA and 1 - CCA along training, each from 0 to 1."""
    lines = [
        ("angle / (π/2)", table["procrustes"] / (math.pi / 2), BLUE, "-"),
        ("1 - CKA", 1 - table["cka"], VERMILION, "--"),
        ("1 - CCA", 1 - table["cca"], GREEN, ":"),
    ]
    for label, values, colour, dashes in lines:
        ax.plot(table["step"], values, color=colour, ls=dashes, marker=".", label=label)
    ax.set_ylim(0, 1)
    ax.set(xlabel="training step", ylabel="distance (0 alike)", title="Distance of the activities")
    ax.legend(frameon=False)
    return ax


def normalised(ax: Axes, table: pd.DataFrame, *, neurons: int) -> Axes:
    """The angle between samples of neurons, from the noise ceiling, 0, to nothing in common, 1; and the baseline."""
    ax.plot(table["step"], table["normalised"], color=BLUE, marker=".", label="network")
    ax.plot(table["step"], table["baseline"], color=BLACK, ls=(0, (1, 3)), label="average over conditions")
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.set(xlabel="training step", ylabel="normalised distance", title=f"Samples of {neurons} neurons")
    ax.legend(frameon=False)
    return ax
