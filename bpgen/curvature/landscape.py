"""The loss around a network along given directions: what an eigenvalue is the second derivative of."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Value = Callable[[Tensor], Tensor]  # L: θ [P] float64 -> 0-d


def span(loss: float, eigenvalue: float) -> float:
    """The distance √(2 L/|λ|) at which the quadratic ½ λ a² alone would add or take the loss itself; 1 if undefined."""
    distance = math.sqrt(2 * loss / abs(eigenvalue)) if loss > 0 and eigenvalue else 1.0
    return distance if math.isfinite(distance) else 1.0


@torch.no_grad()
def along(value: Value, theta: Tensor, v: Tensor, distances: Tensor) -> Tensor:
    """L(θ + a v) [n] at the distances a [n]."""
    return torch.stack([value(theta + a * v) for a in distances])


@torch.no_grad()
def plane(value: Value, theta: Tensor, u: Tensor, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """L(θ + a_i u + b_j v) [n,m] at distances a [n], b [m]."""
    return torch.stack([along(value, theta + a_i * u, v, b) for a_i in a])
