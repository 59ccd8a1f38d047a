"""How the figures of a study draw: a rule's colour and marker, runs as dots, seeds as a band, readable log axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from bpgen.study import statistics as st

_FIXED = {
    "bptt": ("#000000", "o"),
    "three_factor": ("#D55E00", "s"),
    "eprop": ("#D55E00", "s"),
    "rflo": ("#E69F00", "^"),
    "scaled_bptt": ("#0072B2", "D"),
    "noisy_bptt": ("#56B4E9", "v"),
    "mdgl": ("#009E73", "P"),
    "modprop": ("#CC79A7", "X"),
    "three_factor, early lr": ("#8B4513", "*"),
    "norm_matched": ("#7F7F7F", "<"),
}
_SPARE = (("#332288", ">"), ("#999933", "h"), ("#882255", "p"), ("#44AA99", "d"), ("#666666", "8"))


def styles(rules: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every rule; the same for a rule in every figure of every study."""
    spare = iter(_SPARE * (1 + len(rules)))
    return {rule: _FIXED[rule] if rule in _FIXED else next(spare) for rule in dict.fromkeys(rules)}


def dots(ax: Axes, at: float, x: Any, style: tuple[str, str], filled: bool) -> None:
    """Single runs beside each other, with mean and 95 % interval over them."""
    colour, marker = style
    spread = (np.arange(len(x)) - (len(x) - 1) / 2) * 0.16 / max(1, len(x) - 1)
    face: Any = colour if filled else "none"
    ax.plot(at + spread, x, ls="", marker=marker, ms=3.5, color=colour, mfc=face, alpha=0.5)
    effect = st.from_values(dict(enumerate(x.tolist())), len(x))
    if effect.n >= 3:
        low, high = effect.interval()
        bar = [[effect.estimate - low], [high - effect.estimate]]
        ax.errorbar(at, effect.estimate, yerr=bar, color=colour, capsize=4, marker="_", ms=14, lw=1.5)


def by_step(table: pd.DataFrame, values: pd.Series) -> tuple[Any, Any]:
    """Steps, and values of shape [steps, seeds]; nan where a run was not measured."""
    wide = table.assign(_v=values).pivot_table(index="step", columns=["condition", "seed"], values="_v", dropna=False)
    return wide.index.to_numpy(float), wide.to_numpy(float)


def band(ax: Axes, x: Any, values: Any, style: tuple[str, str]) -> None:
    """Median over seeds, and the middle half of them; points that most runs have."""
    kept = np.isfinite(values).mean(axis=1) >= 0.5
    if not kept.any():
        return
    x, values = x[kept], values[kept]
    low, middle, high = np.nanpercentile(values, [25, 50, 75], axis=1)
    ax.plot(x, middle, color=style[0], marker=style[1], ms=4, markevery=max(1, len(x) // 8), lw=1.5)
    ax.fill_between(x, low, high, color=style[0], alpha=0.15, lw=0)


def median(values: Any) -> Any:
    """Medians over seeds, nan where no run was measured."""
    seen = np.isfinite(values).any(axis=1)
    result = np.full(len(values), np.nan)
    result[seen] = np.nanmedian(values[seen], axis=1)
    return result


def log_axis(ax: Axes, which: str) -> None:
    """A logarithmic axis with plain numbers, few of them."""
    axis: Any = ax.xaxis if which == "x" else ax.yaxis
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    plain = FuncFormatter(lambda v, _: f"{v:g}")
    axis.set_major_formatter(plain)
    low, high = ax.get_xlim() if which == "x" else ax.get_ylim()
    decades = abs(math.log10(high / low)) if low > 0 and high > 0 else 2
    shown = "25" if decades >= 0.6 else "2345678"  # at least two numbers on an axis, and none on another
    few = FuncFormatter(lambda v, _: f"{v:g}" if f"{v:e}"[0] in shown else "")
    axis.set_minor_formatter(few if decades < 2 else FuncFormatter(lambda *_: ""))


def seeds_of(table: pd.DataFrame) -> str:
    """The n of a panel."""
    seeds = table.groupby("condition")["seed"].nunique()
    low, high = int(seeds.min()), int(seeds.max())
    return f"n = {low} seeds a rule" if low == high else f"n = {low} to {high} seeds a rule"


def short(rule: str) -> str:
    """A rule's name on two lines."""
    return rule.replace(", ", ",\n").replace("_", "_\n", 1) if len(rule) > 6 else rule
