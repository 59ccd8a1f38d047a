"""The leak of a neuron's state per step, one number for all neurons or one for each.

(1) α = 1 - exp(-dt/τ)  ("exp", the exact decay; Bellec 2020, Liu 2022)     or   α = dt/τ  ("euler")
(2) between neurons     ln α_i uniform between ln lo and ln hi, drawn from the seed of the network
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from bpgen.errors import require, unknown
from bpgen.neurons.base import Neuron


class LeakyState(Neuron):
    """A neuron with a leak α, the fraction of its state that is replaced in a step.

    Args:
        alpha: one number in (0, 1]; a pair [lo, hi] to draw one per neuron from, see (2); or one per neuron, as a
            tensor [N] or a list of more than two.

    Attributes:
        alpha: the number; or a buffer [N], from the start or from when a network takes the neuron; before that, the
            pair.
    """

    alpha: Any

    def __init__(self, alpha: float | Sequence[float] | Tensor) -> None:
        super().__init__()
        values = torch.as_tensor(alpha, dtype=torch.float64)
        require(
            values.ndim <= 1 and bool(((values > 0) & (values <= 1)).all()),
            f"neuron.alpha must be in (0, 1] (the fraction of new input per step; 1 is memoryless), got {alpha}.",
        )
        if values.ndim == 0:
            self.alpha = float(values)
        elif len(values) == 2 and not isinstance(alpha, Tensor):
            lo, hi = values.tolist()
            require(lo <= hi, f"neuron.alpha as a pair is [lowest, highest], got {alpha}.")
            self.alpha = (lo, hi)
        else:
            require(isinstance(alpha, Tensor), f"neuron.alpha must be a number, a pair or a tensor [N], got {alpha}.")
            self.register_buffer("alpha", values.clone())

    @property
    def noise_scale(self) -> float | Tensor:  # type: ignore[override]
        """√(2/α): with it the noise of the leaky state has standard deviation about σ (Yang 2019; nn-brain)."""
        scale = 2 / self.alpha
        return scale.sqrt() if isinstance(scale, Tensor) else math.sqrt(scale)

    def populate(self, N: int, random: torch.Generator, dtype: torch.dtype) -> Neuron:
        """See `Neuron.populate`: itself with one α for all, else a copy with α [N]."""
        if isinstance(self.alpha, float):
            return self
        if isinstance(self.alpha, tuple):
            lo, hi = map(math.log, self.alpha)
            alpha = (lo + (hi - lo) * torch.rand(N, generator=random, dtype=torch.float64)).exp()
        else:
            alpha = self.alpha
            require(len(alpha) == N, f"neuron.alpha holds {len(alpha)} values for the {N} neurons of the network.")
        population = copy.deepcopy(self)
        del population.alpha
        population.register_buffer("alpha", alpha.to(dtype))
        return population


def leak(tau: Any, dt: float, discretisation: Literal["exp", "euler"] = "exp", name: str = "tau") -> Any:
    """Equation (1) for one τ, for a pair [lo, hi] of them, or for a tensor.

    Raises:
        BpgenError: a τ or dt that is not positive, or an unknown discretisation.
    """
    if discretisation not in ("exp", "euler"):
        raise unknown("discretisation", discretisation, ("exp", "euler"))
    if isinstance(tau, Tensor):
        require(bool((tau > 0).all()) and dt > 0, f"{name} and dt must be positive, got {name}={tau}, dt={dt}.")
        return -torch.expm1(-dt / tau.double()) if discretisation == "exp" else dt / tau.double()
    if isinstance(tau, Sequence):
        return sorted(leak(each, dt, discretisation, name) for each in tau)
    require(tau > 0 and dt > 0, f"{name} and dt must be positive, got {name}={tau}, dt={dt}.")
    return -math.expm1(-dt / tau) if discretisation == "exp" else dt / tau
