"""Figures of a study as functions of its tidy table: no files are read, no folders known.

Every panel is one setting (task and alpha), says its n, and has the same colour and marker for a rule everywhere. The
colours are Okabe and Ito's, told apart by colour-blind readers; conditions without a fixed one get what is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bpgen.study import matched
from bpgen.study import statistics as st
from bpgen.study.correlation import correlation
from bpgen.study.drawing import band, by_step, dots, log_axis, median, seeds_of, short, styles

SHARPNESS = "sharpness/lambda_max"
_BASE = "three_factor"
Panel = Callable[[Axes, pd.DataFrame, dict[str, tuple[str, str]]], None]


def study_figures(table: pd.DataFrame) -> dict[str, Figure]:
    """All figures of a study by name; one with nothing to show is left out."""
    table = matched.finished(table)
    if table.empty:
        return {}
    measured = SHARPNESS in table and table[SHARPNESS].notna().any()
    return {n: sheet(table, panel) for n, panel in PANELS.items() if measured or panel in (gap_by_rule, alignment)}


def sheet(table: pd.DataFrame, panel: Panel) -> Figure:
    """One panel per setting, side by side, with one legend of the rules."""
    settings = list(table.groupby(["task", "alpha"], sort=False, dropna=False))
    style = styles(list(dict.fromkeys(table["rule"])))
    width = 4.6 * len(settings)
    columns = min(len(style), max(1, int(width / (0.45 + 0.07 * max(map(len, style))))))  # inches: marker and letters
    height = 4.1 + 0.2 * -(-len(style) // columns)
    figure = Figure(figsize=(width, height), layout="constrained", dpi=130)
    axes: Any = figure.subplots(1, len(settings), squeeze=False)[0]
    for ax, ((task, alpha), part) in zip(axes, settings, strict=True):
        panel(ax, part.assign(condition=part["rule"]), style)
        name = task if pd.isna(alpha) else rf"{task}, $\alpha$ = {alpha:g}"
        ax.set_title(f"{name}\n({seeds_of(part)})", fontsize="medium")
        ax.spines[["top", "right"]].set_visible(False)
    handles = [Line2D([], [], color=c, marker=m, ls="", label=rule) for rule, (c, m) in style.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")
    return figure


def gap_by_rule(ax: Axes, table: pd.DataFrame, style: dict[str, tuple[str, str]]) -> None:
    """Gap on noisy and clean test inputs at the lowest training loss all rules reach: runs, mean, 95 % interval."""
    values, measure, level = _matched(table)
    scale = 100 if measure == "accuracy" else 1
    rules = list(dict.fromkeys(table["condition"]))
    for place, rule in enumerate(rules):
        own = values[values["condition"] == rule]
        for shift, gap, filled in ((-0.17, "gap_noisy", True), (0.17, "gap", False)):
            x = own[f"{gap}/{measure}"].dropna().to_numpy(float) * scale
            dots(ax, place + shift, x, style[rule], filled)
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.set_xticks(range(len(rules)), [short(r) for r in rules], fontsize="small")
    ax.set_xlabel(f"learning rule (at training loss {level:.3g})")
    ax.set_ylabel("train - test accuracy (points)" if measure == "accuracy" else "test - train loss (½·error²)")
    shapes = [
        Line2D([], [], color="0.3", marker="o", ls="", label="noisy test inputs"),
        Line2D([], [], color="0.3", marker="o", ls="", mfc="none", label="clean test inputs"),
    ]
    ax.margins(y=0.2)
    ax.legend(handles=shapes, frameon=False, fontsize="small", loc="upper left", ncols=2, columnspacing=1)


def gap_against_sharpness(ax: Axes, table: pd.DataFrame, style: dict[str, tuple[str, str]]) -> None:
    """Gap under noisy test inputs against sharpness at matched training loss, a dot per run, with both correlations."""
    values, measure, level = _matched(table)
    scale = 100 if measure == "accuracy" else 1
    gap = f"gap_noisy/{measure}"
    for rule, own in values.groupby("condition", sort=False):
        colour, marker = style[rule]
        ax.plot(own[SHARPNESS], own[gap] * scale, ls="", color=colour, marker=marker, ms=5, alpha=0.8)
    log_axis(ax, "x")
    data = values.assign(logs=np.log(values[SHARPNESS].where(values[SHARPNESS] > 0)))
    texts = []
    for within, name in ((False, "pooled"), (True, "within rule")):
        effect = correlation(data, "logs", gap, within)
        if math.isfinite(effect.estimate):
            low, high = (math.tanh(v) for v in effect.interval())
            texts.append(f"r {name} {math.tanh(effect.estimate):.2f} [{low:.2f}, {high:.2f}]")
    ax.margins(y=0.2)
    ax.text(0.02, 0.99, "\n".join(texts), transform=ax.transAxes, va="top", fontsize="small")
    ax.set_xlabel(rf"sharpness $\lambda_{{\max}}$ (loss per weight²)" f"\nat training loss {level:.3g}")
    ax.set_ylabel(_gap_label(measure))


def sharpness_against_loss(ax: Axes, table: pd.DataFrame, style: dict[str, tuple[str, str]]) -> None:
    """Sharpness at matched training losses: median over seeds, and the range of the middle half."""
    least = table.groupby(["condition", "seed"])[matched.LOSS].min()
    start = table.sort_values("step").groupby(["condition", "seed"])[matched.LOSS].first().min()
    for rule, own in table.groupby("condition", sort=False):
        lowest = float(least[rule].median())
        if not lowest < start:
            continue
        levels = np.geomspace(start, lowest, 25)[1:]
        at = np.array([matched.at_loss(own, float(v), [SHARPNESS])[SHARPNESS].to_numpy(float) for v in levels])
        band(ax, levels, at, style[rule])
    log_axis(ax, "x")
    log_axis(ax, "y")
    ax.invert_xaxis()
    ax.set_xlabel("training loss (nats or ½·error²), falling →")
    ax.set_ylabel(r"sharpness $\lambda_{\max}$ (loss per weight²)")


def sharpness_against_steps(ax: Axes, table: pd.DataFrame, style: dict[str, tuple[str, str]]) -> None:
    """Sharpness along training with BPTT's bound 2/η and the three-factor rule's 2/(ηρ): medians over seeds."""
    for rule, own in table.groupby("condition", sort=False):
        colour = style[rule][0]
        band(ax, *by_step(own, own[SHARPNESS]), style[rule])
        if rule == _BASE:
            rho = own["alignment/rho"].where(own["alignment/rho"] > 0)
            steps, bound = by_step(own, 2 / (own["lr"] * rho))
            ax.plot(steps, median(bound), color=colour, ls=":", lw=1.4)
    exact = table[table["condition"] == "bptt"]  # where learning rates are tuned, each rule has its own
    whose, exact = ("", table) if exact.empty else (", bptt", exact)
    steps, bound = by_step(exact, 2 / exact["lr"])
    ax.plot(steps, np.nanmax(bound, axis=1), color="0.3", ls="--", lw=1.2)
    log_axis(ax, "y")
    lines = [Line2D([], [], color="0.3", ls="--", label=rf"bound $2/\eta${whose}")]
    if _BASE in set(table["condition"]):
        lines.append(Line2D([], [], color=style[_BASE][0], ls=":", label=r"bound $2/(\eta\rho)$, three_factor"))
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** 0.2)  # room for the legend
    ax.legend(handles=lines, frameon=False, fontsize="small", loc="upper right")
    ax.set_xlabel("training step (updates)")
    ax.locator_params(axis="x", nbins=5)
    ax.set_ylabel(r"sharpness $\lambda_{\max}$ (loss per weight²)")


def alignment(ax: Axes, table: pd.DataFrame, style: dict[str, tuple[str, str]]) -> None:
    """Cosine (lines) and ρ (dashed) of the rule's gradient with the true one along training: medians over seeds."""
    for rule, own in table.groupby("condition", sort=False):
        steps, cosine = by_step(own, own["alignment/cosine"])
        band(ax, steps, cosine, style[rule])
        steps, rho = by_step(own, own["alignment/rho"])
        ax.plot(steps, median(rho), color=style[rule][0], ls="--", lw=1)
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    lines = [Line2D([], [], color="0.3", ls=ls, label=label) for ls, label in (("-", "cosine"), ("--", r"$\rho$"))]
    ax.legend(handles=lines, frameon=False, fontsize="small")
    ax.set_ylim(min(-0.05, ax.get_ylim()[0]), max(1.05, min(1.5, ax.get_ylim()[1])))
    ax.set_xlabel("training step (updates)")
    ax.locator_params(axis="x", nbins=5)
    ax.set_ylabel("alignment with BPTT (dimensionless)")


def remedies(ax: Axes, table: pd.DataFrame, style: dict[str, tuple[str, str]]) -> None:
    """Change of gap and sharpness from the three-factor rule (or else the first), within seeds, at matched loss."""
    values, measure, level = _matched(table)
    scale = 100 if measure == "accuracy" else 1
    rules = list(dict.fromkeys(table["condition"]))
    base = _BASE if _BASE in rules else rules[0]
    for rule in (r for r in rules if r != base):
        colour, marker = style[rule]
        gap = st.paired(values, f"gap_noisy/{measure}", rule, base)
        curve = st.paired(values, SHARPNESS, rule, base, log=True)
        seeds = sorted(set(gap.values) & set(curve.values))
        ax.plot(
            [math.exp(curve.values[s]) for s in seeds],
            [scale * gap.values[s] for s in seeds],
            ls="",
            color=colour,
            marker=marker,
            ms=4,
            alpha=0.45,
        )
        if seeds:
            (a, b), (low, high) = gap.interval(), curve.interval()
            x, y = math.exp(curve.estimate), scale * gap.estimate
            bars: dict[str, Any] = {
                "xerr": [[x - math.exp(low)], [math.exp(high) - x]],
                "yerr": [[y - scale * a], [scale * b - y]],
            }
            finite = math.isfinite(a) and math.isfinite(low) and math.exp(high) < 50 * x
            ax.errorbar(x, y, **(bars if finite else {}), color=colour, marker=marker, ms=8, capsize=3)
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.axvline(1, color="0.8", lw=0.8, zorder=0)
    log_axis(ax, "x")
    ax.set_xlabel(rf"$\lambda_{{\max}}$ relative to {base} (ratio)" f"\nat training loss {level:.3g}")
    ax.set_ylabel(f"gap - gap of {base} ({'points' if measure == 'accuracy' else '½·error²'})")


PANELS: dict[str, Panel] = {
    f.__name__: f
    for f in (
        gap_by_rule,
        gap_against_sharpness,
        sharpness_against_loss,
        sharpness_against_steps,
        alignment,
        remedies,
    )
}


def _gap_label(measure: str) -> str:
    if measure == "accuracy":
        return "train - noisy test accuracy (points)"
    return "noisy test - train loss (½·error²)"


def _matched(table: pd.DataFrame) -> tuple[pd.DataFrame, str, float]:
    """Values at the lowest loss all rules of a panel reach, the kind of gap, and that loss."""
    accurate = table["gap_noisy/accuracy"].notna().any()
    measure = "accuracy" if accurate else "loss"
    level = matched.Level().of(table)
    return matched.at_loss(table, level, [SHARPNESS, f"gap/{measure}", f"gap_noisy/{measure}"]), measure, level
