"""Figures of one run, as functions of its table of evaluations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from bpgen.analysis.proportions import wilson
from bpgen.columns import Column
from bpgen.figures.cut import Pixels, cut, pixels
from bpgen.figures.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, VERMILION, Margins, log_axis, sheet

_LINES: dict[str, dict[str, Any]] = {
    "train": {"color": BLACK, "ls": "-"},
    "val": {"color": ORANGE, "ls": "--"},
    "test": {"color": BLUE, "ls": "-."},
    "test_noisy": {"color": VERMILION, "ls": ":"},
}
_MARGINS = Margins(left=0.7, right=0.2, bottom=1.05, top=0.3)  # below: numbers, their name, three lines of a legend
_SERIES = ((BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (PURPLE, ":"))
_NAMES = {"train": "training", "val": "validation", "test": "test", "test_noisy": "test, noisy inputs"}


class About(NamedTuple):
    """What a table of evaluations does not say of itself.

    sequences: of how many each split's numbers are means; without them accuracies have no band.
    chance: the accuracy of answering the commonest class always; nan draws none.
    block: the weights whose sharpness it is.
    """

    sequences: Mapping[str, int] = {}
    chance: float = math.nan
    block: str = ""


NOTHING = About()
Panel = Callable[[Axes, pd.DataFrame, About], Axes]


def performance(ax: Axes, table: pd.DataFrame, about: About = NOTHING) -> Axes:
    """Accuracy on every split against steps, the chance level, and how far test accuracy may be off."""
    banded = False
    for split, style in _LINES.items():
        _line(ax, table, f"{split}/accuracy", label=_NAMES[split], scale=100, **style)
        banded |= _band(ax, table, split, about, lambda low, high: (100 * low, 100 * high))
    if not math.isnan(about.chance):
        ax.axhline(100 * about.chance, color="0.6", lw=1, label="chance: the commonest answer")
    ax.set(xlabel="training step", ylabel="accuracy (%)", title="Performance")
    _legend(ax, about.sequences["test"] if banded else None)
    return ax


def loss(ax: Axes, table: pd.DataFrame, about: About = NOTHING) -> Axes:
    """Loss without regulariser on every split against steps."""
    for split, style in _LINES.items():
        _line(ax, table, f"{split}/loss", label=_NAMES[split], **style)
    ax.set(xlabel="training step", ylabel="loss (nats or ½·error²)", title="Loss without regulariser")
    log_axis(ax, "y")
    low, high = ax.get_ylim()
    if high < 10 * low:  # less than a decade reads better with plain numbers on a linear axis
        ax.set_yscale("linear")
    _legend(ax)
    return ax


def gap(ax: Axes, table: pd.DataFrame, about: About = NOTHING) -> Axes:
    """Generalization gap in accuracy against steps, in loss for tasks without accuracy; positive is worse."""
    kind, scale = ("accuracy", 100) if _has_accuracy(table) else ("loss", 1)
    banded = False
    for name, split in (("gap", "test"), ("gap_noisy", "test_noisy")):
        if _has(table, f"{name}/{kind}"):
            _line(ax, table, f"{name}/{kind}", label=_NAMES[split], scale=scale, **_LINES[split])
            if kind == "accuracy":
                train = table["train/accuracy"]
                banded |= _band(ax, table, split, about, lambda low, high, t=train: (100 * (t - high), 100 * (t - low)))
    ax.axhline(0, color="0.7", lw=0.8)
    label = "train - test accuracy (points)" if kind == "accuracy" else "test - train loss (nats or ½·error²)"
    ax.set(xlabel="training step", ylabel=label, title="Generalization gap")
    _legend(ax, about.sequences["test"] if banded else None)
    return ax


def sharpness(ax: Axes, table: pd.DataFrame, about: About = NOTHING) -> Axes:
    """Leading Hessian eigenvalue with its residual as error bar; of all weights beside 2/η, which bounds it."""
    surrogate = "sharpness/surrogate/lambda_max" in table
    name = "sharpness/surrogate" if surrogate else "sharpness"
    of = {"": "", "all": " of all weights"}.get(about.block, f" of {about.block}")
    ax.set(
        xlabel="training step",
        ylabel="curvature (loss per weight²)",
        title=f"Sharpness{of}, {'surrogate network' if surrogate else 'true loss'}",
    )
    if not _has(table, f"{name}/lambda_max"):
        return ax
    values, residuals = table[f"{name}/lambda_max"], table[f"{name}/residual"]
    label = r"$\lambda_{\max}$ (bars: residuals)"
    ax.errorbar(table["step"], values, yerr=residuals, color=BLUE, marker=".", label=label)
    if about.block == "all":
        label = r"$2/\eta$ (bound of plain SGD)"
        ax.plot(table["step"], 2 / table["lr"], color=VERMILION, ls="--", label=label)
    if (values.dropna() > 0).all():
        log_axis(ax, "y")
    _legend(ax)
    return ax


def stability(ax: Axes, table: pd.DataFrame, about: About = NOTHING) -> Axes:
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
        log_axis(ax, "y")
    else:
        ax.set_ylim(0, 1.05 * shown.max())
    _legend(ax)
    return ax


def alignment(ax: Axes, table: pd.DataFrame, about: About = NOTHING) -> Axes:
    """Alignment of the rule's gradient with the true one against steps."""
    _line(ax, table, "alignment/cosine", label="cosine", color=GREEN, ls="-")
    _line(ax, table, "alignment/rho", label=r"$\rho$", color=PURPLE, ls="--")
    ax.axhline(0, color="0.7", lw=0.8)
    ax.set(xlabel="training step", ylabel="alignment (dimensionless)", title="Alignment with BPTT")
    _legend(ax)
    return ax


PANELS: dict[str, Panel] = {f.__name__: f for f in (performance, loss, gap, sharpness, alignment, stability)}


def lines(ax: Axes, table: pd.DataFrame, about: About, columns: Sequence[Column]) -> Axes:
    """Columns of one panel against steps, as whoever measures them calls them: the drawing of any other panel."""
    for column, (color, dashes) in zip(columns, itertools.cycle(_SERIES), strict=False):
        _line(ax, table, column.name, label=column.label, color=color, ls=dashes)
    units = " or ".join(dict.fromkeys(column.unit for column in columns if column.unit))
    ax.set(xlabel="training step", ylabel=units, title=columns[0].panel.replace("_", " ").capitalize())
    _legend(ax)
    return ax


def run_figures(
    table: pd.DataFrame, title: str, columns: Sequence[Column] = (), about: About = NOTHING
) -> dict[str, Pixels]:
    """All pictures of a run by name: an overview of the four main panels, and every panel alone.

    What was not measured is left out.

    Args:
        table: of the run's evaluations.
        title: above every picture.
        columns: what the run's measurements say of their columns; a panel that has no drawing here is drawn from them.
        about: what the table does not say of itself.
    """
    shown, overview = _shown(table, columns)
    panels = [*overview, *[None] * (len(overview) % 2), *(name for name in shown if name not in overview)]
    figure, axes = sheet(len(panels), title, size=(5.0, 3.5), margins=_MARGINS)
    for ax, name in zip(axes, panels, strict=True):
        if name is None:
            ax.remove()
            continue
        shown[name](ax, table, about)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))  # a step is a whole number
    return cut(pixels(figure), panels, min(2, len(panels)), len(overview), _MARGINS.title)


def _shown(table: pd.DataFrame, columns: Sequence[Column]) -> tuple[dict[str, Panel], list[str]]:
    """The panels of what was measured by name, and those of the overview."""
    first = "performance" if _has_accuracy(table) else "loss"
    stable = any(column.startswith("stability/") for column in table)
    curvature = "stability" if stable and not _has(table, "sharpness/lambda_max") else "sharpness"
    measured = {
        "performance": first == "performance",
        "sharpness": any(_has(table, f"{name}/lambda_max") for name in ("sharpness", "sharpness/surrogate")),
        "alignment": _has(table, "alignment/cosine") and not _exact(table),
        "stability": stable,
    }
    shown = {name: draw for name, draw in PANELS.items() if measured.get(name, True)}
    for panel in dict.fromkeys(column.panel for column in columns if column.panel not in ("", *PANELS)):
        own = [column for column in columns if column.panel == panel and _has(table, column.name)]
        if own:
            shown[panel] = partial(lines, columns=own)
    last = "alignment" if "alignment" in shown else "loss"  # of an exact gradient there is nothing to see
    return shown, [name for name in dict.fromkeys((first, "gap", curvature, last)) if name in shown]


def _has_accuracy(table: pd.DataFrame) -> bool:
    return bool(table.get("train/accuracy", pd.Series(dtype=float)).notna().any())


def _exact(table: pd.DataFrame) -> bool:
    """Whether the rule's gradient is the true one at every evaluation."""
    return bool(((table[["alignment/cosine", "alignment/rho"]].dropna() - 1).abs() < 1e-4).all(axis=None))


def _has(table: pd.DataFrame, column: str) -> bool:
    """Whether a column was measured at all."""
    return column in table and bool(table[column].notna().any())


def _line(ax: Axes, table: pd.DataFrame, column: str, scale: float = 1.0, **style: Any) -> None:
    if column in table:
        ax.plot(table["step"], scale * table[column], marker=".", **style)


def _band(ax: Axes, table: pd.DataFrame, split: str, about: About, ends: Callable[..., Any]) -> bool:
    """Where 95 % of samples of as many test sequences would put an accuracy; whether there was anything to draw.

    Training is what it is, and validation's is as wide. `ends`: of the band, from those of the accuracy.
    """
    column = f"{split}/accuracy"
    if not split.startswith("test") or split not in about.sequences or not _has(table, column):
        return False
    low, high = ends(*wilson(table[column], about.sequences[split]))
    ax.fill_between(table["step"], low, high, color=_LINES[split]["color"], alpha=0.15, lw=0)
    return True


def _legend(ax: Axes, n: int | None = None) -> None:
    """Below the panel, where it covers no data; it explains the bands, where there are some of n test sequences."""
    handles, labels = ax.get_legend_handles_labels()
    if n is not None:
        handles.append(Patch(color="0.6", alpha=0.4, lw=0))
        labels.append(f"bands: 95 %, n = {n} test sequences")
    figure: Any = ax.figure
    below = offset_copy(ax.transAxes, figure, y=-0.42)  # inches: numbers and the name of the axis
    options: dict[str, Any] = {"frameon": False, "fontsize": "small", "handlelength": 2.8, "columnspacing": 1.2}
    options["ncols"] = max(2, -(-len(handles) // 3))  # there is room for three lines
    ax.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, **options)
