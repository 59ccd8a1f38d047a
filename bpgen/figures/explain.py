"""The figure of what explains a gap, as a function of a ranking."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bpgen.figures.style import BLACK, BLUE, ORANGE, VERMILION, sheet


def explanation(ranking: pd.DataFrame, labels: Mapping[str, str], gaps: Mapping[str, str], sharpness: str) -> Figure:
    """A panel per gap, a line per measure, in the order of their mean τ within rules.

    Args:
        ranking: of one setting, as `bpgen.analysis.ranking.ranking` gives it.
        labels: of the measures, by name.
        gaps: of the gaps, by column, in their order.
        sharpness: the measure that the others are compared with.
    """
    shown = [gap for gap in gaps if (ranking["gap"] == gap).any()]
    order = list(ranking.groupby("measure")["within"].mean().sort_values().index)
    columns = min(3, len(shown))
    n, planned = int(ranking["n"].max()), int(ranking["planned"].max())
    setting = ranking["setting"].iloc[0]
    title = f"Kendall's τ of measures and gaps at matched training loss ({setting}, n = {n} of {planned} seeds)"
    figure, axes = sheet(len(shown), title, columns, (4.0, 1.0 + 0.24 * len(order)))
    for place, (ax, gap) in enumerate(zip(axes, shown, strict=True)):
        _panel(ax, ranking[ranking["gap"] == gap].set_index("measure").loc[order], sharpness)
        ax.set_title(gaps[gap], fontsize="medium")
        names = [labels[m] for m in order] if place % columns == 0 else []
        ax.set_yticks(range(len(order)), names or [""] * len(order), fontsize="small")
        if place + columns >= len(shown):
            ax.set_xlabel("τ (a plus is what the measure promises)")
    handles = [
        Line2D([], [], color=BLUE, marker="o", label="within rule (95 % interval over seeds)"),
        Line2D(
            [], [], color=BLUE, marker="o", ls="", mfc="white", label="the same, undecided (permutation, all tests)"
        ),
        Line2D([], [], color=ORANGE, marker="D", ls="", mfc="none", label="across rules (description)"),
        Line2D([], [], color=BLACK, marker="x", ls="", label="within rule given λ₁ (partial rank correlation)"),
        Line2D([], [], color=VERMILION, ls="--", label="λ₁ of W_rec within rule"),
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(3, len(shown)), frameon=False, fontsize="small"
    )
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, sharpness: str) -> None:
    """One gap."""
    ax.axvline(0, color="0.8", lw=0.8, zorder=0)
    if sharpness in rows.index:
        ax.axvline(rows.loc[sharpness, "within"], color=VERMILION, ls="--", lw=1, zorder=0)
    for y, (_, row) in enumerate(rows.iterrows()):
        decided = row["verdict"] in ("explains", "reversed")
        ax.plot([row["within low"], row["within high"]], [y, y], color=BLUE, lw=1.5)
        ax.plot(row["within"], y, "o", color=BLUE, mfc=BLUE if decided else "white", ms=5)
        ax.plot(row["across"], y, "D", color=ORANGE, mfc="none", ms=4)
        ax.plot(row["partial"], y, "x", color=BLACK, ms=4)
    ax.set_xlim(-1, 1)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.grid(axis="y", color="0.93", lw=0.6)
    ax.set_axisbelow(True)
