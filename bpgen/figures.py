"""Figures of one run. A figure is a function of its table of evaluations; it reads no files and knows no folder.

Colours are Okabe and Ito's, told apart by colour-blind readers, and every line also has its own dash pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_LINES: dict[str, dict[str, Any]] = {
    "train": {"color": "#000000", "ls": "-"},
    "val": {"color": "#E69F00", "ls": "--"},
    "test": {"color": "#0072B2", "ls": "-."},
    "test_noisy": {"color": "#D55E00", "ls": ":"},
}
_NAMES = {"train": "training", "val": "validation", "test": "test", "test_noisy": "test, noisy inputs"}


def performance(ax: Axes, table: pd.DataFrame) -> None:
    """Accuracy on every split against steps."""
    for split, style in _LINES.items():
        _line(ax, table, f"{split}/accuracy", label=_NAMES[split], scale=100, **style)
    ax.set(xlabel="training step", ylabel="accuracy (%)", title="Performance")
    ax.legend(frameon=False)


def loss(ax: Axes, table: pd.DataFrame) -> None:
    """Loss without regulariser on every split against steps."""
    for split, style in _LINES.items():
        _line(ax, table, f"{split}/loss", label=_NAMES[split], **style)
    ax.set(xlabel="training step", ylabel="loss (nats or ½·error²)", title="Loss without regulariser", yscale="log")
    low, high = ax.get_ylim()
    if high < 10 * low:  # less than a decade reads better with plain numbers on a linear axis
        ax.set_yscale("linear")
    ax.legend(frameon=False)


def gap(ax: Axes, table: pd.DataFrame) -> None:
    """Generalization gap in accuracy against steps, in loss for tasks without accuracy; positive is worse."""
    kind, scale = ("accuracy", 100) if _has_accuracy(table) else ("loss", 1)
    _line(ax, table, f"gap/{kind}", label=_NAMES["test"], scale=scale, **_LINES["test"])
    _line(ax, table, f"gap_noisy/{kind}", label=_NAMES["test_noisy"], scale=scale, **_LINES["test_noisy"])
    ax.axhline(0, color="0.7", lw=0.8)
    label = "train - test accuracy (points)" if kind == "accuracy" else "test - train loss (nats or ½·error²)"
    ax.set(xlabel="training step", ylabel=label, title="Generalization gap")
    ax.legend(frameon=False)


def sharpness(ax: Axes, table: pd.DataFrame) -> None:
    """Leading Hessian eigenvalue with its residual as error bar, and the stability bound 2/η of gradient descent."""
    surrogate = "sharpness/surrogate/lambda_max" in table
    name = "sharpness/surrogate" if surrogate else "sharpness"
    measured = _has(table, f"{name}/lambda_max")
    if measured:
        ax.errorbar(
            table["step"],
            table[f"{name}/lambda_max"],
            yerr=table[f"{name}/residual"],
            color="#0072B2",
            marker=".",
            label=r"$\lambda_{\max}$ (bar: residual)",
        )
        ax.plot(
            table["step"],
            2 / table["lr"],
            color="#D55E00",
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


def stability(ax: Axes, table: pd.DataFrame) -> None:
    """λ_1 of all weights and the rule's own leading |μ_1|, against the bounds 2/η and 2/(η ρ_1) on them."""
    name = next((n for n in ("stability", "stability/surrogate") if _has(table, f"{n}/lambda_max")), None)
    ax.set(xlabel="training step", ylabel="curvature (loss per weight²)", title="Edge of stability, all weights")
    if name is None:
        return
    steps = table["step"]
    curvature, residual = table[f"{name}/lambda_max"], table[f"{name}/residual"]
    ax.errorbar(
        steps, curvature, yerr=residual, color="#0072B2", marker=".", label=r"$\lambda_1$ of the loss (bar: residual)"
    )
    ax.plot(steps, table[f"{name}/mu_abs"], color="#009E73", marker=".", ls="-.", label=r"$|\mu_1|$ of the rule")
    ax.plot(steps, table[f"{name}/bound"], color="#D55E00", ls="--", label=r"$2/\eta$")
    ax.plot(steps, table[f"{name}/bound_rho"], color="#000000", ls=":", label=r"$2/(\eta\rho_1)$")
    shown = pd.concat([curvature, table[f"{name}/mu_abs"], table[f"{name}/bound"], table[f"{name}/bound_rho"]]).dropna()
    if shown.min() > 0 and shown.max() > 20 * shown.min():
        ax.set_yscale("log")
        ax.legend(frameon=False)
    else:
        ax.set_ylim(0, 1.45 * shown.max())  # room for the legend
        ax.legend(frameon=False, ncols=2, loc="upper right")


def alignment(ax: Axes, table: pd.DataFrame) -> None:
    """Alignment of the rule's gradient with the true one against steps."""
    _line(ax, table, "alignment/cosine", label="cosine", color="#009E73", ls="-")
    _line(ax, table, "alignment/rho", label=r"$\rho$", color="#CC79A7", ls="--")
    ax.axhline(0, color="0.7", lw=0.8)
    ax.set(xlabel="training step", ylabel="alignment (dimensionless)", title="Alignment with BPTT")
    ax.legend(frameon=False)


PANELS: dict[str, Callable[[Axes, pd.DataFrame], None]] = {
    f.__name__: f for f in (performance, loss, gap, sharpness, alignment, stability)
}


def run_figures(table: pd.DataFrame, title: str) -> dict[str, Figure]:
    """All pictures of a run by name: an overview of the four main panels, and every panel alone.

    What was not measured is left out.
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
    shown = [name for name in PANELS if measured.get(name, True)]
    overview = [name for name in (first, "gap", curvature, "alignment") if name in shown]
    figures = {"overview": _sheet(table, title, overview, (10, 7 if len(overview) > 2 else 3.8))}
    return figures | {name: _sheet(table, title, (name,), (5.5, 4)) for name in shown}


def _has_accuracy(table: pd.DataFrame) -> bool:
    return bool(table.get("train/accuracy", pd.Series(dtype=float)).notna().any())


def _sheet(table: pd.DataFrame, title: str, names: Sequence[str], size: tuple[float, float]) -> Figure:
    figure = Figure(figsize=size, layout="constrained", dpi=130)
    axes: Any = figure.subplots(-(-len(names) // 2), min(2, len(names)), squeeze=False)
    for spare in axes.flat[len(names) :]:
        spare.remove()
    for ax, name in zip(axes.flat, names, strict=False):
        PANELS[name](ax, table)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))  # a step is a whole number
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize="medium")
    return figure


def _has(table: pd.DataFrame, column: str) -> bool:
    """Whether a column was measured at all."""
    return column in table and bool(table[column].notna().any())


def _line(ax: Axes, table: pd.DataFrame, column: str, scale: float = 1.0, **style: Any) -> None:
    if column in table:
        ax.plot(table["step"], scale * table[column], marker=".", **style)
