"""The figure of which classes a network confuses, as a function of a tidy table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from bpgen.figures.style import Margins, sheet

_TITLES = {"test": "test inputs", "test_noisy": "noisy test inputs"}
_MARGINS = Margins(left=0.55, right=0.55, bottom=0.5, top=0.25)
_WRITTEN = 20  # classes up to which a cell has room for its number


def confusion_figure(table: pd.DataFrame, title: str) -> Figure:
    """A panel per split: shares of each class [row] that were answered as each class [column], with their counts.

    A class that is neither asked for nor answered is left out: labels may begin at 1.

    Args:
        table: columns split, target, answer, n.
        title: above all panels.
    """
    splits = [name for name in _TITLES if (table["split"] == name).any()]
    met = table[table["n"] > 0]
    classes = sorted({*met["target"], *met["answer"]})
    side = 3.4 + 0.17 * min(len(classes), _WRITTEN)
    figure, axes = sheet(
        len(splits), f"{title}: classes that the last network confuses", size=(side, side - 0.4), margins=_MARGINS
    )
    for ax, name in zip(axes, splits, strict=True):
        own = table[table["split"] == name].pivot_table(index="target", columns="answer", values="n", aggfunc="sum")
        own = own.reindex(index=classes, columns=classes, fill_value=0)
        image = _matrix(ax, own.to_numpy(float), classes)
        n = int(own.to_numpy().sum())
        ax.set_title(f"{_TITLES[name]} (n = {n} answers)", fontsize="medium")
        figure.colorbar(image, ax=ax, label="share of the class (%)", fraction=0.046, pad=0.03)
    return figure


def _matrix(ax: Axes, counts: NDArray[np.float64], names: Sequence[int]) -> AxesImage:
    """One panel; the colour map is told apart in grey and by colour-blind readers."""
    n = counts.sum(1, keepdims=True)
    share = 100 * np.divide(counts, n, out=np.zeros_like(counts), where=n > 0)
    image = ax.imshow(share, cmap="cividis", vmin=0, vmax=100)
    classes = len(counts)
    ticks = range(0, classes, max(1, classes // 10))
    ax.set(xlabel="answered class", ylabel="true class")
    ax.set_xticks(ticks, [str(names[i]) for i in ticks])
    ax.set_yticks(ticks, [str(names[i]) for i in ticks])
    for target, answer in zip(*np.nonzero(counts), strict=True) if classes <= _WRITTEN else ():
        colour = "black" if share[target, answer] > 55 else "white"
        text = f"{counts[target, answer]:.0f}"
        ax.text(answer, target, text, ha="center", va="center", fontsize="x-small", color=colour)
    return image
