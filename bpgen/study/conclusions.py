"""What a study found, in sentences: every condition against the first of its setting, in gap and in sharpness.

Differences are within seeds, at the lowest training loss that both reach (`bpgen.analysis.matching`). "Larger" or
"smaller" is said where a two-sided t-test over three seeds or more excludes no difference at 5 %, after Holm over the
comparisons of one measure in the setting; else it is undecided at this number of seeds. The intervals are of 95 %, each
on its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pandas as pd

from bpgen.analysis.matching import LOSS
from bpgen.analysis.settings import SHARPNESS, Setting, settings
from bpgen.analysis.statistics import Effect, holm, paired
from bpgen.columns import written

_ALPHA = 0.05
_LEAST = 3  # seeds: two that happen to agree prove nothing


class Conclusion(NamedTuple):
    """One comparison: where, of what, a sentence and a heading, larger/smaller/undecided, the numbers as shown."""

    setting: str
    measure: str
    text: str
    statement: str
    verdict: str
    effect: str
    interval: str
    n: int
    planned: int
    note: str


class _Measure(NamedTuple):
    name: str
    column: str
    log: bool
    scale: float
    unit: str

    def shown(self, value: float, unit: bool = True) -> str:
        if not math.isfinite(value):
            return "?"
        if self.log:
            return f"{math.exp(min(value, 50)):.3g}{' times' if unit else ''}"
        return f"{written('{:+.3g}', self.scale * value)}{f' {self.unit}' if unit else ''}"


def conclusions(table: pd.DataFrame) -> list[Conclusion]:
    """All comparisons that a study's table allows; none where fewer than two conditions have a finished run."""
    found: list[Conclusion] = []
    for setting in settings(table):
        conditions = list(dict.fromkeys(setting.finished["condition"]))
        if len(conditions) < 2 or LOSS not in setting.finished:
            continue
        accurate = setting.gap_unit == "accuracy"
        scale, unit = (100, "points") if accurate else (1, "of loss")
        for measure in (
            _Measure("gap", setting.gap(), False, scale, unit),
            _Measure("sharpness", SHARPNESS, True, 1, ""),
        ):
            if measure.column in setting.finished and setting.finished[measure.column].notna().any():
                found += _compared(setting, conditions, measure)
    return found


def in_words(found: Iterable[Conclusion]) -> list[str]:
    """The conclusions as lines for a terminal, by setting."""
    lines: list[str] = []
    before = ""
    for one in found:
        if one.setting != before:
            lines += ["", f"{one.setting}:"]
            before = one.setting
        lines.append(f"  {one.text}")
    return lines[1:]


def few_pairs(n: int) -> str:
    """What so few pairs cannot show: the smallest p of a two-sided test by flips of signs; empty where it can be < 5 %.

    All 2^n patterns of signs are as likely without an effect, and two of them are the most extreme.
    """
    least = 2.0 ** (1 - n)
    return f"with {n} pairs a permutation p is at least {least:.2g}" if n >= 2 and least > _ALPHA else ""


def _compared(setting: Setting, conditions: list[str], measure: _Measure) -> Iterator[Conclusion]:
    reference, others = conditions[0], conditions[1:]
    effects = []
    for condition in others:
        values = setting.matched(reference, condition)
        level = float(values["level"].iloc[0])
        effects.append((condition, level, paired(values, measure.column, condition, reference, measure.log)))
    p = holm([min(1.0, 2 * min(e.p_above(0.0), e.p_below(0.0))) for _, _, e in effects])
    for (condition, level, effect), adjusted in zip(effects, p, strict=True):
        yield _conclusion(
            setting.name, measure, (condition, reference, level), effect, adjusted <= _ALPHA and effect.n >= _LEAST
        )


def _conclusion(
    setting: str, measure: _Measure, of: tuple[str, str, float], effect: Effect, decided: bool
) -> Conclusion:
    condition, reference, level = of
    larger = effect.estimate > 0
    verdict = ("larger" if larger else "smaller") if decided else "undecided"
    low, high = effect.interval()
    interval = f"{measure.shown(low, False)} to {measure.shown(high, False)}" if effect.df >= 1 else "none"
    n = f"n = {effect.n}" if effect.n == effect.planned else f"n = {effect.n} of {effect.planned}"
    shown = measure.shown(effect.estimate)
    sized = f"{shown} (95 % interval {interval}), {n}" if effect.df >= 1 else f"{shown}, {n}: too few seeds"
    sized += f" ({few})" if (few := few_pairs(effect.n)) and effect.df >= 1 else ""
    what = {"gap": ("a larger gap", "a smaller gap", "gap"), "sharpness": ("sharper", "flatter", "sharpness")}
    more, less, name = what[measure.name]
    verb = "has" if measure.name == "gap" else "is"
    if decided:
        text = f"{condition} {verb} {more if larger else less} than {reference} at training loss {level:.3g}: {sized}"
    else:
        text = f"undecided whether {condition} differs from {reference} in {name} at training loss {level:.3g}: {sized}"
    statement = f"{name} of {condition} against {reference}, at training loss {level:.3g}"
    return Conclusion(
        setting, measure.name, text, statement, verdict, shown, interval, effect.n, effect.planned, effect.note
    )
