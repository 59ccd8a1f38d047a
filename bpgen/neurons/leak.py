"""The leak of a neuron's state per step, one number for all neurons or one for each.

(1) α = 1 - exp(-dt/τ)  ("exp", the exact decay; Bellec 2020, Liu 2022)     or   α = dt/τ  ("euler")
(2) between neurons     ln α_i uniform between ln lo and ln hi, drawn from the seed of the network
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from bpgen.errors import choice, require
from bpgen.neurons.heterogeneous import Heterogeneous, Parameter

Discretisation = Literal["exp", "euler"]


class LeakyState(Heterogeneous):
    """A neuron with a leak α, the fraction of its state that is replaced in a step.

    Args:
        alpha: one number in (0, 1]; a pair [lo, hi] to draw one per neuron from, see (2); or a tensor [N].
    """

    alpha: Any

    def __init__(self, alpha: Parameter) -> None:
        super().__init__()
        self.per_neuron(
            "alpha",
            alpha,
            lambda a: (a > 0) & (a <= 1),
            "in (0, 1] (the fraction of new input per step; 1 is memoryless)",
            "log",
        )

    @property
    def noise_scale(self) -> float | Tensor:  # type: ignore[override]
        """√(2/α): with it the noise of the leaky state has standard deviation about σ (Yang 2019; nn-brain)."""
        scale = 2 / self.alpha
        return scale.sqrt() if isinstance(scale, Tensor) else math.sqrt(scale)


def leak(tau: Any, dt: float, discretisation: Discretisation = "exp", name: str = "tau") -> Any:
    """Equation (1) for one τ, for a pair [lo, hi] of them, or for a tensor.

    Raises:
        BpgenError: a τ or dt that is not positive, or an unknown discretisation.
    """
    choice("discretisation", discretisation, Discretisation)
    if isinstance(tau, Tensor):
        require(bool((tau > 0).all()) and dt > 0, f"{name} and dt must be positive, got {name}={tau}, dt={dt}.")
        return -torch.expm1(-dt / tau.double()) if discretisation == "exp" else dt / tau.double()
    if isinstance(tau, Sequence):
        return sorted(leak(each, dt, discretisation, name) for each in tau)
    require(tau > 0 and dt > 0, f"{name} and dt must be positive, got {name}={tau}, dt={dt}.")
    return -math.expm1(-dt / tau) if discretisation == "exp" else dt / tau
