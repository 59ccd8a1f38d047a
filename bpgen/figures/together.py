"""Several runs in one figure: each measure against steps, a line a run, told apart by colour and dash pattern."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bpgen.figures.style import Style, log_axis, sheet, styles

_PANELS = (  # columns of which the first that was measured is drawn; title, axis, factor, whether logarithmic
    (("test/accuracy",), "Test accuracy", "accuracy (%)", 100, False),
    (("train/loss",), "Training loss", "loss (nats or ½·error²)", 1, True),
    (("gap_noisy/accuracy",), "Gap, noisy test inputs", "train - test accuracy (points)", 100, False),
    (("gap_noisy/loss",), "Gap in loss, noisy test inputs", "test - train loss", 1, False),
    (
        ("sharpness/lambda_max", "sharpness/surrogate/lambda_max"),
        "Sharpness",
        r"$\lambda_{\max}$ (loss per weight²)",
        1,
        True,
    ),
    (("alignment/cosine",), "Alignment with BPTT", "cosine (dimensionless)", 1, False),
)
_DASHES = ("-", "--", "-.", ":")


def together(table: pd.DataFrame, columns: Sequence[str] = ()) -> Figure:
    """A panel for each measure that some run has.

    Args:
        table: a row per run and evaluation, with columns `label` (whose runs share a colour) and `run`.
        columns: of metrics.csv, a panel each, instead of the usual ones.
    """
    panels = [((c,), c, "", 1, False) for c in columns] or _usual(table)
    style_of = styles(table["label"])
    figure, axes = sheet(len(panels), "", 3 if len(panels) > 4 else 2, (4.4, 3.3))
    for ax, (names, title, unit, factor, log) in zip(axes, panels, strict=True):
        column = next((name for name in names if name in table and table[name].notna().any()), names[0])
        _panel(ax, table, column, factor, style_of)
        if log and (table[column].dropna() > 0).all():
            log_axis(ax, "y")
        ax.set(xlabel="training step", ylabel=unit, title=title)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    handles = [Line2D([], [], color=s.colour, marker=s.marker, ms=4, label=s.label) for s in style_of.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False)
    n = table.groupby("label", sort=False)["run"].nunique()
    if n.max() > 1:
        figure.suptitle(f"{n.sum()} runs, a line each; dashes tell those of one colour apart", fontsize="medium")
    return figure


def _usual(table: pd.DataFrame) -> list[tuple[tuple[str, ...], str, str, int, bool]]:
    found = [p for p in _PANELS if any(name in table and table[name].notna().any() for name in p[0])]
    titles = {p[1] for p in found}
    return [p for p in found if not (p[1].startswith("Gap in loss") and "Gap, noisy test inputs" in titles)]


def _panel(ax: Axes, table: pd.DataFrame, column: str, factor: float, style_of: dict[str, Style]) -> None:
    for label, own in table.groupby("label", sort=False):
        style = style_of[str(label)]
        for i, (_, run) in enumerate(own.dropna(subset=[column]).groupby("run", sort=False)):
            run = run.sort_values("step")
            every = max(1, len(run) // 8)
            dash = _DASHES[i % len(_DASHES)]
            ax.plot(
                run["step"],
                factor * run[column],
                color=style.colour,
                marker=style.marker,
                ms=4,
                markevery=every,
                ls=dash,
            )
