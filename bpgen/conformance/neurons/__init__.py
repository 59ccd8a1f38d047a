"""The suite for neurons: per-neuron dynamics f and g, their derivatives, and what a network makes of them."""

from __future__ import annotations

from typing import Any

from bpgen.conformance.check import Check
from bpgen.conformance.neurons import curvature, derivatives, dynamics, life, networks  # noqa: F401  (they register their checks)
from bpgen.conformance.neurons.case import SUITE, Case
from bpgen.neurons import Neuron
from bpgen.registry import find
from bpgen.signatures import check_options


def plan(neuron: str | type[Neuron], options: dict[str, Any]) -> list[Check]:
    """All checks for a neuron, by its name or its class, and with these options of its constructor."""
    cls = find("neuron", neuron).load() if isinstance(neuron, str) else neuron
    name = find("neuron", neuron).name if isinstance(neuron, str) else neuron.__name__
    check_options(cls, options, f"neuron {name!r}")
    cls(**options)  # bad values are bad input, not a failed check
    return SUITE.plan(Case(name, cls, options))
