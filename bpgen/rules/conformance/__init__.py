"""The conformance suite: holds a rule, a stranger's as well as a built-in one, to the contract and to its own traits.

    import bpgen.conformance, pytest

    @pytest.mark.parametrize("check", bpgen.conformance.checks("my_rule"), ids=str)
    def test_conformance(check):
        check()

`bpgen check my_rule` prints the same as a report. Each check is one small property; the traits of the rule choose
which apply. Equalities are tested in float64, and each has a negative control on the same network: the suite fails
rather than compare nothing with nothing. A rule that lacks a property for a reason says so,

    class MyRule(OfflineRule):
        conformance_exceptions = {"split batches add up": "the error is normalised over the batch"}

and the report shows the reason; a declared exception that does hold is a failure.
"""

from __future__ import annotations

from typing import Any

from bpgen.registry import find
from bpgen.rules.api import load_rule
from bpgen.rules.base import Rule
from bpgen.rules.conformance import answers, claims, form, limits, paths, purity  # noqa: F401  (they register their checks)
from bpgen.rules.conformance.case import Case
from bpgen.rules.conformance.check import Check, Outcome, make_plan

__all__ = ["Check", "Outcome", "checks", "plan"]


def plan(rule: str | type[Rule], **options: Any) -> list[Check]:
    """All checks for a rule, in the order of the report; `.skipped` says why one does not apply.

    Args:
        rule: a rule's name as in `bpgen rules`, or its class.
        **options: of its constructor.

    Raises:
        BpgenError: unknown rule or option, a broken plugin, or an exception declared to an unknown check.
    """
    if isinstance(rule, str):
        first, name = load_rule(rule, **options), find("rule", rule).name

        def make(**opts: Any) -> Rule:
            return load_rule(name, **opts)
    else:
        first, name, make = rule(**options), rule.__name__, rule
    case = Case(name, make, first.traits, options)
    return make_plan(case, first.conformance_exceptions)


def checks(rule: str | type[Rule], **options: Any) -> list[Check]:
    """The checks that apply to a rule, to be called one by one or parametrised over (`ids=str`); see `plan`."""
    return [check for check in plan(rule, **options) if not check.skipped]
