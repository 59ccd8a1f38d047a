"""The comparisons that all checks share, each with what it takes to see anything at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def gap(got: Tensor, expected: Tensor) -> float:
    """‖got - expected‖ / ‖expected‖; infinite where only the expected one is zero, or one is no number."""
    scale, distance = float(expected.norm()), float((got - expected).norm())
    if not math.isfinite(distance) or (scale == 0 and distance > 0):
        return math.inf
    return distance / scale if scale > 0 else 0.0


def alive(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of those that are not zero; at least one must be."""
    names = [name for name, g in tensors.items() if not g.norm() <= 1e-9]
    assert names, "every gradient is zero, so nothing can be compared."
    return names


def assert_same(got: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str, tol: float = 1e-9) -> None:
    """Each is the expected one, in size relative to its norm; those expected to be zero are zero."""
    alive(expected)
    apart = {n: gap(got[n], expected[n]) for n in expected if not (got[n] - expected[n]).norm() <= 1e-14}
    far = {name: distance for name, distance in apart.items() if distance > tol}
    shown = ", ".join(f"{name} by {distance:.2g}" for name, distance in far.items())
    assert not far, f"{what} (relative difference of {shown}; at most {tol:.0e} is rounding)."


def assert_apart(control: Mapping[str, Tensor], expected: Mapping[str, Tensor], names: Any, what: str) -> None:
    """The negative control of an equality: on the same network something else makes a difference."""
    for name in names:
        distance = gap(control[name], expected[name])
        assert distance > 0.01, f"the check cannot see anything here: {what} changes {name} by {distance:.2g} only."


def only(tensors: Mapping[str, Tensor], names: Any) -> dict[str, Tensor]:
    """Some of them."""
    return {name: tensors[name] for name in names}
