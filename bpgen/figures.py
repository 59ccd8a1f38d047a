"""Figures of one run. A figure is a function of its table of evaluations; it reads no files and knows no folder.

Colours are Okabe and Ito's, told apart by colour-blind readers, and every line also has its own dash pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    if table.get(f"{name}/lambda_max", pd.Series(dtype=float)).notna().any():
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
    ax.legend(frameon=False)


def alignment(ax: Axes, table: pd.DataFrame) -> None:
    """Alignment of the rule's gradient with the true one against steps."""
    _line(ax, table, "alignment/cosine", label="cosine", color="#009E73", ls="-")
    _line(ax, table, "alignment/rho", label=r"$\rho$", color="#CC79A7", ls="--")
    ax.axhline(0, color="0.7", lw=0.8)
    ax.set(xlabel="training step", ylabel="alignment (dimensionless)", title="Alignment with BPTT")
    ax.legend(frameon=False)


PANELS: dict[str, Callable[[Axes, pd.DataFrame], None]] = {
    f.__name__: f for f in (performance, loss, gap, sharpness, alignment)
}


def run_figures(table: pd.DataFrame, title: str) -> dict[str, Figure]:
    """All pictures of a run by name: an overview of four panels, and every panel alone."""
    first = "performance" if _has_accuracy(table) else "loss"
    figures = {"overview": _sheet(table, title, (first, "gap", "sharpness", "alignment"), (10, 7))}
    for name in PANELS:
        if name == "performance" and first != name:
            continue
        figures[name] = _sheet(table, title, (name,), (5.5, 4))
    return figures


def _has_accuracy(table: pd.DataFrame) -> bool:
    return bool(table.get("train/accuracy", pd.Series(dtype=float)).notna().any())


def _sheet(table: pd.DataFrame, title: str, names: Sequence[str], size: tuple[float, float]) -> Figure:
    figure = Figure(figsize=size, layout="constrained", dpi=130)
    axes: Any = figure.subplots(-(-len(names) // 2), min(2, len(names)), squeeze=False)
    for ax, name in zip(axes.flat, names, strict=True):
        PANELS[name](ax, table)
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize="medium")
    return figure


def _line(ax: Axes, table: pd.DataFrame, column: str, scale: float = 1.0, **style: Any) -> None:
    if column in table:
        ax.plot(table["step"], scale * table[column], marker=".", **style)
