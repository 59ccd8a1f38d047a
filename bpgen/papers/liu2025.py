"""Liu et al. 2025: at matched accuracy e-prop is as similar to the brain's activity as BPTT.

    (a) at the same loss, networks under e-prop are as similar to networks under BPTT as these are to each other
    (b) architecture and initial weights change similarity more than the rule does
    (c) not in the paper: could (a) have come out otherwise? Networks whose readout alone learns, at the same loss, and
        untrained ones are less similar
The source compares with recordings, which are not ours to ship: here a network under BPTT stands for the animal, and
what is asked is whether one under e-prop can be told from another under BPTT. `bpgen similarity` takes recordings.

Unit of analysis: the seed. It trains two networks of every kind from two initial weights (`liu2025_networks`), and no
network belongs to two seeds, so that effects are independent, which pairs of one pool of networks are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from typing import ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bpgen.analysis.matching import LOWEST_COMMON, Level
from bpgen.analysis.statistics import Effect, mean_effect
from bpgen.analysis.verdicts import Check
from bpgen.figures.style import Style, dots, sheet, styles
from bpgen.papers.base import Claim, Paper, Simulation, Size
from bpgen.papers.liu2025_networks import BPTT, KINDS, UNTRAINED, WAYS, Training, compared

SAME = math.log(1.1)  # of an angle: a tenth; a kind within it is as similar, beyond it is not
PLACE = 0.05  # of the way from the noise ceiling to nothing in common
SETTING, BY_KIND, ALONG = "context decision", "angle_by_kind", "angle_along_training"
RULE = "e-prop"
_STYLE = styles([BPTT, *(name for name in KINDS if name != BPTT), UNTRAINED])


def of_seed(seed: int, training: Training) -> pd.DataFrame:
    """All comparisons of one seed, a row for each kind and each loss at which networks are matched."""
    return pd.DataFrame({"seed": seed, **row} for row in compared(seed, training))


def _rows(table: pd.DataFrame, condition: str, way: float = 1.0) -> pd.DataFrame:
    return table[(table["condition"] == condition) & np.isclose(table["way"], way)].set_index("seed")


def _further(table: pd.DataFrame, condition: str, measure: str = "angle", way: float = 1.0, to: str = "") -> pd.Series:
    """By seed, the log of a kind's distance to BPTT over BPTT's to itself."""
    rows = _rows(table, condition, way)
    ratio: pd.Series = np.log(rows[f"{measure}{to}"]) - np.log(rows[f"{measure}_bptt"])
    return ratio


def _effect(values: pd.Series, table: pd.DataFrame) -> Effect:
    known = values[np.isfinite(values)]
    return mean_effect({int(s): float(v) for s, v in known.items()}, table["seed"].nunique())


def _loss(table: pd.DataFrame, condition: str) -> str:
    return f"at loss {_rows(table, condition)['level'].mean():.2g}"


def angle_by_kind(table: pd.DataFrame) -> Figure:
    """The angle of every kind to BPTT, and hollow beside it that of BPTT to itself, at the lowest loss of both."""
    figure, (ax,) = sheet(1, "Angle to networks under BPTT with other initial weights, at the same loss", size=(8.5, 4))
    kinds = list(dict.fromkeys(table["condition"]))
    for place, kind in enumerate(kinds):
        rows = _rows(table, kind)
        dots(ax, place - 0.14, rows["angle"].to_numpy(float), _STYLE[kind])
        dots(ax, place + 0.14, rows["angle_bptt"].to_numpy(float), _STYLE[BPTT], hollow=True)
    ax.set_xticks(range(len(kinds)), [f"{k}\n{_loss(table, k).replace('at ', '')}" for k in kinds])
    ax.set(ylabel="angle (radians)", title=f"n = {table['seed'].nunique()} seeds; hollow: BPTT to BPTT")
    ax.set_ylim(bottom=0)
    return figure


def angle_along_training(table: pd.DataFrame) -> Figure:
    """The angle of e-prop to BPTT against the loss at which they are matched, beside that of BPTT to itself."""
    figure, (ax,) = sheet(1, "Angle along training, at matched losses", size=(5.6, 3.8))
    rows = table[table["condition"] == RULE]
    lines = [("angle", _STYLE[RULE], f"{RULE} to {BPTT}"), ("angle_bptt", _STYLE[BPTT], f"{BPTT} to {BPTT}")]
    for column, style, label in lines:
        _line(ax, rows, column, style, label)
    ax.set(xlabel="way to the lowest common loss (log)", ylabel="angle (radians)")
    ax.set_title(f"mean ± standard error, n = {table['seed'].nunique()} seeds")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return figure


def _line(ax: object, rows: pd.DataFrame, column: str, style: Style, label: str) -> None:
    means = rows.groupby("way")[column].agg(["mean", "sem"])
    bars = {"yerr": means["sem"], "capsize": 3, "color": style.colour, "marker": style.marker, "ms": 4}
    ax.errorbar(means.index, means["mean"], label=label, **bars)  # type: ignore[attr-defined]


_FIGURES = {BY_KIND: angle_by_kind, ALONG: angle_along_training}


def _size(seeds: int, training: Training, time: str) -> Size:
    return Size(
        [],
        f"{seeds} seeds of {training.n_rec} neurons: {time}",
        Simulation(partial(of_seed, training=training), seeds, _FIGURES),
    )


class Liu2025(Paper):
    """Liu, Yang and Cueva: neural similarity of networks under biologically plausible rules."""

    title = "Can biologically plausible temporal credit assignment rules match BPTT for neural similarity?"
    citation = "Liu, Yang and Cueva, ICML 2025, arXiv 2506.06904"
    sizes: ClassVar = {
        "quick": _size(10, Training(100, 300), "about 5 minutes on 2 cores"),
        "default": _size(10, Training(200, 1000), "about 15 minutes on 2 cores"),
        "full": _size(20, Training(400, 3000), "about three hours on 2 cores"),
    }
    claims: ClassVar = {
        "a": Claim("e-prop reaches BPTT's similarity at matched accuracy", "comparable similarity to neural data"),
        "b": Claim(
            "architecture and initial weights matter more than the rule", "they can play a more significant role"
        ),
        "c": Claim("could (a) have come out otherwise?"),
    }
    remark = (
        "Angle: Procrustes, of activities in 72 conditions without noise; ratios are of a kind's angle to BPTT with "
        "other initial weights to that of BPTT to BPTT, all at the same validation loss. Place: by samples of 10 "
        "neurons, 0 where another sample of the same network is, 1 nothing in common. A seed trains two networks of "
        "every kind, and none belongs to two seeds: n is the number of seeds, not of pairs. Networks are leaky with "
        "dt/τ = 0.1, a rectified tanh and W_rec ~ N(0, 1.5²/N), under Adam at 1e-3, as the released code runs its "
        "context task; that has 400 neurons, 3,000 updates on a fixed set of trials, noise of 0.1 on activities and "
        "three choices at 34 steps of 50 ms, here are fresh trials of `context_decision` without noise on activities. "
        "The source compares with recordings, and gives no number for networks among each other."
    )

    def checks(self, table: pd.DataFrame, level: Level = LOWEST_COMMON) -> Iterable[Check]:
        """Claim by claim; networks were matched when they were compared."""
        further, effect = partial(_further, table), partial(_effect, table=table)
        at = _loss(table, RULE)
        text = f"{RULE} is as far from {BPTT} as {BPTT} from {BPTT}, {at}"
        yield Check("a", SETTING, text, effect(further(RULE)), "same", SAME, "ratio", BY_KIND)
        rows = _rows(table, RULE)
        text = f"samples of 10 neurons are in the same place, {at}"
        yield Check("a", SETTING, text, effect(rows["place"] - rows["place_bptt"]), "same", PLACE, "of the way", "")
        for text, own in (
            *((f"the same by 1 - {name.upper()}, {at}", further(RULE, name)) for name in ("cka", "cca")),
            *((f"the same {way:.0%} of the way to that loss", further(RULE, way=way)) for way in WAYS[:-1]),
            (f"the same between equal initial weights, {at}", further(RULE, to="_same_start")),
        ):
            yield Check("a", SETTING, text, effect(own), "description", SAME, "ratio", ALONG)
        for kind in ("tanh", "a third of the gain", "twice the gain"):
            text = f"{kind} takes {BPTT} further from {BPTT} than {RULE} is, {_loss(table, kind)}"
            more = further(kind) - further(RULE)
            yield Check("b", SETTING, text, effect(more), "larger", SAME, "ratio", BY_KIND)
        for kind in ("readout only", UNTRAINED):
            text = f"{kind} is further from {BPTT} than {BPTT} from {BPTT}, {_loss(table, kind)}"
            yield Check("c", SETTING, text, effect(further(kind)), "larger", SAME, "ratio", BY_KIND)
        text = "the average over conditions is further from the noise ceiling than BPTT (10 neurons)"
        off = rows["baseline"] - rows["place_bptt"]
        yield Check("c", SETTING, text, effect(off), "larger", PLACE, "of the way", "")
