"""Figures of what training costs in runs of the network, as panels of a study's setting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bpgen.analysis.matching import LOSS
from bpgen.analysis.settings import PASSES, Setting
from bpgen.analysis.statistics import paired
from bpgen.figures.style import Styles, band, band_mark, by_step, dots, explained, log_axis, on_lines


def spent(setting: Setting, rows: pd.DataFrame) -> pd.Series:
    """Forward passes that a run has spent at the `step` of each of these rows."""
    per_update = setting.finished.groupby("condition", sort=False)[PASSES].first()
    return rows["step"] * rows["condition"].map(per_update)


@dataclass(frozen=True)
class LossAgainstPasses:
    """Training loss against forward passes spent, of the conditions called `host` or "host, ..."."""

    host: str

    def shown(self, setting: Setting) -> list[str]:
        """These conditions, where it is known what they spend."""
        names = [name for name in setting.conditions if name.split(", ")[0] == self.host]
        return names if PASSES in setting.finished else []

    def __call__(self, ax: Axes, setting: Setting, style_of: Styles) -> Axes:
        """Draw it; see `bpgen.figures.study`."""
        for name in self.shown(setting):
            own = setting.of(name)
            own = own[own["step"] > 0]
            per_update = float(own[PASSES].iloc[0])
            steps, loss = by_step(own, own[LOSS])
            band(ax, steps * per_update, loss, style_of[name])
        log_axis(ax, "x")
        log_axis(ax, "y")
        explained(ax, [band_mark("lines: median; bands: middle half of the seeds")])
        ax.set_xlabel("forward passes of the batch")
        ax.set_ylabel("training loss (nats or ½·error²)")
        return ax


@dataclass(frozen=True)
class SpeedUps:
    """Updates (hollow) and forward passes (filled) that uniform credit needs, over those that a condition needs.

    hosts: conditions with uniform credit; those called "host, ..." are compared with theirs, at the loss both reach.
    """

    hosts: tuple[str, ...]

    def shown(self, setting: Setting) -> list[str]:
        """The conditions that have one to be compared with."""
        names = [name for name in setting.conditions if name.split(", ")[0] in self.hosts and ", " in name]
        found = [name for name in names if name.split(", ")[0] in setting.conditions]
        return found if PASSES in setting.finished else []

    def __call__(self, ax: Axes, setting: Setting, style_of: Styles) -> Axes:
        """Draw it; see `bpgen.figures.study`."""
        names = self.shown(setting)
        for place, name in enumerate(names):
            host = name.split(", ")[0]
            values = setting.matched(name, host)
            values = values.assign(passes=spent(setting, values))
            for shift, column in ((-0.17, "step"), (0.17, "passes")):
                x = np.array(list(paired(values, column, host, name, log=True).values.values())) / math.log(10)
                dots(ax, place + shift, x, style_of[name], hollow=column == "step")
        ax.axhline(0, color="0.6", lw=0.8, zorder=0)
        ax.set_xticks(range(len(names)), [on_lines(style_of[name].label) for name in names], fontsize="small")
        ticks = [t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if _inside(ax, math.log10(t))]
        ax.set_yticks([math.log10(t) for t in ticks], [f"{t:g}" for t in ticks])
        ax.set_xlabel("weights of the credit (at a training loss that both reach)")
        ax.set_ylabel("needs of uniform credit ÷ its own (above 1: faster)")
        filled: dict[str, Any] = {"color": "0.3", "marker": "o", "ls": ""}
        marks = [
            Line2D([], [], **filled, mfc="none", label="updates"),
            Line2D([], [], **filled, label="forward passes"),
        ]
        explained(ax, [*marks, Line2D([], [], color="0.3", marker="_", ms=14, label="mean, 95 % interval over seeds")])
        return ax


def _inside(ax: Axes, y: float) -> bool:
    low, high = ax.get_ylim()
    return low <= y <= high
