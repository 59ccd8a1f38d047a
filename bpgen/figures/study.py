"""Figures of a study as functions of its tidy table.

Every panel is one setting (task and alpha), says its n, and has the same colour and marker for a condition everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bpgen.analysis.correlation import correlation
from bpgen.analysis.matching import LEAST, LOSS, at_loss, finished, start_loss
from bpgen.analysis.settings import CLEAN_GAP, LOG_SHARPNESS, NOISY_GAP, SHARPNESS, Setting, by_rule, settings
from bpgen.columns import written
from bpgen.figures.style import (
    INTERVAL_FROM,
    Styles,
    band,
    band_mark,
    by_step,
    dots,
    explained,
    legend_columns,
    log_axis,
    median,
    on_lines,
    seeds_per_condition,
    sheet,
    styles,
)

Panel = Callable[[Axes, Setting, Styles], Axes]
COSINE = "alignment/cosine"
_STEPS = "training step (updates)"
_BAND = (band_mark("lines: median; bands: middle half of the seeds"),)
_SHARPNESS = r"sharpness $\lambda_{\max}$ (loss per weight²)"


def study_figures(
    table: pd.DataFrame, fixed: Styles | None = None, panels: Mapping[str, Panel] | None = None
) -> dict[str, Figure]:
    """All figures of a study by name; one with nothing to show is left out.

    Args:
        table: a row per run and evaluation.
        fixed: styles of conditions; the others get theirs in the order of the table.
        panels: figures beside those of `PANELS`, or instead of those of the same name. One that shows sharpness says so
            (`of_sharpness`), and is left out where none was measured.
    """
    table = by_rule(finished(table))
    if table.empty:
        return {}
    measured, aligned = (c in table and table[c].notna().any() for c in (SHARPNESS, COSINE))
    drawn = {name: p for name, p in {**PANELS, **(panels or {})}.items() if measured or not _of_sharpness(name, p)}
    drawn = {name: p for name, p in drawn.items() if aligned or p is not alignment}
    style_of = styles(table["condition"], fixed)
    sheets = {name: setting_sheet(table, panel, style_of) for name, panel in drawn.items()}
    return {name: figure for name, figure in sheets.items() if figure is not None}


def _of_sharpness(name: str, panel: Panel) -> bool:
    """Whether a figure has nothing to show without sharpness."""
    own = name in PANELS and name not in (gap_by_rule.__name__, alignment.__name__)
    return own or getattr(panel, "of_sharpness", False)


def setting_sheet(table: pd.DataFrame, panel: Panel, style_of: Styles) -> Figure | None:
    """One panel per setting, side by side: below them one legend of the conditions, above them one of other marks.

    A panel that needs certain conditions says which of a setting it shows (`shown`); None where no setting has any.
    """
    shown = getattr(panel, "shown", lambda setting: setting.conditions)
    parts = [setting for setting in settings(table) if shown(setting)]
    if not parts:
        return None
    names = {name for setting in parts for name in shown(setting)}
    of_conditions = [style for name, style in style_of.items() if name in names]
    labels = [style.label for style in of_conditions]
    width = max(4.6, 0.62 * len(labels))  # room for a tick each
    columns = legend_columns(labels, width * len(parts))
    figure, axes = sheet(len(parts), "", len(parts), (width, 4.3 + 0.2 * -(-len(labels) // columns)))
    marks: dict[str, Any] = {}
    for ax, setting in zip(axes, parts, strict=True):
        panel(ax, setting, style_of)
        name = setting.name.replace("alpha=", r"$\alpha$ = ")
        ax.set_title(f"{name}\n({seeds_per_condition(setting.table)})", fontsize="medium")
        own = ax.get_legend()
        if own is not None:  # taken out of the panel, where it would cover data
            texts = [text.get_text() for text in own.get_texts()]
            marks |= dict(zip(texts, own.legend_handles, strict=True))
            own.remove()
    options: dict[str, Any] = {"frameon": False, "fontsize": "small"}
    if marks:
        across = legend_columns(list(marks), width * len(parts))
        figure.legend(list(marks.values()), list(marks), loc="outside upper center", ncols=across, **options)
    handles = [Line2D([], [], color=s.colour, marker=s.marker, ls="", label=s.label) for s in of_conditions]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, **options)
    return figure


def gap_by_rule(ax: Axes, setting: Setting, style_of: Styles) -> Axes:
    """Gap on noisy and clean test inputs at the lowest training loss all rules reach: runs, mean, 95 % interval."""
    values, scale, means = setting.matched(), _scale(setting), False
    for place, condition in enumerate(setting.conditions):
        own = values[values["condition"] == condition]
        for shift, gap in ((-0.17, NOISY_GAP), (0.17, CLEAN_GAP)):
            x = own[setting.gap(gap)].dropna().to_numpy(float) * scale
            dots(ax, place + shift, x, style_of[condition], hollow=gap == CLEAN_GAP)
            means |= len(x) >= INTERVAL_FROM
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ticks = [on_lines(style_of[condition].label) for condition in setting.conditions]
    ax.set_xticks(range(len(ticks)), ticks, fontsize="small")
    ax.set_xlabel(f"learning rule ({_at(values)})")
    accurate = setting.gap_unit == "accuracy"
    ax.set_ylabel("train - test accuracy (points)" if accurate else "test - train loss (½·error²)")
    filled: dict[str, Any] = {"color": "0.3", "marker": "o", "ls": ""}
    shapes = [
        Line2D([], [], **filled, label="noisy test inputs"),
        Line2D([], [], **filled, mfc="none", label="clean test inputs"),
        Line2D([], [], color="0.3", marker="_", ms=14, label="mean, 95 % interval over seeds"),
    ]
    explained(ax, shapes if means else shapes[:2])
    return ax


def gap_against_sharpness(ax: Axes, setting: Setting, style_of: Styles) -> Axes:
    """Gap under noisy test inputs against sharpness at matched training loss, a dot per run, with both correlations."""
    values, gap = setting.matched(), setting.gap()
    for condition, own in values.groupby("condition", sort=False):
        style, y = style_of[str(condition)], own[gap] * _scale(setting)
        ax.plot(own[SHARPNESS], y, ls="", color=style.colour, marker=style.marker, ms=5, alpha=0.8)
    log_axis(ax, "x")
    texts = []
    for within, name in ((False, "pooled"), (True, "within rule")):
        effect = correlation(values, LOG_SHARPNESS, gap, within)
        if math.isfinite(effect.estimate):
            low, high = (math.tanh(v) for v in effect.interval())
            said = [written("{:.2f}", v) for v in (math.tanh(effect.estimate), low, high)]
            texts.append(f"r {name} {said[0]} [{said[1]}, {said[2]}]")
    ax.margins(y=0.2)
    ax.text(0.02, 0.99, "\n".join(texts), transform=ax.transAxes, va="top", fontsize="small")
    label = f"a run{'; r: Pearson, with 95 % interval' if texts else ''}"
    explained(ax, [Line2D([], [], color="0.3", marker="o", ls="", label=label)])
    ax.set_xlabel(f"{_SHARPNESS}\n{_at(values)}")
    accurate = setting.gap_unit == "accuracy"
    ax.set_ylabel("train - noisy test accuracy (points)" if accurate else "noisy test - train loss (½·error²)")
    return ax


def sharpness_against_loss(ax: Axes, setting: Setting, style_of: Styles) -> Axes:
    """Sharpness at matched training losses: median over seeds, and the range of the middle half."""
    table, start = setting.finished, start_loss(setting.finished)
    least = table.groupby(["condition", "seed"])[LOSS].min()
    for condition, own in table.groupby("condition", sort=False):
        lowest = max(LEAST, float(least[condition].median()))
        if not lowest < start:
            continue
        levels = np.geomspace(start, lowest, 25)[1:]
        at = np.array([at_loss(own, float(v), [SHARPNESS])[SHARPNESS].to_numpy(float) for v in levels])
        band(ax, levels, at, style_of[str(condition)])
    log_axis(ax, "x")
    log_axis(ax, "y")
    explained(ax, _BAND)
    ax.invert_xaxis()
    ax.set_xlabel("training loss (nats or ½·error²), falling →")
    ax.set_ylabel(_SHARPNESS)
    return ax


def sharpness_against_steps(ax: Axes, setting: Setting, style_of: Styles, reference: str = "", local: str = "") -> Axes:
    """Sharpness along training, with the bound 2/η of one rule and 2/(ηρ) of another: medians over seeds.

    Args:
        ax: where to draw.
        setting: its table.
        style_of: styles by condition.
        reference: whose 2/η; the first condition by default. Where learning rates are tuned, each rule has its own.
        local: whose 2/(ηρ); the second condition by default.
    """
    table, conditions = setting.finished, setting.conditions
    reference = reference if reference in conditions else conditions[0]
    local = local if local in conditions else next((c for c in conditions if c != reference), "")
    lines = [Line2D([], [], color="0.3", ls="--", label=rf"bound $2/\eta$ on all weights, {style_of[reference].label}")]
    for condition, own in table.groupby("condition", sort=False):
        band(ax, *by_step(own, own[SHARPNESS]), style_of[str(condition)])
        if condition == local:
            rho = own["alignment/rho"].where(own["alignment/rho"] > 0)
            steps, bound = by_step(own, 2 / (own["lr"] * rho))
            dotted: dict[str, Any] = {"color": style_of[local].colour, "ls": ":"}
            ax.plot(steps, median(bound), lw=1.4, **dotted)
            lines.append(
                Line2D([], [], label=rf"bound $2/(\eta\rho)$ on all weights, {style_of[local].label}", **dotted)
            )
    exact = table[table["condition"] == reference]
    steps, bound = by_step(exact, 2 / exact["lr"])
    ax.plot(steps, np.nanmax(bound, axis=1), color="0.3", ls="--", lw=1.2)
    log_axis(ax, "y")
    explained(ax, [*lines, *_BAND])
    ax.set_xlabel(_STEPS)
    ax.locator_params(axis="x", nbins=5)
    ax.set_ylabel(_SHARPNESS)
    return ax


def alignment(ax: Axes, setting: Setting, style_of: Styles) -> Axes:
    """Cosine (lines; of W_rec dotted) and ρ (dashed) of the rule's gradient with the true one: medians over seeds."""
    recurrent = "alignment/cosine/W_rec"
    shown, exact = [("-", "cosine"), ("--", r"$\rho$")], []
    for condition, own in setting.finished.groupby("condition", sort=False):
        style = style_of[str(condition)]
        if not own[COSINE].notna().any():  # not measured
            continue
        if bool(((own[[COSINE, "alignment/rho"]] - 1).abs().fillna(0) < 1e-4).all(axis=None)):
            exact.append(style.label)
            continue
        band(ax, *by_step(own, own[COSINE]), style)
        steps, rho = by_step(own, own["alignment/rho"])
        ax.plot(steps, median(rho), color=style.colour, ls="--", lw=1)
        if recurrent in own and own[recurrent].notna().any():
            steps, cosine = by_step(own, own[recurrent])
            ax.plot(steps, median(cosine), color=style.colour, ls=":", lw=1.2)
            shown[2:] = [(":", r"cosine, $W_{rec}$")]
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    lines = [Line2D([], [], color="0.3", ls=ls, label=label) for ls, label in shown]
    if exact:
        lines.append(Line2D([], [], ls="", label=f"not drawn, 1 throughout: {', '.join(exact)}"))
    explained(ax, [*lines, *_BAND])
    ax.set_ylim(min(-0.05, ax.get_ylim()[0]), max(1.05, min(1.5, ax.get_ylim()[1])))
    ax.set_xlabel(_STEPS)
    ax.locator_params(axis="x", nbins=5)
    ax.set_ylabel("alignment with BPTT (dimensionless)")
    return ax


PANELS: dict[str, Panel] = {
    f.__name__: f
    for f in (gap_by_rule, gap_against_sharpness, sharpness_against_loss, sharpness_against_steps, alignment)
}


def _scale(setting: Setting) -> int:
    """From the gap's column to what is shown: points of accuracy, or the loss as it is."""
    return 100 if setting.gap_unit == "accuracy" else 1


def _at(values: pd.DataFrame) -> str:
    """The training loss at which values are matched."""
    return f"at training loss {values['level'].iloc[0]:.3g}"
