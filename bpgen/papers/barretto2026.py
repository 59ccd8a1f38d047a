"""Barretto-Bittar et al. 2026: a learning signal that diffuses between neurons reaches those that get none directly.

    (a) networks whose error reaches one neuron in ten learn better where it diffuses to the neighbours than where it
        does not (e-prop), and less well than under BPTT
    (b) that is a matter of geometry: with the neighbours permuted, diffusion is worse
    (c) the gradient of BPTT is closer to what diffuses than to what does not
    (d) not in the paper: how sharp are the minima, (e) and how large the gaps, where training losses are equal
(a) to (c) are after as many updates under every rule, as theirs; (d) and (e) at matched training loss. Where a task has
no accuracy the test loss is compared. The rule, and what it does otherwise than theirs, is in `diffusive_eprop`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bpgen.analysis.matching import LOWEST_COMMON, Level
from bpgen.analysis.settings import CLEAN_GAP, NOISY_GAP, Setting, by_rule, settings
from bpgen.analysis.statistics import mean_effect, paired
from bpgen.analysis.verdicts import Check
from bpgen.figures.style import BLACK, BLUE, ORANGE, SKY, VERMILION, Style, Styles, dots, explained, on_lines
from bpgen.papers.base import Claim, Experiment, Paper, Size
from bpgen.papers.matched import GAP_POINTS, larger_gap, sharper, undefined

BPTT, DIFFUSION, EPROP, PERMUTED, REDRAWN = "bptt", "diffusion", "e-prop", "permuted diffusion", "redrawn diffusion"
REPORTED = {  # final accuracy in %, mean over their 20 seeds, after 2,000 updates: the authors' stored logs
    "cue_accumulation": {BPTT: 98.2, DIFFUSION: 92.9, EPROP: 86.1},
    "spiking_delayed_match": {BPTT: 99.7, DIFFUSION: 95.1, EPROP: 74.0},
}
ACCURACY, TEST_LOSS, COSINE = "test/accuracy", "test/loss", "alignment/cosine/W_rec"
LOSS_RATIO = math.log(1.1)  # smallest ratio of test losses of interest
COSINE_OFF = 0.02  # smallest difference of cosines of interest


def _task(setting: Setting) -> str:
    return str(setting.table["task"].iloc[0])


def _better(setting: Setting, claim: str, good: str, bad: str) -> Check:
    """That one rule ends with a higher test accuracy than another, or where there is none with a lower test loss."""
    values, both, figure = setting.last(good, bad), (good, bad), "performance_by_rule"
    if setting.gap_unit == "accuracy":
        text, effect = f"{good} is more accurate than {bad} in the end", paired(values, ACCURACY, good, bad)
        return Check(claim, setting.name, text, effect, "larger", GAP_POINTS, "points", figure, conditions=both)
    text, effect = f"{good} has a lower test loss than {bad} in the end", paired(values, TEST_LOSS, bad, good, log=True)
    return Check(claim, setting.name, text, effect, "larger", LOSS_RATIO, "ratio", figure, conditions=both)


def _performance(setting: Setting) -> Iterator[Check]:
    """(a): what every rule reaches, beside what is reported; then who is better."""
    accurate = setting.gap_unit == "accuracy"
    for rule in setting.conditions:
        values = setting.last(rule).set_index("seed")[ACCURACY if accurate else TEST_LOSS] * (100 if accurate else 1)
        reported = REPORTED.get(_task(setting), {}).get(rule)
        said = f" (reported {reported} %)" if reported else ""
        text = f"{rule}: test {'accuracy' if accurate else 'loss'} in the end{said}"
        effect = mean_effect({int(str(k)): float(v) for k, v in values.items()}, len(setting.seeds))
        unit = "%" if accurate else "loss"
        yield Check("a", setting.name, text, effect, "description", GAP_POINTS, unit, "performance_by_rule")
    for good, bad in ((DIFFUSION, EPROP), (BPTT, DIFFUSION)):
        if {good, bad} <= set(setting.conditions):
            yield _better(setting, "a", good, bad)


def _geometry(setting: Setting) -> Iterator[Check]:
    """(b)"""
    for control in (PERMUTED, REDRAWN):
        if {control, DIFFUSION} <= set(setting.conditions):
            yield _better(setting, "b", DIFFUSION, control)


def _alignment(setting: Setting) -> Iterator[Check]:
    """(c): the cosine of the recurrent weights' gradient with the true one, mean over a run's evaluations."""
    if COSINE not in setting.finished:
        return
    mean = setting.of().groupby(["condition", "seed"], sort=False)[COSINE].mean().reset_index()
    for other in (EPROP, PERMUTED, REDRAWN):
        if {DIFFUSION, other} <= set(setting.conditions):
            text = f"diffusion is closer to the gradient than {other} along training (cosine, W_rec)"
            effect, both = paired(mean, COSINE, DIFFUSION, other), (DIFFUSION, other)
            yield Check("c", setting.name, text, effect, "larger", COSINE_OFF, "cosine", "alignment", conditions=both)


def _curvature(setting: Setting) -> Iterator[Check]:
    """(d)"""
    for more, less in ((DIFFUSION, BPTT), (EPROP, BPTT), (EPROP, DIFFUSION)):
        if {more, less} <= set(setting.conditions):
            yield sharper(setting, "d", f"{more} is sharper than {less}", more, less, "sharpness_against_loss")


def _gaps(setting: Setting) -> Iterator[Check]:
    """(e)"""
    for more, less in ((DIFFUSION, BPTT), (EPROP, BPTT), (EPROP, DIFFUSION)):
        for gap, inputs in ((NOISY_GAP, "noisy"), (CLEAN_GAP, "clean")):
            if {more, less} <= set(setting.conditions):
                text = f"{more} has a larger gap than {less} ({inputs} test inputs)"
                check = larger_gap(setting, "e", text, more, less, gap, "gap_by_rule")
                yield undefined(check) if gap == CLEAN_GAP and setting.reuses_training else check


def performance_by_rule(ax: Axes, setting: Setting, style_of: Styles) -> Axes:
    """Test accuracy (or loss) at the end of training: runs, mean and 95 % interval, and what is reported."""
    accurate, last = setting.gap_unit == "accuracy", setting.last()
    reported = REPORTED.get(_task(setting), {})
    for place, rule in enumerate(setting.conditions):
        own = last[last["condition"] == rule][ACCURACY if accurate else TEST_LOSS].dropna().to_numpy(float)
        dots(ax, place, own * (100 if accurate else 1), style_of[rule])
        if rule in reported:
            ax.plot([place + 0.3], [reported[rule]], marker="D", mfc="none", color=BLACK, ls="")
    ticks = [on_lines(style_of[rule].label) for rule in setting.conditions]
    ax.set_xticks(range(len(ticks)), ticks, fontsize="small")
    ax.set_xlabel("learning rule (after the same number of updates)")
    ax.set_ylabel("test accuracy (%)" if accurate else "test loss (½·error²)")
    plain: dict[str, Any] = {"color": "0.3", "ls": ""}
    marks = [Line2D([], [], marker="_", ms=14, label="mean, 95 % interval over seeds", **plain)]
    if reported:
        marks.append(Line2D([], [], marker="D", mfc="none", color=BLACK, ls="", label="reported, 2,000 updates"))
    if accurate:
        ax.axhline(50, color="0.8", lw=0.8, zorder=0)  # chance
        ax.set_ylim(top=102)  # an interval may go on where no accuracy can
    else:
        ax.set_ylim(0, max(ax.get_ylim()[1], float(np.nanmax(last[TEST_LOSS]))))
    explained(ax, marks)
    return ax


_CHECKS = (_performance, _geometry, _alignment, _curvature, _gaps)


class Barretto2026(Paper):
    """Barretto-Bittar, Levina, Giannakakis and Zeraati: neuromodulators that diffuse as credit."""

    title = "Diffusion of neuromodulators for temporal credit assignment"
    citation = "Barretto-Bittar, Levina, Giannakakis and Zeraati 2026, arXiv 2603.08949"
    sizes: ClassVar = {
        "quick": Size(
            [Experiment("barretto2026_quick")], "three tasks in steps of 10 ms, 5 seeds: about 8 minutes on 2 cores"
        ),
        "default": Size(
            [Experiment("barretto2026")],
            "cue accumulation and delayed match at their settings, 400 and 800 updates, 2 seeds: about an hour and a "
            "half on 2 cores",
        ),
        "full": Size(
            [Experiment("barretto2026_full")],
            "their settings, 2,000 updates, 20 seeds: about 5 days on 2 cores (extrapolated: an update takes 1.8, 1.0 "
            "and 0.45 s in the three tasks)",
        ),
    }
    claims: ClassVar = {
        "a": Claim(
            "diffusion learns better than e-prop with the same sparse feedback, and less well than BPTT",
            "BPTT 98.2, diffusion 92.9, e-prop 86.1 % (cue accumulation); 99.7, 95.1, 74.0 % (delayed match)",
        ),
        "b": Claim("with its neighbours permuted, diffusion learns less well"),
        "c": Claim("diffusion is closer to the gradient of BPTT than e-prop and than permuted diffusion"),
        "d": Claim("not asked there: sharper minima, the less a rule sees of the gradient"),
        "e": Claim("not asked there: larger gaps"),
    }
    remark = (
        "Otherwise than theirs: trials are drawn from a training set instead of once each, so that there is a gap; the "
        "feedback follows the readout instead of its initial weights; the input of pattern generation is frozen. The "
        "short form has steps of 10 ms (no refractory period), shorter trials, 200 to 350 updates of their 2,000, no "
        "cost of the activity, cues that fall on the trial's side with probability 0.7 instead of 0.5, and denser "
        "networks: every neuron sees the input instead of a tenth of it, and what distance leaves of the weights is "
        "scaled up; there BPTT, too, does without the path through the reset. In steps of 1 ms the gradient of such a "
        "network explodes (BPTT in delayed match: 53 % after 1,000 updates, one seed). The bound 2/η is of plain "
        "gradient descent; this is Adam."
    )
    styles: ClassVar = {
        BPTT: Style(BLACK, "o"),
        DIFFUSION: Style(BLUE, "D"),
        EPROP: Style(VERMILION, "s"),
        PERMUTED: Style(ORANGE, "^"),
        REDRAWN: Style(SKY, "v"),
    }
    figures: ClassVar = {"performance_by_rule": performance_by_rule}

    def checks(self, table: pd.DataFrame, level: Level = LOWEST_COMMON) -> Iterable[Check]:
        """Task by task, in the order of the claims."""
        return [
            check
            for setting in settings(by_rule(table), level)
            if not setting.finished.empty
            for claim in _CHECKS
            for check in claim(setting)
        ]
