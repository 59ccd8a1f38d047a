"""Checks at matched training loss that several papers make: a larger gap, a sharper minimum.

What counts as the smallest effect of interest is stated here, once, and printed with every verdict. Curvatures have
one, for "sharper" and for "as sharp": with two, a rule could be both.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd

from bpgen.analysis.settings import SHARPNESS, Setting
from bpgen.analysis.statistics import not_measured, paired
from bpgen.analysis.verdicts import Check

GAP_POINTS = 0.01  # smallest gap difference of interest: one point of accuracy
GAP_LOSS = 0.05  # where a task has no accuracy: of the matched training loss
CURVATURE = math.log(1.1)  # a tenth sharper; two curvatures within a tenth are the same


def larger_gap(setting: Setting, claim: str, text: str, more: str, less: str, gap: str, figure: str) -> Check:
    """That one condition has a larger gap than another where training losses are equal; `gap` is one of `GAPS`."""
    values = setting.matched(more, less)
    at = loss_of(values)
    smallest, unit = (GAP_POINTS, "points") if setting.gap_unit == "accuracy" else (GAP_LOSS * at, "loss")
    effect = paired(values, setting.gap(gap), more, less)
    text = f"{text}, at training loss {at:.3g}"
    return Check(claim, setting.name, text, effect, "larger", smallest, unit, figure, conditions=(more, less))


def sharper(setting: Setting, claim: str, text: str, more: str, less: str, figure: str) -> Check:
    """That one condition is sharper than another where their training losses are equal."""
    values = setting.matched(more, less)
    effect = paired(values, SHARPNESS, more, less, log=True)
    text = f"{text}, at training loss {loss_of(values):.3g}"
    return Check(claim, setting.name, text, effect, "larger", CURVATURE, "ratio", figure, conditions=(more, less))


def loss_of(values: pd.DataFrame) -> float:
    """The training loss at which values are matched."""
    return float(values["level"].iloc[0]) if len(values) else math.nan


def undefined(check: Check) -> Check:
    """The check of a gap between inputs that are the same."""
    same = not_measured(check.effect.planned, note="not defined: the trials of the test are those of training")
    return replace(check, kind="description", effect=same)
