"""The suite for learning rules: the contract, and what a rule's own traits claim; the traits choose the checks.

Equalities are tested in float64, and each has a negative control on the same network: the suite fails rather than
compare nothing with nothing.
"""

from __future__ import annotations

from typing import Any

from bpgen.conformance.check import Check
from bpgen.conformance.rules import answers, blocks, claims, form, ingredients, limits, paths, purity  # noqa: F401  (they register their checks)
from bpgen.conformance.rules.case import SUITE
from bpgen.conformance.rules.findings import Examined
from bpgen.registry import find
from bpgen.rules.api import load_rule
from bpgen.rules.base import Rule


def plan(rule: str | type[Rule], options: dict[str, Any]) -> list[Check]:
    """All checks for a rule, by its name or its class, and with these options of its constructor; see `conformance`."""
    if isinstance(rule, str):
        first, name = load_rule(rule, **options), find("rule", rule).name

        def make(**opts: Any) -> Rule:
            return load_rule(name, **opts)
    else:
        first, name, make = rule(**options), rule.__name__, rule
    return SUITE.plan(Examined(name, make, type(first), options, first.traits))
