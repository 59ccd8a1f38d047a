"""The figure of networks under perturbations of every size, as a function of their table of differences."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bpgen.figures.style import Styles, sheet, styles

_TITLES = {
    "gap": "gap",
    "robustness": "robustness: what it costs on training inputs",
    "generalization": "generalization: from these to test inputs",
}
_AXES = {"noise": "standard deviation of the noise (input units)", "shift": "shift (places)"}


def stress_figure(curves: pd.DataFrame, kind: str, fixed: Styles | None = None) -> Figure:
    """A row per setting, a panel per measure, a line per condition: its difference from the reference, in points.

    Args:
        curves: as `bpgen.study.stress.curves` gives it.
        kind: of the perturbation: "noise" or "shift".
        fixed: styles of conditions.
    """
    shown = curves[curves["kind"].isin((kind, "clean"))].sort_values("size", kind="stable")
    settings, measures = list(dict.fromkeys(curves["setting"])), list(_TITLES)
    reference = str(curves["reference"].iloc[0])
    style_of = styles([reference, *curves["condition"]], fixed)
    style_of.pop(reference)
    title = f"At the training loss that each rule and {reference} reach; 95 % intervals over seeds"
    figure, axes = sheet(len(settings) * len(measures), title, len(measures), (4.2, 3.3))
    for ax, (setting, measure) in zip(axes, ((s, m) for s in settings for m in measures), strict=True):
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        here = shown[(shown["setting"] == setting) & (shown["measure"] == measure)]
        for place, (condition, own) in enumerate(here.groupby("condition", sort=False)):
            style = style_of[str(condition)]
            beside = own["size"] + (place - len(style_of) / 2) * 0.004 * float(shown["size"].max() or 1)
            bars = [own["difference"] - own["low"], own["high"] - own["difference"]]
            ax.errorbar(beside, own["difference"], yerr=bars, color=style.colour, marker=style.marker, ms=4, capsize=2)
        ax.set_title(f"{setting}\n{_TITLES[measure]}", fontsize="medium")
        ax.set_xlabel(_AXES[kind])
        ax.set_ylabel(f"difference from {reference} (points)")
    lines = [Line2D([], [], color=s.colour, marker=s.marker, label=s.label) for s in style_of.values()]
    figure.legend(handles=lines, loc="outside lower center", ncols=min(5, len(lines)), frameon=False, fontsize="small")
    return figure
