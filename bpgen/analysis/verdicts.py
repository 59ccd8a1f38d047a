"""From effects to verdicts: supported, not supported, or undecided at this number of seeds.

A check states a direction and the smallest effect of interest δ > 0 (SESOI), in its own unit, before the data are seen:

    kind         supported, if the data exclude   not supported, if the data exclude
    "larger"     effect <= 0                      effect >= δ      (so: the opposite, none, or too small to matter)
    "at most"    effect >= δ                      effect <= 0      (so: it is exceeded)
    "same"       |effect| >= δ                    |effect| <= δ    (so: they differ by more than δ)

and undecided otherwise; so is an effect that is the same in all seeds, which show no error to test it against. A check
of the kind "description" gets no verdict and takes part in no correction: its effect is shown, or it is not defined
("n/a"). One that could not fail here can be refuted, but not supported: it is "not testable" (Check.untestable).
"Exclude" is a one-sided test at level α/2 after Holm's correction over the checks of the same claim in the same
setting; α = 0.05. Student's test, its trimmed form with missing seeds at their worst, and flips of signs have to agree
(`bpgen.analysis.statistics`). With so few seeds that flips could not decide anything, the verdict "assumes normality".
Absence of evidence is never "not supported". If both columns hold, the effect is between 0 and δ: then "larger" is not
supported and "at most" is supported.

Error rates. If there is no effect (or the opposite one), "larger" is supported with probability <= α/2 whatever the
number of seeds; if the effect is δ or more, it is not supported with probability <= α/2. The same for the other kinds,
and over all checks of a claim together <= α. Simulated (tests/analysis), 2.5 % are at most 3.5 % for normal differences
and heavy tails (Student with 3 degrees of freedom); where one rule loses the fifth of its seeds with the largest or the
smallest values; and for one outlier in ten up to 10 seeds. They are not: one outlier in ten, always in the same
direction by 3 δ, makes it up to 6 % with 20 seeds and 11 % with 40, for the mean is then another one; differences as
skewed as an exponential up to 8 % on the long side; what collapses in one seed of twenty, by far, is not seen at all
in 60 % of samples of 10, so that a verdict is on the seeds that do not collapse.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from scipy import special, stats

from bpgen.analysis.statistics import Effect, Location, Side, holm

ALPHA = 0.05
POWER = 0.8
Kind = Literal["larger", "at most", "same", "description"]
Decision = Literal["supported", "not supported", "undecided", "not testable", "described", "n/a"]
Tests = list[tuple[Side, float]]  # all of them have to hold


@dataclass(frozen=True)
class Check:
    """One falsifiable statement and its effect.

    Attributes:
        claim: letter of the claim it belongs to; Holm's family, with the setting.
        setting: where it was looked at, e.g. "digits, alpha=1".
        text: the statement, as a sentence.
        effect: its effect over seeds.
        kind, smallest: direction and smallest effect of interest δ, see the module's docstring.
        unit: of the effect as shown: "points", "ratio" (the effect is a log ratio), "r" (artanh r), or any other.
        figure: name of the figure that shows it.
        untestable: why the statement could not fail here; empty where it could.
        conditions: which it compares; empty for all of its setting. They get seeds until it is decided.
    """

    claim: str
    setting: str
    text: str
    effect: Effect
    kind: Kind
    smallest: float
    unit: str
    figure: str
    untestable: str = ""
    conditions: tuple[str, ...] = ()

    def shown(self, value: float) -> float:
        """A value of the effect in its unit."""
        if self.unit == "ratio":
            return math.exp(value) if value < 700 else math.inf
        if self.unit == "r":
            return math.tanh(value)
        return 100 * value if self.unit == "points" else value

    @property
    def supports(self) -> Tests:
        """On which side of which bounds the effect has to be for the statement."""
        if self.kind == "same":
            return [("above", -self.smallest), ("below", self.smallest)]
        return [("above", 0.0)] if self.kind == "larger" else [("below", self.smallest)]

    @property
    def refutes(self) -> Tests:
        """On which side of which bound it has to be against the statement."""
        if self.kind == "same":
            return [("above", self.smallest)] if self.effect.estimate >= 0 else [("below", -self.smallest)]
        return [("below", self.smallest)] if self.kind == "larger" else [("above", 0.0)]

    @property
    def p_support(self) -> float:
        """p-value of the statement's negation, by Student's tests."""
        return max(self._p(test) for test in self.supports) if self.kind != "description" else 1.0

    @property
    def p_refute(self) -> float:
        """p-value of the statement, by Student's tests."""
        if self.kind == "description":
            return 1.0
        ((side, bound),) = self.refutes
        if self.kind == "same":  # |effect| <= δ is rejected on both sides; exact at the boundary for symmetric errors
            return min(1.0, self._p((side, bound)) + self._p((side, -bound)))
        return self._p((side, bound))

    def p_flips(self, tests: Tests) -> float:
        """p-value by flips of signs, of what one of these tests excludes."""
        return max(self.effect.p_flips(side, bound) for side, bound in tests)

    def _p(self, test: tuple[Side, float]) -> float:
        side, bound = test
        return self.effect.p_above(bound) if side == "above" else self.effect.p_below(bound)


@dataclass(frozen=True)
class Verdict:
    """What the data say about a check.

    Attributes:
        check, decision: the statement, and what became of it.
        p_support, p_refute: p-values after Holm.
        more_seeds: further seeds to plan that would decide it, if it is undecided.
        family: tests that Holm's correction was over.
        remark: "assumes normality", or that flips of signs do not agree.
    """

    check: Check
    decision: Decision
    p_support: float
    p_refute: float
    more_seeds: int | None
    family: int = 1
    remark: str = ""

    @property
    def power(self) -> float:
        """Probability of support with these seeds if the statement were true: of δ for "larger", of none for others.

        By Student's tests with the present spread over seeds; nan where there is none.
        """
        effect, check = self.check.effect, self.check
        if check.kind == "description" or not effect.testable:
            return math.nan
        parts = [at for side, _ in check.supports for at in effect.locations(side)]
        return min(self._power(at) for at in parts)

    def _power(self, at: Location) -> float:
        if not at.testable:
            return 0.0
        needed, away = special.stdtrit(at.df, 1 - ALPHA / 2 / self.family), self.check.smallest / at.se
        if self.check.kind == "same":
            return max(0.0, 2 * float(special.stdtr(at.df, away - needed)) - 1)
        return float(stats.nct.sf(needed, at.df, away))

    @property
    def bounds(self) -> tuple[float, float]:
        """Simultaneous with the others of its family (Bonferroni; Dunn 1961), of all locations of the effect."""
        return self.check.effect.bounds(1 - ALPHA / self.family)


def judge(checks: Iterable[Check], alpha: float = ALPHA) -> list[Verdict]:
    """A verdict for every check, in their order."""
    checks = list(checks)  # a paper may yield them
    verdicts: dict[int, Verdict] = {}
    families: dict[tuple[str, str], list[int]] = {}
    for index, check in enumerate(checks):
        families.setdefault((check.claim, check.setting), []).append(index)
    for members in families.values():
        tested = [i for i in members if checks[i].effect.n > 0 and checks[i].kind != "description"]
        found = [
            dict(zip(tested, holm([p(checks[i]) for i in tested]), strict=True))
            for p in (
                lambda c: c.p_support,
                lambda c: c.p_refute,
                lambda c: c.p_flips(c.supports),
                lambda c: c.p_flips(c.refutes),
            )
        ]
        for i in members:
            p, q, *flips = (adjusted.get(i, 1.0) for adjusted in found)
            verdicts[i] = _verdict(checks[i], p, q, flips, max(1, len(tested)), alpha)
    return [verdicts[i] for i in range(len(checks))]


def _verdict(check: Check, p: float, q: float, flips: list[float], family: int, alpha: float) -> Verdict:
    """From p-values after Holm, for and against: of Student's tests, and of flips of signs."""
    decided = [p <= alpha / 2 and not check.untestable, q <= alpha / 2]
    against = [holds and flipped > alpha / 2 for holds, flipped in zip(decided, flips, strict=True)]
    remark = ""
    if any(against):
        possible = family * 2.0 ** -len(check.effect.values) <= alpha / 2  # with so many seeds flips can decide
        remark = "flips of signs do not agree" if possible else "assumes normality"
        decided = [holds and not (possible and doubt) for holds, doubt in zip(decided, against, strict=True)]
    decision = decision_of(check, *decided)
    more = more_seeds(check, alpha / family) if decision == "undecided" else None
    return Verdict(check, decision, p, q, more, family, remark)


def decision_of(check: Check, supports: bool, refutes: bool) -> Decision:
    """What it means that the data are for a check, or against it, or both."""
    if check.kind == "description":
        return "described" if check.effect.n else "n/a"
    if supports and refutes:
        return "not supported" if check.kind == "larger" else "supported"
    if not (supports or refutes):
        return "not testable" if check.untestable else "undecided"
    return "supported" if supports else "not supported"


def more_seeds(check: Check, alpha: float = ALPHA, most: int = 10_000) -> int | None:
    """Further seeds to plan that would decide the check with 80 % probability, if what is estimated were the truth.

    By the normal approximation with the present spread over seeds, and with the present share of seeds without a value:
    the smallest n with (t_{1-α/2} + z_{0.8}) se √(n_now / n) <= distance from the bound, for all that have to be beyond
    it. None without an estimate, or beyond `most`. A rough guide: from few seeds the estimate itself is uncertain. Nor
    is it for use again and again: adding seeds until there is a verdict makes errors more likely than stated.
    """
    effect = check.effect
    if not (math.isfinite(effect.estimate) and effect.testable):
        return None
    needed = min(_seeds(effect, tests, alpha, most) for tests in (check.supports, check.refutes))
    planned = math.ceil(needed * effect.planned / effect.n)
    return planned - effect.planned if needed < most else None


def _seeds(effect: Effect, tests: Tests, alpha: float, most: int) -> int:
    """Seeds with a value at which all of these tests succeed; `most` where no number does."""

    def enough(n: int, at: Location, distance: float) -> bool:
        df = n * (at.df + 1) / effect.n - 1
        half = (special.stdtrit(df, 1 - alpha / 2) + special.ndtri(POWER)) * at.se * math.sqrt(effect.n / n)
        return bool(half <= distance)

    needed = effect.n + 1
    for side, bound in tests:
        for at in effect.locations(side):
            distance = at.estimate - bound if side == "above" else bound - at.estimate
            if distance <= 0 or not at.testable:
                return most
            own = partial(enough, at=at, distance=distance)
            needed = max(needed, bisect_left(range(most), True, lo=needed, key=own))  # more are never worse
    return needed
