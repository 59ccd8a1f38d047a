"""Khandoga et al. 2026: credit weighed by what masking a segment costs, asked of recurrent networks.

    (a) at equal numbers of forward passes: weighed credit gets to a training loss in fewer than uniform credit does,
        and is more accurate when as many are spent
    (b) it gets there in fewer updates, as if runs with a masked segment were free
    (c) with the importance turned upside down it needs more updates, than as it is and than uniform credit
    (d) with random importance it needs as many as uniform credit
    (e) not in the paper: how sharp are the minima, (f) and how large the gaps, where training losses are equal
Cost: an update with uniform or random weights is one forward pass of the batch, with counterfactual ones one more for
every segment (`Rule.forward_passes`, a column of the table). The backward pass, one an update, is not counted.
(a) to (d) compare where training losses are equal, the second half of (a) where forward passes are. A run that never
gets to a loss is counted at its worst. "signed" weights are theirs, "clipped" ones ours (`causal_credit`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np
import pandas as pd

from bpgen.analysis.matching import LOWEST_COMMON, Level
from bpgen.analysis.settings import CLEAN_GAP, NOISY_GAP, PASSES, Setting, by_rule, settings
from bpgen.analysis.statistics import mean_effect, paired
from bpgen.analysis.verdicts import Check, Kind
from bpgen.figures.passes import LossAgainstPasses, SpeedUps, spent
from bpgen.figures.style import BLACK, BLUE, PURPLE, SKY, VERMILION, Style
from bpgen.papers.base import Claim, Experiment, Paper, Size
from bpgen.papers.matched import GAP_LOSS, GAP_POINTS, larger_gap, loss_of, sharper, undefined

HOSTS = ("bptt", "e-prop")  # a host's name is that of its uniform credit
COUNTERFACTUAL = ("signed", "clipped")
INVERTED, RANDOM = "inverted", "random"
FASTER = math.log(1.1)  # smallest ratio of passes or updates of interest
ACCURACY, TEST_LOSS, UPDATES, SPENT = "test/accuracy", "test/loss", "step", "passes"


def _curves(host: str) -> str:
    """The figure of a host's losses."""
    return f"loss_against_passes_{host.replace('-', '')}"


def _weighed(host: str, setting: Setting, *weightings: str) -> list[str]:
    """The conditions of a host with these weightings that a setting has, if it has uniform credit to compare with."""
    names = [f"{host}, {weighting}" for weighting in weightings]
    return [name for name in names if {name, host} <= set(setting.conditions)]


def _sooner(setting: Setting, claim: str, fast: str, slow: str, column: str, kind: Kind = "larger") -> Check:
    """That one condition is at a training loss after less than another; of the kind "same", after as much."""
    values = setting.matched(fast, slow)
    values, what = values.assign(passes=spent(setting, values)), "forward passes" if column == SPENT else "updates"
    amount = f"as many {what} as" if kind == "same" else f"fewer {what} than"
    text = f"{fast} needs {amount} {slow}, at training loss {loss_of(values):.3g}"
    effect = paired(values, column, slow, fast, log=True)
    return Check(claim, setting.name, text, effect, kind, FASTER, "ratio", "speed_ups", conditions=(fast, slow))


def at_passes(setting: Setting, *conditions: str) -> pd.DataFrame:
    """Test accuracy or loss of every run once as many forward passes are spent as the cheapest of them spends in all.

    Between two evaluations it is interpolated, linearly in passes.
    """
    column = ACCURACY if setting.gap_unit == "accuracy" else TEST_LOSS
    table = setting.of(*conditions).sort_values("step")
    table = table.assign(passes=spent(setting, table))
    budget = table.groupby(["condition", "seed"])[SPENT].max().min()
    rows = [
        {"condition": condition, "seed": seed, "budget": budget, column: np.interp(budget, run[SPENT], run[column])}
        for (condition, seed), run in table.groupby(["condition", "seed"], sort=False)
    ]
    index = pd.MultiIndex.from_product([conditions, setting.seeds], names=["condition", "seed"])
    values = pd.DataFrame(rows, columns=["condition", "seed", "budget", column]).set_index(["condition", "seed"])
    return values.reindex(index).reset_index().assign(budget=budget)


def _better_for_the_same(setting: Setting, causal: str, uniform: str) -> Check:
    """That weighed credit is more accurate than uniform credit, or has a lower test loss, when passes are equal."""
    values, both, accurate = at_passes(setting, causal, uniform), (causal, uniform), setting.gap_unit == "accuracy"
    budget = f"after {values['budget'].iloc[0]:.0f} forward passes"
    if accurate:
        text, effect = f"{causal} is more accurate than {uniform} {budget}", paired(values, ACCURACY, *both)
    else:
        text, effect = f"{causal} has a lower test loss than {uniform} {budget}", paired(values, TEST_LOSS, *both[::-1])
    size, unit = (GAP_POINTS, "points") if accurate else (GAP_LOSS * float(values[TEST_LOSS].mean()), "loss")
    return Check("a", setting.name, text, effect, "larger", size, unit, _curves(uniform), conditions=both)


def _described(setting: Setting, host: str) -> Iterator[Check]:
    """Forward passes of every condition of a host to the training loss that they have in common."""
    names = [name for name in setting.conditions if name.split(", ")[0] == host]
    values = setting.matched(*names)
    values = values.assign(passes=spent(setting, values))
    for name in names:
        own = values[values["condition"] == name].set_index("seed")[SPENT]
        of, planned = {int(str(seed)): float(v) for seed, v in own.dropna().items()}, len(setting.seeds)
        note = f"never reached the matched loss: {planned - len(of)} of {name}" if len(of) < planned else ""
        per = int(setting.table.loc[setting.table["condition"] == name, PASSES].iloc[0])
        text = f"{name}: forward passes, {per} an update, at training loss {loss_of(values):.3g}"
        effect = mean_effect(of, planned, note)
        yield Check("a", setting.name, text, effect, "description", 1.0, "passes", "speed_ups", conditions=(name,))


def _at_equal_cost(setting: Setting) -> Iterator[Check]:
    """(a)"""
    for host in HOSTS:
        yield from _described(setting, host) if host in setting.conditions else ()
        for causal in _weighed(host, setting, *COUNTERFACTUAL):
            yield _sooner(setting, "a", causal, host, SPENT)
            yield _better_for_the_same(setting, causal, host)


def _at_equal_updates(setting: Setting) -> Iterator[Check]:
    """(b)"""
    for host in HOSTS:
        for causal in _weighed(host, setting, *COUNTERFACTUAL):
            yield _sooner(setting, "b", causal, host, UPDATES)


def _inverted(setting: Setting) -> Iterator[Check]:
    """(c)"""
    for host in HOSTS:
        for inverted in _weighed(host, setting, INVERTED):
            for other in (*_weighed(host, setting, COUNTERFACTUAL[0]), host):
                yield _sooner(setting, "c", other, inverted, UPDATES)


def _random(setting: Setting) -> Iterator[Check]:
    """(d)"""
    for host in HOSTS:
        for random in _weighed(host, setting, RANDOM):
            yield _sooner(setting, "d", random, host, UPDATES, "same")


def _curvature(setting: Setting) -> Iterator[Check]:
    """(e)"""
    for host in HOSTS:
        for causal in _weighed(host, setting, *COUNTERFACTUAL):
            yield sharper(setting, "e", f"{causal} is sharper than {host}", causal, host, "sharpness_against_loss")


def _gaps(setting: Setting) -> Iterator[Check]:
    """(f)"""
    for host in HOSTS:
        for causal in _weighed(host, setting, *COUNTERFACTUAL):
            for gap, inputs in ((NOISY_GAP, "noisy"), (CLEAN_GAP, "clean")):
                text = f"{causal} has a larger gap than {host} ({inputs} test inputs)"
                check = larger_gap(setting, "f", text, causal, host, gap, "gap_by_rule")
                yield undefined(check) if gap == CLEAN_GAP and setting.reuses_training else check


_CHECKS = (_at_equal_cost, _at_equal_updates, _inverted, _random, _curvature, _gaps)
_COLOURS = {"": BLACK, "signed": BLUE, "clipped": SKY, INVERTED: VERMILION, RANDOM: PURPLE}
_MARKERS = {"bptt": "o", "e-prop": "^"}


def _of_hosts(name: str) -> list[Experiment]:
    """A study for each host, for hosts are not compared."""
    return [Experiment(name), Experiment(f"{name}_eprop")]


class Khandoga2026(Paper):
    """Khandoga, Yuan and Sankarapu: causal instead of uniform credit, by masking parts of the input."""

    title = "Beyond uniform credit: causal credit assignment for policy optimization"
    citation = "Khandoga, Yuan and Sankarapu 2026, arXiv 2602.09331"
    sizes: ClassVar = {
        "quick": Size(_of_hosts("khandoga2026_quick"), "three tasks, 64 neurons, 5 seeds: about 6 minutes on 2 cores"),
        "default": Size(_of_hosts("khandoga2026"), "128 neurons, 10 seeds: about 40 minutes on 2 cores (extrapolated)"),
        "full": Size(
            _of_hosts("khandoga2026_full"), "longer trials, 20 seeds: about 3 hours on 2 cores (extrapolated)"
        ),
    }
    claims: ClassVar = {
        "a": Claim(
            "causal credit trains faster than uniform credit, at equal numbers of forward passes",
            "of language models on GSM8K: +0.8 to +1.1 points, and faster convergence to equal accuracy",
        ),
        "b": Claim("causal credit needs fewer updates (runs with masked segments not counted)"),
        "c": Claim("inverted importance hurts", "of language models: it does"),
        "d": Claim("random importance makes no difference"),
        "e": Claim("not asked there: sharper minima"),
        "f": Claim("not asked there: larger gaps"),
    }
    remark = (
        "The source asks it of language models under policy gradients, where a span is one of the model's own tokens; "
        "here it is asked of recurrent networks that learn from errors, where a segment is a stretch of the input. "
        "Cost: a forward pass is one run of the network over the batch. Uniform and random weights take 1 an update, "
        "signed, clipped and inverted ones 1 + segments = 6; the one backward pass of an update is not counted. So by "
        "passes causal credit has to need 6 times fewer updates to break even; with a backward pass counted as two "
        "forward ones, 8/3 times fewer. In (a) and (b), as in (c), a ratio above 1 says how many times as much the "
        "slower condition takes. Steps between evaluations are interpolated. The bound 2/η is of plain gradient "
        "descent; this is Adam."
    )
    styles: ClassVar = {
        f"{host}, {weighting}" if weighting else host: Style(colour, marker)
        for host, marker in _MARKERS.items()
        for weighting, colour in _COLOURS.items()
    }
    figures: ClassVar = {
        **{_curves(host): LossAgainstPasses(host) for host in HOSTS},
        "speed_ups": SpeedUps(HOSTS),
    }

    def checks(self, table: pd.DataFrame, level: Level = LOWEST_COMMON) -> Iterable[Check]:
        """Task by task, in the order of the claims."""
        return [
            check
            for setting in settings(by_rule(table), level)
            if not setting.finished.empty and PASSES in setting.finished
            for claim in _CHECKS
            for check in claim(setting)
        ]
