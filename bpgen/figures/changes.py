"""The figure of what remedies change, as a panel of a study's setting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from bpgen.analysis.settings import SHARPNESS, Setting
from bpgen.analysis.statistics import paired
from bpgen.figures.style import Styles, explained

_RATIOS = (0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 5, 10)  # ticks


@dataclass(frozen=True)
class Improvements:
    """How much smaller gap and sharpness of some conditions are than those of another, within seeds, at matched loss.

    Up and to the right is better on both counts, as in a table of differences "base - condition".

    Args:
        base: the condition that is to be improved on.
        remedies: those that may do so; without one of them a setting has nothing to show.
    """

    base: str
    remedies: tuple[str, ...]
    of_sharpness: ClassVar = True

    def shown(self, setting: Setting) -> list[str]:
        """The remedies of a setting; none where there is nothing to compare them with."""
        found = setting.conditions
        return [name for name in self.remedies if name in found] if self.base in found else []

    def __call__(self, ax: Axes, setting: Setting, style_of: Styles) -> Axes:
        """Draw it; see `bpgen.figures.study`."""
        values, scale = setting.matched(), 100 if setting.gap_unit == "accuracy" else 1
        for condition in self.shown(setting):
            colour, marker, _ = style_of[condition]
            gap = paired(values, setting.gap(), self.base, condition)
            curve = paired(values, SHARPNESS, self.base, condition, log=True)
            seeds = sorted(set(gap.values) & set(curve.values))
            if not seeds:
                continue
            x, y = [math.exp(curve.values[s]) for s in seeds], [scale * gap.values[s] for s in seeds]
            ax.plot(x, y, ls="", color=colour, marker=marker, ms=4, alpha=0.45)
            (bottom, top), (left, right) = gap.interval(), curve.interval()
            middle, height = math.exp(curve.estimate), scale * gap.estimate
            bars: dict[str, Any] = {}
            if math.isfinite(bottom) and math.isfinite(left) and math.exp(right) < 50 * middle:
                bars["xerr"] = [[middle - math.exp(left)], [math.exp(right) - middle]]
                bars["yerr"] = [[height - scale * bottom], [scale * top - height]]
            ax.errorbar(middle, height, **bars, color=colour, marker=marker, ms=9, capsize=3, mec="black", mew=0.7)
        lines = ax.axhline(0, color="0.6", lw=0.8, zorder=0), ax.axvline(1, color="0.6", lw=0.8, zorder=0)
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        ticks = [t for t in _RATIOS if low <= t <= high]
        ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
        name, unit = style_of[self.base].label, "points" if setting.gap_unit == "accuracy" else "½·error²"
        level = f"at training loss {values['level'].iloc[0]:.3g}"
        ax.set_xlabel(rf"$\lambda_{{\max}}$ of {name} / that of the remedy (> 1: flatter)" f"\n{level}")
        ax.set_ylabel(f"gap of {name} - gap of the remedy\n> 0: a smaller gap ({unit})")
        seed = Line2D([], [], color="0.4", marker="o", ms=4, ls="", alpha=0.5, label="a seed")
        mean = Line2D(
            [], [], color="0.4", marker="o", ms=9, mec="black", mew=0.7, label="mean, 95 % interval over seeds"
        )
        lines[0].set_label(f"no change from {name}")
        explained(ax, [seed, mean, lines[0]])
        return ax
