"""The conformance suite: holds a part, a stranger's as well as a built-in one, to its contract and its own claims.

    import bpgen.conformance, pytest

    @pytest.mark.parametrize("check", bpgen.conformance.checks("my_rule"), ids=str)
    def test_conformance(check):
        check()

`bpgen check my_rule` prints the same as a report. Rules, neurons and tasks each have a suite of small checks, one
property each; what a part says of itself chooses which apply. A part that lacks a property for a reason says so,

    class MyRule(OfflineRule):
        conformance_exceptions = {"split batches add up": "the error is normalised over the batch"}

and the report shows the reason; a declared exception that does hold is a failure.
"""

from __future__ import annotations

from typing import Any

from bpgen.conformance.check import Check, Outcome

__all__ = ["Check", "Outcome", "checks", "plan"]


def plan(part: str | type, **options: Any) -> list[Check]:
    """All checks for a part, in the order of the report; `.skipped` says why one does not apply."""
    from bpgen.conformance import rules

    return rules.plan(part, options)


def checks(part: str | type, **options: Any) -> list[Check]:
    """The checks that apply to a part, to be called one by one or parametrised over (`ids=str`); see `plan`."""
    return [check for check in plan(part, **options) if not check.skipped]
