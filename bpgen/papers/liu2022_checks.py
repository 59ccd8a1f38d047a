"""The checks of Liu et al. 2022, claim by claim; what each letter claims stands in `bpgen.papers.liu2022`.

What counts as the smallest effect of interest is stated here or in `bpgen.papers.matched`, once, and printed with every
verdict.

The bounds are those of plain gradient descent and of all weights; sharpness of W_rec is a lower bound of theirs, so a
sharpness above its bound is a violation, and one below says nothing. Nor does one far below: that λ_max settles at the
bound is put to the test only where some run comes near it, on all weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bpgen.analysis.correlation import correlation
from bpgen.analysis.divergence import divergence
from bpgen.analysis.settings import (
    CLEAN_GAP,
    GENERALIZATION,
    LOG_LOSS,
    LOG_SHARPNESS,
    NOISY_GAP,
    ROBUSTNESS,
    SHARPNESS,
    Setting,
)
from bpgen.analysis.statistics import Effect, mean_effect, paired
from bpgen.analysis.variability import spread
from bpgen.analysis.verdicts import Check, Kind
from bpgen.papers.matched import CURVATURE, larger_gap, sharper, undefined

REFERENCE, THREE_FACTOR = "bptt", "three_factor"
LOCAL = (THREE_FACTOR, "rflo")
REMEDIES = ("three_factor, early lr", "mdgl", "modprop")

SPREAD = math.log(1.5)  # half as variable again
NEAR = math.log(0.8)  # a run whose curvature is below this share of its bound does not test the bound
DIVERGED_SHARE = 0.2  # one run in five more
CORRELATION = math.atanh(0.3)


def _local(setting: Setting) -> list[str]:
    return [rule for rule in LOCAL if rule in setting.conditions]


def _gaps(setting: Setting) -> Iterator[Check]:
    """(a), with and without noise on the test inputs."""
    for rule in _local(setting):
        for gap, inputs in ((NOISY_GAP, "noisy"), (CLEAN_GAP, "clean")):
            text = f"{rule} has a larger gap than bptt ({inputs} test inputs)"
            check = larger_gap(setting, "a", text, rule, REFERENCE, gap, "gap_by_rule")
            yield undefined(check) if gap == CLEAN_GAP and setting.reuses_training else check


def _parts(setting: Setting) -> Iterator[Check]:
    """(g): noise on training inputs, and noisy test against noisy training inputs; runs of version 0.1 have neither."""
    for rule in _local(setting):
        for gap, text in (
            (ROBUSTNESS, "noise on its training inputs costs {} more than it costs bptt (robustness)"),
            (GENERALIZATION, "{} loses more than bptt from noisy training to noisy test inputs (generalization)"),
        ):
            check = larger_gap(setting, "g", text.format(rule), rule, REFERENCE, gap, "gap_by_rule")
            if check.effect.n == 0:
                check = replace(check, kind="description")
            yield undefined(check) if gap == GENERALIZATION and setting.reuses_training else check


def _spreads(setting: Setting) -> Iterator[Check]:
    """(b)"""
    for rule in _local(setting):
        text = f"the gap of {rule} varies more over seeds than that of bptt (noisy test inputs)"
        effect = spread(setting.matched(rule, REFERENCE), setting.gap(), rule, REFERENCE)
        both = (rule, REFERENCE)
        yield Check("b", setting.name, text, effect, "larger", SPREAD, "ratio", "gap_by_rule", conditions=both)


def _correlations(setting: Setting) -> Iterator[Check]:
    """(c): within rules at matched loss, and at the end of training given the loss; pooled as a description."""
    rules = [REFERENCE, *_local(setting)]
    at_loss, last = setting.matched(*rules), setting.planned(setting.last(*rules))
    for how, values, within, given in (
        ("pooled over rules, at matched training loss", at_loss, False, None),
        ("within rules, at matched training loss", at_loss, True, None),
        ("within rules, at the end of training, given the training loss", last, True, LOG_LOSS),
    ):
        text = f"gap and log sharpness correlate {how}"
        effect = correlation(values, LOG_SHARPNESS, setting.gap(), within, given)
        kind: Kind = "larger" if within else "description"
        of = tuple(rules)
        yield Check("c", setting.name, text, effect, kind, CORRELATION, "r", "gap_against_sharpness", conditions=of)


def _curvature(setting: Setting) -> Iterator[Check]:
    """(d): on the way, and where both rules have the lowest common loss."""
    figure = "sharpness_against_loss"
    for rule in _local(setting):
        effect = paired(setting.along(rule, REFERENCE), SHARPNESS, rule, REFERENCE)
        text = f"{rule} is sharper than bptt on average over the training losses that both pass"
        both = (rule, REFERENCE)
        yield Check("d", setting.name, text, effect, "larger", CURVATURE, "ratio", figure, conditions=both)
        yield sharper(setting, "d", f"{rule} is sharper than bptt", rule, REFERENCE, figure)


def _theorem(setting: Setting) -> Iterator[Check]:
    """(e)"""
    for rule in [REFERENCE, *_local(setting)]:
        yield from _settles(setting, rule)
    for rule in _named(setting, "scaled_bptt"):
        yield sharper(setting, "e", f"{rule} is sharper than bptt", rule, REFERENCE, "sharpness_against_loss")
        if THREE_FACTOR in setting.conditions:
            yield _as_sharp(setting, rule, THREE_FACTOR)
    if THREE_FACTOR in setting.conditions:
        shorter = [*_named(setting, "norm_matched"), *(c for c in _named(setting, REFERENCE) if c != REFERENCE)]
        yield from (_as_sharp(setting, rule, THREE_FACTOR) for rule in shorter)
    for rule in [*_named(setting, "noisy_bptt"), *_named(setting, "unscaled")]:
        yield _as_sharp(setting, rule, REFERENCE)


def _named(setting: Setting, rule: str) -> list[str]:
    """Conditions of a control: under its own name, and with an option behind a comma."""
    return [condition for condition in setting.conditions if condition.split(",")[0] == rule]


def _as_sharp(setting: Setting, rule: str, other: str) -> Check:
    effect = paired(setting.matched(rule, other), SHARPNESS, rule, other, log=True)
    text = f"{rule} is as sharp as {other} at matched training loss"
    figure = "sharpness_against_loss"
    return Check("e", setting.name, text, effect, "same", CURVATURE, "ratio", figure, conditions=(rule, other))


def _settles(setting: Setting, rule: str) -> Iterator[Check]:
    """λ_max against its bound; where it is that of W_rec, also with the ρ of W_rec, as a description."""
    bound = "2/η" if rule == REFERENCE else "2/(ηρ)"
    text = f"{rule} settles no sharper than {bound} (λ_max as measured; median of the second half of training)"
    block = setting.sharpness_of
    effect = _excess(setting, rule, "alignment/rho")
    near = max(effect.values.values(), default=-math.inf) >= NEAR
    untestable = "no run comes near the bound" if not near else "" if block == "all" else f"λ_max of {block} only"
    figure = "sharpness_against_steps"
    yield Check("e", setting.name, text, effect, "at most", CURVATURE, "ratio", figure, untestable, (rule,))
    if rule != REFERENCE and f"alignment/rho/{block}" in setting.finished:
        text = f"{rule} settles no sharper than {bound}, with the ρ of {block} alone"
        effect = _excess(setting, rule, f"alignment/rho/{block}")
        yield Check("e", setting.name, text, effect, "description", CURVATURE, "ratio", figure, conditions=(rule,))


def _excess(setting: Setting, rule: str, rho: str) -> Effect:
    """log(λ_max / bound), median over the evaluations of the second half of training, mean over seeds."""
    by_seed: dict[int, float] = {}
    for seed, run in setting.of(rule).groupby("seed"):
        late = run[run["step"] >= run["step"].max() / 2]
        aligned = np.ones(len(late)) if rule == REFERENCE else late[rho].to_numpy(float)
        index = setting.all_sharpness(late) * late["lr"].to_numpy(float) * aligned / 2
        index = index[np.isfinite(index) & (index > 0)]
        if len(index):
            by_seed[int(str(seed))] = float(np.log(np.median(index)))
    return mean_effect(by_seed, len(setting.seeds))


def _remedies(setting: Setting) -> Iterator[Check]:
    """(f)"""
    if THREE_FACTOR not in setting.conditions:
        return
    for remedy in (rule for rule in REMEDIES if rule in setting.conditions):
        text = f"{remedy} has a smaller gap than three_factor (noisy test inputs)"
        yield larger_gap(setting, "f", text, THREE_FACTOR, remedy, NOISY_GAP, "remedies")
        yield sharper(setting, "f", f"{remedy} is less sharp than three_factor", THREE_FACTOR, remedy, "remedies")


def _divergence(setting: Setting) -> Iterator[Check]:
    """(h), where any run diverged: it is not left to the effects of those that did not."""
    for rule in _local(setting):
        effect = divergence(setting.table, rule, REFERENCE)
        if effect.note:
            text = f"{rule} diverges in more seeds than bptt"
            figure, both = "sharpness_against_steps", (rule, REFERENCE)
            yield Check("h", setting.name, text, effect, "larger", DIVERGED_SHARE, "points", figure, conditions=both)


CHECKS = (_gaps, _spreads, _correlations, _curvature, _theorem, _remedies, _parts, _divergence)
