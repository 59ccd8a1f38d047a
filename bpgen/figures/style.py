"""One style for all figures: colours, markers, sheets of panels, log axes, runs as dots and seeds as a band.

Colours are Okabe and Ito's, told apart by colour-blind readers; lines also differ in dash pattern or marker.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import Formatter, FuncFormatter
from numpy.typing import NDArray

from bpgen.analysis.statistics import mean_effect

Array = NDArray[np.float64]
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
DPI = 130
INTERVAL_FROM = 3  # runs that a mean with its interval is drawn of


class Style(NamedTuple):
    """How a condition is drawn, and what it is called where not by its own name."""

    colour: str
    marker: str
    label: str = ""


Styles = Mapping[str, Style]
_ORDER = (
    *(Style(BLACK, "o"), Style(VERMILION, "s"), Style(ORANGE, "^"), Style(BLUE, "D"), Style(SKY, "v")),
    *(Style(GREEN, "P"), Style(PURPLE, "X"), Style("#8B4513", "*"), Style("#332288", ">"), Style("#999933", "h")),
    *(Style("#882255", "p"), Style("#44AA99", "d"), Style("#7F7F7F", "<"), Style("#666666", "8")),
)


def styles(conditions: Iterable[str], fixed: Styles | None = None) -> dict[str, Style]:
    """A style for every condition: its fixed one, else the next that is free, in the order of the conditions."""
    names, fixed = list(dict.fromkeys(conditions)), fixed or {}
    taken = {fixed[name][:2] for name in names if name in fixed}
    free = [style for style in _ORDER if style[:2] not in taken] or list(_ORDER)
    others = [name for name in names if name not in fixed]
    chosen = {name: free[i % len(free)] for i, name in enumerate(others)} | dict(fixed)
    return {name: chosen[name]._replace(label=chosen[name].label or name) for name in names}


class Margins(NamedTuple):
    """Room around the axes of every panel, in inches, and for the title above all of them."""

    left: float
    right: float
    bottom: float
    top: float
    title: float = 0.3


def sheet(
    panels: int,
    title: str,
    columns: int = 2,
    size: tuple[float, float] = (5.0, 3.6),
    margins: Margins | None = None,
) -> tuple[Figure, list[Axes]]:
    """An empty sheet and its axes.

    Args:
        panels: how many.
        title: above all of them.
        columns: panels in a row, at most.
        size: of one panel, in inches.
        margins: where it is known what they hold; else matplotlib finds them, in which drawing takes twice as long.
    """
    columns = min(columns, panels)
    rows = -(-panels // columns)
    shape = (size[0] * columns, size[1] * rows)
    figure = Figure(figsize=shape, layout=None if margins else "constrained", dpi=DPI)
    grid = None if margins is None else _grid(margins, shape, size)
    axes = list(np.atleast_1d(figure.subplots(rows, columns, squeeze=False, gridspec_kw=grid)).flat)
    for spare in axes[panels:]:
        spare.remove()
    for ax in axes[:panels]:
        ax.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, fontsize="medium", **({"y": 1 - 0.06 / shape[1]} if margins else {}))
    return figure, axes[:panels]


def _grid(room: Margins, shape: tuple[float, float], size: tuple[float, float]) -> dict[str, float]:
    """The same in parts of the sheet, and between its panels in parts of their axes."""
    (W, H), across, above = shape, room.left + room.right, room.bottom + room.top
    rows = round(H / size[1])
    ends = {"left": room.left / W, "right": 1 - room.right / W}
    ends |= {"bottom": room.bottom / H, "top": 1 - (room.top + room.title) / H}
    high = (H - room.title) / rows - above
    return ends | {"wspace": across / (size[0] - across), "hspace": above / high}


def explained(ax: Axes, handles: Sequence[Any]) -> None:
    """Say what the marks of a panel mean that are not those of conditions; `setting_sheet` puts it beside the data."""
    ax.legend(handles=list(handles), frameon=False, fontsize="small")


def band_mark(what: str) -> Patch:
    """The mark of a band in a legend."""
    return Patch(color="0.6", alpha=0.4, lw=0, label=what)


def note(ax: Axes, text: str, at: tuple[float, float]) -> Text:
    """A small grey text, its lower right corner at a place in parts of the panel."""
    return ax.text(*at, text, transform=ax.transAxes, ha="right", va="bottom", fontsize="small", color="0.25")


class _BetweenTens(Formatter):
    """Numbers between the powers of ten, as few as an axis needs to be read: at least two numbers in all."""

    def __call__(self, value: float, pos: int | None = None) -> str:
        """A number as it is written."""
        return f"{value:g}"

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """Which of the ticks have a number, decided from what the axis shows when it is drawn."""
        axis: Any = self.axis
        low, high = sorted(axis.get_view_interval())
        seen = [v for v in values if low <= v <= high]
        tens = sum(low <= v <= high for v in axis.get_majorticklocs())
        chosen: list[float] = []
        for digits in ("25", "2345678") if high < 100 * low else ("", "25"):
            chosen = [v for v in seen if f"{v:e}".split("e")[0].rstrip(".0") in digits]
            if tens + len(chosen) >= 2:
                break
        else:
            chosen = seen[:: 1 + len(seen) // 7]
        return [self(v) if v in chosen else "" for v in values]


def log_axis(ax: Axes, which: str) -> None:
    """A logarithmic axis with plain numbers, few of them."""
    axis: Any = ax.xaxis if which == "x" else ax.yaxis
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(_BetweenTens())


def dots(ax: Axes, at: float, values: Array, style: Style, hollow: bool = False) -> None:
    """Single runs beside each other, with mean and 95 % interval over them."""
    n = len(values)
    beside = (np.arange(n) - (n - 1) / 2) * 0.16 / max(1, n - 1)
    face: Any = "none" if hollow else style.colour
    ax.plot(at + beside, values, ls="", marker=style.marker, ms=3.5, color=style.colour, mfc=face, alpha=0.5)
    effect = mean_effect(dict(enumerate(values.tolist())), n)
    if effect.n >= INTERVAL_FROM:
        low, high = effect.interval()
        bar = [[effect.estimate - low], [high - effect.estimate]]
        ax.errorbar(at, effect.estimate, yerr=bar, color=style.colour, capsize=4, marker="_", ms=14, lw=1.5)


def by_step(table: pd.DataFrame, values: pd.Series) -> tuple[Array, Array]:
    """Steps, and values of shape [steps, seeds]; nan where a run was not measured."""
    wide = table.assign(_v=values).pivot_table(index="step", columns=["condition", "seed"], values="_v", dropna=False)
    return wide.index.to_numpy(float), wide.to_numpy(float)


def band(ax: Axes, x: Array, values: Array, style: Style) -> None:
    """Median over seeds, and the middle half of them; points that most runs have.

    Args:
        ax: where to draw.
        x: [m].
        values: [m, seeds]; nan where a run has none.
        style: of the line.
    """
    kept = np.isfinite(values).mean(axis=1) >= 0.5
    if not kept.any():
        return
    x, values = x[kept], values[kept]
    low, middle, high = np.nanpercentile(values, [25, 50, 75], axis=1)
    ax.plot(x, middle, color=style.colour, marker=style.marker, ms=4, markevery=max(1, len(x) // 8), lw=1.5)
    ax.fill_between(x, low, high, color=style.colour, alpha=0.15, lw=0)


def median(values: Array) -> Array:
    """Medians over seeds [m] of values [m, seeds], nan where no run was measured."""
    seen = np.isfinite(values).any(axis=1)
    result = np.full(len(values), np.nan)
    result[seen] = np.nanmedian(values[seen], axis=1)
    return result


def seeds_per_condition(table: pd.DataFrame) -> str:
    """The n of a panel."""
    seeds = table.groupby("condition")["seed"].nunique()
    low, high = int(seeds.min()), int(seeds.max())
    return f"n = {low} seeds a rule" if low == high else f"n = {low} to {high} seeds a rule"


def on_lines(label: str) -> str:
    """A long name on lines of about ten letters, for the ticks of an axis."""
    if len(label) <= 6:
        return label
    parts = label.replace(", ", ",\n").split("\n")
    return "\n".join(textwrap.fill(part, 10, break_long_words=False) for part in parts).replace("_", "_\n", 1)


def legend_columns(labels: Sequence[str], width: float) -> int:
    """How many columns a legend with these labels has room for, in a width in inches."""
    longest = 0.45 + 0.07 * max(map(len, labels))  # marker and letters
    return min(len(labels), max(1, int(width / longest)))
