"""What a check is, how it is registered, and the comparisons that all checks share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from bpgen.errors import BpgenError, RuleError
from bpgen.rules.conformance.case import Case, Inapplicable
from bpgen.rules.conformance.problem import gap
from bpgen.rules.traits import Traits

Status = Literal["pass", "fail", "declared", "skipped"]


class Outcome(NamedTuple):
    """What came of a check: message is why it failed, what was declared, or why it was skipped."""

    status: Status
    message: str
    seconds: float


@dataclass(frozen=True)
class Check:
    """One property of one rule. Call it, or let pytest: an AssertionError says what is wrong.

    name: the property. why: what it protects from. skipped: why it does not apply to this rule, or "". declared: the
    reason that the rule gives for not having the property, or "".
    """

    name: str
    why: str
    case: Case
    examine: Callable[[Case], None] = field(repr=False)
    skipped: str = ""
    declared: str = ""

    def __str__(self) -> str:
        return self.name

    def __call__(self) -> Outcome:
        """Examine the rule.

        Raises:
            AssertionError: the rule lacks the property, or has it although it declares that it does not.
        """
        outcome = self.run()
        if outcome.status == "fail":
            raise AssertionError(f"{self.case.name}: {self.name}: {outcome.message}\nWhy it matters: {self.why}")
        return outcome

    def run(self) -> Outcome:
        """Examine the rule and say what came of it; never raises."""
        start, status, message = time.perf_counter(), "pass", ""
        if self.skipped:
            return Outcome("skipped", self.skipped, 0.0)
        try:
            with torch.random.fork_rng(devices=[]):  # the user's own random stream is left as found
                self.examine(self.case)
        except Inapplicable as reason:
            status, message = "skipped", str(reason)
        except (AssertionError, RuleError) as error:
            status, message = "fail", str(error)
        except Exception as error:
            status, message = "fail", f"it raised {type(error).__name__}: {error}"
        if self.declared and status == "fail":
            status, message = "declared", self.declared
        elif self.declared and status == "pass":
            status, message = "fail", "it is declared as an exception, but it holds: remove the declaration."
        return Outcome(status, message, time.perf_counter() - start)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Property:
    name: str
    why: str
    unless: Callable[[Traits], str]
    examine: Callable[[Case], None]


PROPERTIES: list[_Property] = []
_ORDER = ("form", "purity", "answers", "limits", "claims", "paths")  # the modules of checks, as reported


def prop(name: str, why: str, unless: Callable[[Traits], str] = lambda t: "") -> Callable[[Any], Any]:
    """Register a check: `unless(traits)` is the reason why it does not apply to a rule, or ""."""

    def register(examine: Callable[[Case], None]) -> Callable[[Case], None]:
        PROPERTIES.append(_Property(name, why, unless, examine))
        return examine

    return register


def steps_are_no_gradients(t: Traits) -> str:
    """The commonest reason to skip."""
    return "its updates are finished steps, not gradients" if t.update == "step" else ""


def alive(grads: Mapping[str, Tensor]) -> list[str]:
    """Names of the gradients that are not zero; at least one must be."""
    names = [name for name, g in grads.items() if g.norm() > 1e-9]
    assert names, "every gradient is zero, so nothing can be compared."
    return names


def assert_same(got: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str, tol: float = 1e-9) -> None:
    """Every gradient is the expected one, in size relative to its norm; those expected to be zero are zero."""
    alive(expected)
    far = {n: d for n in expected if (d := gap(got[n], expected[n])) > tol and (got[n] - expected[n]).norm() > 1e-14}
    shown = ", ".join(f"{name} by {distance:.2g}" for name, distance in far.items())
    assert not far, f"{what} (relative difference of {shown}; at most {tol:.0e} is rounding)."


def assert_apart(control: Mapping[str, Tensor], expected: Mapping[str, Tensor], names: Any, what: str) -> None:
    """The negative control of an equality: on the same network something else makes a difference."""
    for name in names:
        distance = gap(control[name], expected[name])
        assert distance > 0.01, f"the check cannot see anything here: {what} changes {name} by {distance:.2g} only."


def only(grads: Mapping[str, Tensor], names: Any) -> dict[str, Tensor]:
    """Some of the gradients."""
    return {name: grads[name] for name in names}


def make_plan(case: Case, exceptions: Mapping[str, str]) -> list[Check]:
    """Every check, those that do not apply with their reason.

    Raises:
        BpgenError: the rule declares an exception to a check that does not exist.
    """
    known = [p.name for p in PROPERTIES]
    for name in exceptions:
        if name not in known:
            raise BpgenError(f"{case.name}.conformance_exceptions names {name!r}; the checks are: {'; '.join(known)}.")
    # mistakes that break everything else come first
    order = sorted(PROPERTIES, key=lambda p: _ORDER.index(p.examine.__module__.rsplit(".", 1)[-1]))
    plan = [Check(p.name, p.why, case, p.examine, p.unless(case.traits)) for p in order]
    return [replace(check, declared=exceptions.get(check.name, "")) for check in plan]
