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

from importlib import import_module
from typing import Any

from bpgen.conformance.check import Check, Outcome
from bpgen.errors import BpgenError, choice, require, unknown
from bpgen.registry import KindName, base_of, find, plugins

__all__ = ["Check", "Outcome", "checks", "plan"]

_KINDS: tuple[KindName, ...] = ("rule", "neuron", "task")


def plan(part: str | type, **options: Any) -> list[Check]:
    """All checks for a part, in the order of the report; `.skipped` says why one does not apply.

    Args:
        part: the name of a rule, neuron or task as in `bpgen plugins`, FILE.py:Class, or its class. Where parts of two
            kinds share a name, it is "rule:NAME", "neuron:NAME" or "task:NAME".
        **options: of its constructor.

    Raises:
        BpgenError: unknown part or option, a name of two parts, a broken plugin, a task whose data are not there, or an
            exception declared to an unknown check.
    """
    kind, part = _kind_of_class(part) if isinstance(part, type) else _kind_of_name(part)
    checks: list[Check] = import_module(f"bpgen.conformance.{kind}s").plan(part, options)
    return checks


def checks(part: str | type, **options: Any) -> list[Check]:
    """The checks that apply to a part, to be called one by one or parametrised over (`ids=str`); see `plan`."""
    return [check for check in plan(part, **options) if not check.skipped]


def _kind_of_class(part: type) -> tuple[KindName, type]:
    for kind in _KINDS:
        if issubclass(part, base_of(kind)):
            return kind, part
    raise BpgenError(f"{part.__name__} is no rule, neuron or task: there is no contract to hold it to.")


def _kind_of_name(part: str) -> tuple[KindName, str]:
    said, colon, name = part.partition(":")
    if colon and not said.endswith(".py"):
        kind: Any = choice("kind of part to check", said, _KINDS)
        return kind, name
    if colon:
        return _kind_of_file(part), part
    spelled = part.replace("-", "_")
    kinds = [kind for kind in _KINDS if spelled in plugins(kind)]
    if not kinds:
        known = {name for kind in _KINDS for name in plugins(kind)}
        raise unknown("rule, neuron or task", part, known, "A new one is seen after its package is installed.")
    names = " or ".join(f"{kind}:{part}" for kind in kinds)
    require(len(kinds) == 1, f"{part!r} is the name of a {' and of a '.join(kinds)}: say {names}.")
    return kinds[0], part


def _kind_of_file(part: str) -> KindName:
    errors = []
    for kind in _KINDS:
        try:
            find(kind, part).load()
        except BpgenError as error:
            errors.append(error)
        else:
            return kind
    raise errors[0]
