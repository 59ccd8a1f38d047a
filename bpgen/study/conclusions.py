"""What a study found, in sentences: every condition against the first of its setting, in gap and in sharpness.

Differences are within seeds, at the lowest training loss that both reach (`bpgen.analysis.matching`). "Larger" or
"smaller" is said where a two-sided t-test over three seeds or more excludes no difference at 5 %, after Holm over the
comparisons of one measure in the setting; else it is undecided at this number of seeds. The intervals are of 95 %, each
on its own. Where seeds were added in looks, the test is that of `bpgen.analysis.sequential`, after all looks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pandas as pd

from bpgen.analysis.matching import LOSS, finished
from bpgen.analysis.sequential import as_looked_at, p_of_looks, planned
from bpgen.analysis.settings import SHARPNESS, Setting, settings
from bpgen.analysis.spending import p_value
from bpgen.analysis.statistics import Effect, Side, holm, paired
from bpgen.columns import written

_ALPHA = 0.05
_LEAST = 3  # seeds: two that happen to agree prove nothing
_Place = tuple[str, str, str]  # setting, measure, condition


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
    conditions: tuple[str, str]


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


class _Comparison(NamedTuple):
    """A condition and the reference, at their training loss."""

    measure: _Measure
    condition: str
    reference: str
    level: float
    effect: Effect


def conclusions(table: pd.DataFrame) -> list[Conclusion]:
    """All comparisons that a study's table allows; none where fewer than two conditions have a finished run."""
    looks = planned(table)
    found: dict[_Place, list[_Comparison]] = {}
    for at in as_looked_at(table) if looks else [table]:
        for place, one in _comparisons(at):
            found.setdefault(place, []).append(one)
    families: dict[tuple[str, str], list[_Place]] = {}
    for place in found:
        families.setdefault(place[:2], []).append(place)
    concluded = []
    for members in families.values():
        p = holm([_two_sided([one.effect for one in found[place]], looks) for place in members])
        for (setting, _, _), adjusted, ones in zip(members, p, map(found.get, members), strict=True):
            concluded.append(_conclusion(setting, (ones or [])[-1], adjusted <= _ALPHA))
    return concluded


def undecided(table: pd.DataFrame) -> set[str]:
    """The conditions of a study that take part in a comparison of gap or sharpness that is undecided."""
    found = [one for one in conclusions(table) if one.verdict == "undecided"] if not finished(table).empty else []
    return {condition for one in found for condition in one.conditions}


def _two_sided(effects: list[Effect], looks: list[int]) -> float:
    """p-value of no effect, at the last of several looks or at the only one."""
    if not looks:
        return min(1.0, 2 * min(effects[-1].p_above(0.0), effects[-1].p_below(0.0)))
    sides: tuple[Side, Side] = ("above", "below")
    return min(1.0, 2 * min(p_value(looks, p_of_looks(effects, looks, side)) for side in sides))


def _comparisons(table: pd.DataFrame) -> Iterator[tuple[_Place, _Comparison]]:
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
                for condition in conditions[1:]:
                    one = _compared(setting, measure, condition, conditions[0])
                    yield (setting.name, measure.name, condition), one


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


def _compared(setting: Setting, measure: _Measure, condition: str, reference: str) -> _Comparison:
    values = setting.matched(reference, condition)
    effect = paired(values, measure.column, condition, reference, measure.log)
    return _Comparison(measure, condition, reference, float(values["level"].iloc[0]), effect)


def _conclusion(setting: str, of: _Comparison, decided: bool) -> Conclusion:
    measure, condition, reference, level, effect = of
    decided = decided and effect.n >= _LEAST
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
    sized_by = (effect.n, effect.planned, effect.note, (condition, reference))
    return Conclusion(setting, measure.name, text, statement, verdict, shown, interval, *sized_by)
