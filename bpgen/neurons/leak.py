"""The leak of a neuron's state per step, one number for all neurons or one for each.

(1) α = 1 - exp(-dt/τ)  ("exp", the exact decay; Bellec 2020, Liu 2022)     or   α = dt/τ  ("euler")
(2) between neurons     ln α_i uniform between ln lo and ln hi, drawn from the seed of the network
(3) learned             α_i = σ(θ_i), which stays within (0, 1); θ [N] is the parameter `alpha_logit` of the network
With v the state that leaks, v_t = (1-α) v_{t-1} + G I_t + ..., a change of θ does what a current does:
(4) j = ∂α/∂θ (I_t - v_{t-1})/α = (1-α)(I_t - v_{t-1})  where G = α,     j = -α (1-α) v_{t-1}  where G = 1
(4) holds inside a non-linearity too, φ((1-α) v_{t-1} + α I_t), but not where the current passes one by itself.

Reference for (3): W. Fang et al., ICCV 2021 (PLIF), whose 1/τ is α.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from bpgen.errors import choice, require
from bpgen.neurons.base import Neuron
from bpgen.neurons.heterogeneous import Heterogeneous, Parameter

Discretisation = Literal["exp", "euler"]


class LeakyState(Heterogeneous):
    """A neuron with a leak α, the fraction of its state that is replaced in a step.

    Args:
        alpha: one number in (0, 1]; a pair [lo, hi] to draw one per neuron from, see (2); or a tensor [N].
        learn_alpha: whether training changes it, for each neuron by itself, see (3); alpha is then where it starts.
    """

    alpha: Any

    def __init__(self, alpha: Parameter, learn_alpha: bool = False) -> None:
        super().__init__()
        self.learn_alpha = learn_alpha
        self.per_neuron(
            "alpha",
            alpha,
            lambda a: (a > 0) & (a <= 1),
            "in (0, 1] (the fraction of new input per step; 1 is memoryless)",
            "log",
        )
        largest = max(alpha) if isinstance(alpha, Sequence) else alpha
        require(
            not learn_alpha or bool(torch.as_tensor(largest < 1).all()),
            f"neuron.learn_alpha keeps alpha within (0, 1), and it is to start at {alpha}: start below 1.",
        )

    def populate(self, N: int, random: torch.Generator, dtype: torch.dtype) -> Neuron:
        """See `Neuron.populate`: what is learned is one number per neuron from the start."""
        population: Any = super().populate(N, random, dtype)
        if not self.learn_alpha or isinstance(population.alpha, Tensor):
            return population
        population = copy.deepcopy(self) if population is self else population
        population.set_each("alpha", torch.full((N,), population.alpha, dtype=dtype))
        return population

    @property
    def learned(self) -> dict[str, Tensor]:
        """θ of (3)."""
        return {"alpha_logit": torch.logit(self.alpha)} if self.learn_alpha else {}

    def at(self, params: Mapping[str, Tensor]) -> Neuron:
        """See `Neuron.at`: with the α of (3)."""
        if not self.learn_alpha or "alpha_logit" not in params:
            return self
        here = copy.copy(self)
        here._buffers = {**self._buffers, "alpha": params["alpha_logit"].sigmoid()}
        return here

    def as_currents(self, s: Tensor, I: Tensor) -> dict[str, Tensor]:
        """Equation (4), where the current is weighed by α."""
        return {"alpha_logit": (1 - self.alpha) * (I - s[..., :1, :])} if self.learn_alpha else {}

    @property
    def noise_scale(self) -> float | Tensor:  # type: ignore[override]
        """√(2/α): with it the noise of the leaky state has standard deviation about σ (Yang 2019; nn-brain).

        Where α is learned, that with which it starts: the noise does not change with training.
        """
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
