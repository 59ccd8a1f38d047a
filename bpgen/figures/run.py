"""Figures of one run, as functions of its table of evaluations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bpgen.columns import Column
from bpgen.figures.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, VERMILION, sheet

_LINES: dict[str, dict[str, Any]] = {
    "train": {"color": BLACK, "ls": "-"},
    "val": {"color": ORANGE, "ls": "--"},
    "test": {"color": BLUE, "ls": "-."},
    "test_noisy": {"color": VERMILION, "ls": ":"},
}
Panel = Callable[[Axes, pd.DataFrame], Axes]
_SERIES = ((BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (PURPLE, ":"))
_NAMES = {"train": "training", "val": "validation", "test": "test", "test_noisy": "test, noisy inputs"}


def performance(ax: Axes, table: pd.DataFrame) -> Axes:
    """Accuracy on every split against steps."""
    for split, style in _LINES.items():
        _line(ax, table, f"{split}/accuracy", label=_NAMES[split], scale=100, **style)
    ax.set(xlabel="training step", ylabel="accuracy (%)", title="Performance")
    ax.legend(frameon=False)
    return ax


def loss(ax: Axes, table: pd.DataFrame) -> Axes:
    """Loss without regulariser on every split against steps."""
    for split, style in _LINES.items():
        _line(ax, table, f"{split}/loss", label=_NAMES[split], **style)
    ax.set(xlabel="training step", ylabel="loss (nats or ½·error²)", title="Loss without regulariser", yscale="log")
    low, high = ax.get_ylim()
    if high < 10 * low:  # less than a decade reads better with plain numbers on a linear axis
        ax.set_yscale("linear")
    ax.legend(frameon=False)
    return ax


def gap(ax: Axes, table: pd.DataFrame) -> Axes:
    """Generalization gap in accuracy against steps, in loss for tasks without accuracy; positive is worse."""
    kind, scale = ("accuracy", 100) if _has_accuracy(table) else ("loss", 1)
    _line(ax, table, f"gap/{kind}", label=_NAMES["test"], scale=scale, **_LINES["test"])
    _line(ax, table, f"gap_noisy/{kind}", label=_NAMES["test_noisy"], scale=scale, **_LINES["test_noisy"])
    ax.axhline(0, color="0.7", lw=0.8)
    label = "train - test accuracy (points)" if kind == "accuracy" else "test - train loss (nats or ½·error²)"
    ax.set(xlabel="training step", ylabel=label, title="Generalization gap")
    ax.legend(frameon=False)
    return ax


def sharpness(ax: Axes, table: pd.DataFrame) -> Axes:
    """Leading Hessian eigenvalue with its residual as error bar, and the stability bound 2/η of gradient descent."""
    surrogate = "sharpness/surrogate/lambda_max" in table
    name = "sharpness/surrogate" if surrogate else "sharpness"
    measured = _has(table, f"{name}/lambda_max")
    if measured:
        ax.errorbar(
            table["step"],
            table[f"{name}/lambda_max"],
            yerr=table[f"{name}/residual"],
            color=BLUE,
            marker=".",
            label=r"$\lambda_{\max}$ (bar: residual)",
        )
        ax.plot(
            table["step"],
            2 / table["lr"],
            color=VERMILION,
            ls="--",
            label=r"$2/\eta$ (SGD: bounds $\lambda_{\max}$ of all weights)",
        )
        ax.set_yscale("log")
    ax.set(
        xlabel="training step",
        ylabel="curvature (loss per weight²)",
        title=f"Sharpness of the {'surrogate network' if surrogate else 'true loss'}",
    )
    if measured:
        ax.legend(frameon=False)
    return ax


def stability(ax: Axes, table: pd.DataFrame) -> Axes:
    """λ_1 of all weights and the rule's own leading |μ_1|, against the bounds 2/η and 2/(η ρ_1) on them."""
    name = next((n for n in ("stability", "stability/surrogate") if _has(table, f"{n}/lambda_max")), None)
    ax.set(xlabel="training step", ylabel="curvature (loss per weight²)", title="Edge of stability, all weights")
    if name is None:
        return ax
    steps = table["step"]
    curvature, residual = table[f"{name}/lambda_max"], table[f"{name}/residual"]
    ax.errorbar(
        steps, curvature, yerr=residual, color=BLUE, marker=".", label=r"$\lambda_1$ of the loss (bar: residual)"
    )
    ax.plot(steps, table[f"{name}/mu_abs"], color=GREEN, marker=".", ls="-.", label=r"$|\mu_1|$ of the rule")
    ax.plot(steps, table[f"{name}/bound"], color=VERMILION, ls="--", label=r"$2/\eta$")
    ax.plot(steps, table[f"{name}/bound_rho"], color=BLACK, ls=":", label=r"$2/(\eta\rho_1)$")
    shown = pd.concat([curvature, table[f"{name}/mu_abs"], table[f"{name}/bound"], table[f"{name}/bound_rho"]]).dropna()
    if shown.min() > 0 and shown.max() > 20 * shown.min():
        ax.set_yscale("log")
        ax.legend(frameon=False)
    else:
        ax.set_ylim(0, 1.45 * shown.max())  # room for the legend
        ax.legend(frameon=False, ncols=2, loc="upper right")
    return ax


def alignment(ax: Axes, table: pd.DataFrame) -> Axes:
    """Alignment of the rule's gradient with the true one against steps."""
    _line(ax, table, "alignment/cosine", label="cosine", color=GREEN, ls="-")
    _line(ax, table, "alignment/rho", label=r"$\rho$", color=PURPLE, ls="--")
    ax.axhline(0, color="0.7", lw=0.8)
    ax.set(xlabel="training step", ylabel="alignment (dimensionless)", title="Alignment with BPTT")
    ax.legend(frameon=False)
    return ax


PANELS: dict[str, Panel] = {f.__name__: f for f in (performance, loss, gap, sharpness, alignment, stability)}


def lines(ax: Axes, table: pd.DataFrame, columns: Sequence[Column]) -> Axes:
    """Columns of one panel against steps, as whoever measures them calls them: the drawing of any other panel."""
    for column, (color, dashes) in zip(columns, itertools.cycle(_SERIES), strict=False):
        _line(ax, table, column.name, label=column.label, color=color, ls=dashes)
    units = " or ".join(dict.fromkeys(column.unit for column in columns if column.unit))
    ax.set(xlabel="training step", ylabel=units, title=columns[0].panel.replace("_", " ").capitalize())
    ax.legend(frameon=False)
    return ax


def run_figures(table: pd.DataFrame, title: str, columns: Sequence[Column] = ()) -> dict[str, Figure]:
    """All pictures of a run by name: an overview of the four main panels, and every panel alone.

    What was not measured is left out.

    Args:
        table: of the run's evaluations.
        title: above every picture.
        columns: what the run's measurements say of their columns; a panel that has no drawing here is drawn from them.
    """
    first = "performance" if _has_accuracy(table) else "loss"
    stable = any(column.startswith("stability/") for column in table)
    curvature = "stability" if stable and not _has(table, "sharpness/lambda_max") else "sharpness"
    measured = {
        "performance": first == "performance",
        "sharpness": any(_has(table, f"{name}/lambda_max") for name in ("sharpness", "sharpness/surrogate")),
        "alignment": _has(table, "alignment/cosine"),
        "stability": stable,
    }
    shown = {name: draw for name, draw in PANELS.items() if measured.get(name, True)}
    for panel in dict.fromkeys(column.panel for column in columns if column.panel not in ("", *PANELS)):
        own = [column for column in columns if column.panel == panel and _has(table, column.name)]
        if own:
            shown[panel] = partial(lines, columns=own)
    overview = [shown[name] for name in (first, "gap", curvature, "alignment") if name in shown]
    sheets = {"overview": (overview, (5.0, 3.5 if len(overview) > 2 else 3.8))}
    sheets |= {name: ([draw], (5.5, 4.0)) for name, draw in shown.items()}
    return {
        name: _drawn(table, panels, *sheet(len(panels), title, size=size)) for name, (panels, size) in sheets.items()
    }


def _has_accuracy(table: pd.DataFrame) -> bool:
    return bool(table.get("train/accuracy", pd.Series(dtype=float)).notna().any())


def _drawn(table: pd.DataFrame, panels: Sequence[Panel], figure: Figure, axes: Sequence[Axes]) -> Figure:
    for ax, draw in zip(axes, panels, strict=True):
        draw(ax, table)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))  # a step is a whole number
    return figure


def _has(table: pd.DataFrame, column: str) -> bool:
    """Whether a column was measured at all."""
    return column in table and bool(table[column].notna().any())


def _line(ax: Axes, table: pd.DataFrame, column: str, scale: float = 1.0, **style: Any) -> None:
    if column in table:
        ax.plot(table["step"], scale * table[column], marker=".", **style)
