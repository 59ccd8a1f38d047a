"""Verdicts while seeds are added: at planned looks, until every check is decided, at the error rates of one look.

A study's table says in `looks` how many seeds were planned for each look, and in `look` for which one a run was done.
At a look every test that a verdict needs (`bpgen.analysis.verdicts`: Student's, its trimmed form, flips of signs where
there are enough seeds for them) has to succeed at the level of that look (`bpgen.analysis.spending`), and so has
Student's after Hall's (1992) removal of skewness, which small levels make worse. Of a check's looks comes one p-value,
and Holm's correction is over these. What is decided stays decided. A condition gets no more seeds when every check it
takes part in is decided: from then on it is in no later look.

Error rates, simulated (tests/analysis/test_sequential.py; 2,000 studies each), 5 to 64 seeds, where 2.5 % are meant:
at most 2.2 % for normal differences, 0.9 % for heavy tails (Student, 3 degrees of freedom), 3.2 % for those as skewed
as an exponential, on the long side. Differences as skewed as a log-normal (skewness 6) make up to 7 %.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy import special, stats

from bpgen.analysis.spending import levels, p_value, spent
from bpgen.analysis.statistics import Effect, Side, holm
from bpgen.analysis.verdicts import ALPHA, Check, Tests, Verdict, decision_of, judge

LOOK, LOOKS = "look", "looks"  # columns of a study's table
Checks = Callable[[pd.DataFrame], Iterable[Check]]
_Key = tuple[str, str, tuple[str, ...], int]


@dataclass(frozen=True)
class LookVerdict(Verdict):
    """A verdict after one or more looks; its p-values are of all looks, after Holm.

    Attributes:
        looks: seeds at every planned look.
        look: the last one so far, counted from 1; the effect is of its seeds.
        decided: the one since which the decision has been what it is.
    """

    looks: tuple[int, ...] = ()
    look: int = 0
    decided: int = 0

    def in_words(self, decided: int) -> str:
        """Where in the looks it stands."""
        if self.decision in ("described", "n/a"):
            return ""
        if self.decision == "undecided":
            return f"after look {self.look} of {len(self.looks)}"
        normal = not _enough_for_flips(self.looks[decided - 1], levels(self.looks, ALPHA / 2)[decided - 1])
        return f"at look {decided} of {len(self.looks)}{', assumes normality' if normal else ''}"

    @property
    def bounds(self) -> tuple[float, float]:
        """Simultaneous with the others of its family and with all looks (repeated; Jennison and Turnbull 1989)."""
        level = levels(self.looks, ALPHA / 2 / self.family)[self.look - 1]
        return self.check.effect.bounds(1 - 2 * level)


def planned(table: pd.DataFrame) -> list[int]:
    """Seeds at every look of a study; empty where it was planned with one number of seeds."""
    return [int(n) for n in str(table[LOOKS].iloc[0]).split()] if LOOKS in table and len(table) else []


def with_looks(table: pd.DataFrame, looks: Sequence[int]) -> pd.DataFrame:
    """The table of a study whose seeds 0, 1, ... were added in looks; as it is, where there were none."""
    if not looks or table.empty:
        return table
    look = np.searchsorted(np.asarray(looks), table["seed"].to_numpy(int), side="right") + 1
    return table.assign(**{LOOK: look, LOOKS: " ".join(map(str, looks))})


def as_looked_at(table: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The table at each look so far: of the conditions that still took part, the seeds until then."""
    last = table.groupby(["task", "alpha", "condition"], dropna=False)[LOOK].transform("max")
    for look in range(1, int(table[LOOK].max()) + 1):
        yield table[(table[LOOK] <= look) & (last >= look)]


def judge_study(checks: Checks, table: pd.DataFrame) -> list[Verdict]:
    """A verdict for every check that a study's table allows: at its looks, or at its one number of seeds.

    Args:
        checks: from a table to its checks, such as `Paper.checks`.
        table: of the study.
    """
    looks = planned(table)
    if not looks:
        return judge(checks(table))
    study, verdicts = Looking(looks), list[LookVerdict]()
    for at in as_looked_at(table):
        verdicts = study.look(checks(at))
    return list(verdicts)


@dataclass
class _History:
    """A check at the looks so far: as it was last, and its p-values for and against."""

    check: Check
    support: list[float] = field(default_factory=list)
    refute: list[float] = field(default_factory=list)


class Looking:
    """Checks that are looked at again and again.

    Args:
        looks: seeds at every planned look.
    """

    def __init__(self, looks: Sequence[int]) -> None:
        self.looks, self.done = tuple(looks), 0
        self._histories: dict[_Key, _History] = {}
        self._verdicts: dict[_Key, LookVerdict] = {}

    def look(self, checks: Iterable[Check]) -> list[LookVerdict]:
        """The verdicts after the next look, also on checks that are in it no more."""
        level = levels(self.looks, ALPHA / 2)[self.done]
        for key, check in _with_keys(checks):
            history = self._histories.setdefault(key, _History(check))
            history.check = check
            missed = [1.0] * (self.done - len(history.support))
            history.support += [*missed, _p(check, level, check.p_support, True)]
            history.refute += [*missed, _p(check, level, check.p_refute, False)]
        self.done += 1
        for key, verdict in self._judged():
            before = self._verdicts.get(key)
            same = before is not None and before.decision == verdict.decision
            at = before.decided if before is not None and same else verdict.look
            self._verdicts[key] = replace(verdict, decided=at, remark=verdict.in_words(at))
        return list(self._verdicts.values())

    def _judged(self) -> Iterator[tuple[_Key, LookVerdict]]:
        families: dict[tuple[str, str], list[_Key]] = {}
        for key in self._histories:
            families.setdefault(key[:2], []).append(key)
        for members in families.values():
            own = {key: self._histories[key] for key in members}
            tested = [k for k, h in own.items() if h.check.effect.n > 0 and h.check.kind != "description"]
            support = holm([p_value(self.looks, own[key].support) for key in tested])
            refute = holm([p_value(self.looks, own[key].refute) for key in tested])
            adjusted = dict(zip(tested, zip(support, refute, strict=True), strict=True))
            for key, history in own.items():
                check, look, (p, q) = history.check, len(history.support), adjusted.get(key, (1.0, 1.0))
                decision = decision_of(check, p <= ALPHA / 2 and not check.untestable, q <= ALPHA / 2)
                yield key, LookVerdict(check, decision, p, q, None, max(1, len(tested)), "", self.looks, look)


def undecided(verdicts: Iterable[Verdict], table: pd.DataFrame) -> set[str]:
    """The conditions of a study that take part in a check without a verdict."""
    found: set[str] = set()
    for verdict in verdicts:
        check = verdict.check
        if verdict.decision == "undecided":
            named = table["rule"].isin(check.conditions) | table["condition"].isin(check.conditions)
            found |= set(table.loc[named if check.conditions else table.index, "condition"])
    return found


def spending_in_words(table: pd.DataFrame) -> str:
    """How often a study was looked at, and what of the error rates that has spent; empty for one look."""
    looks = planned(table)
    if not looks:
        return ""
    done = int(table[LOOK].max())
    used = spent(looks, ALPHA / 2)[done - 1]
    at = ", ".join(f"{100 * level:.2g}" for level in levels(looks, ALPHA / 2)[:done])
    seeds = Counter(table.groupby("condition")[LOOK].max().map(lambda look: looks[int(look) - 1]))
    stopped = ", ".join(f"{count} at {n}" for n, count in sorted(seeds.items()))
    return (
        f"Seeds were added until decided: {done} of {len(looks)} looks, planned at {', '.join(map(str, looks))} seeds. "
        f"Levels of {at} % on each side spent {100 * used:.2g} of 2.5 % (Lan and DeMets 1983; Kim and DeMets 1987). "
        f"Conditions by the seeds they were last looked at: {stopped}."
    )


def _with_keys(checks: Iterable[Check]) -> Iterator[tuple[_Key, Check]]:
    """Checks with what they are called at every look: texts name the matched loss, which moves."""
    seen: Counter[tuple[str, str, tuple[str, ...]]] = Counter()
    for check in checks:
        name = (check.claim, check.setting, check.conditions)
        seen[name] += 1
        yield (*name, seen[name]), check


def p_of_looks(effects: Sequence[Effect], looks: Sequence[int], side: Side) -> list[float]:
    """At every look the p-value of no effect, against one on a side of zero: the largest of the tests' that agree."""
    each = levels(looks, ALPHA / 2)
    found = []
    for effect, level in zip(effects, each, strict=False):
        p = effect.p_above(0.0) if side == "above" else effect.p_below(0.0)
        found.append(_all_tests(effect, [(side, 0.0)], level, p))
    return found


def _p(check: Check, level: float, p: float, support: bool) -> float:
    if check.kind == "description" or check.effect.n == 0:
        return 1.0
    return _all_tests(check.effect, check.supports if support else check.refutes, level, p)


def _all_tests(effect: Effect, tests: Tests, level: float, p: float) -> float:
    """The largest p-value of the tests that have to agree; further ones are asked only where Student's succeeds."""
    if p > level:
        return p
    flips = 0.0
    if _enough_for_flips(len(effect.values), level):
        flips = max(effect.p_flips(side, bound) for side, bound in tests)
    return max(p, flips, *(without_skewness(effect, side, bound) for side, bound in tests))


def _enough_for_flips(n: int, level: float) -> bool:
    """Whether so many signs could be flipped to a p-value of this level."""
    return n == 0 or 2.0**-n <= level


def without_skewness(effect: Effect, side: Side, bound: float) -> float:
    """One-sided p-value of a mean, by Student's t of Hall's transformation (1992, JRSS B 54:221).

    With W the distance from the bound in standard deviations and γ the skewness, of n seeds:
    √n (W + γ W²/3 + γ² W³/27 + γ/(6n)). Effects that are no mean of their values over seeds have 0: it asks nothing.
    """
    x, n = np.array(list(effect.values.values())), len(effect.values)
    if n < 3 or not effect.testable or len(effect.locations(side)) < 2:
        return 0.0
    distance = x - bound if side == "above" else bound - x
    skewness = float(stats.skew(distance, bias=False))
    w = float(distance.mean() / distance.std(ddof=1))
    t = math.sqrt(n) * (w + skewness * w**2 / 3 + skewness**2 * w**3 / 27 + skewness / (6 * n))
    return float(special.stdtr(n - 1, -t))
