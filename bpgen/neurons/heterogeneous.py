"""Parameters of a neuron that are one number for all neurons of a network, or one for each.

A pair [lo, hi] draws one per neuron from the seed of the network, uniform between its ends ("uniform"), or uniform in
its logarithm ("log"), or with one minus it uniform in the logarithm ("log_rest"), as time constants are spread.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from bpgen.errors import require
from bpgen.neurons.base import Neuron

Parameter = float | Sequence[float] | Tensor
Spread = Literal["uniform", "log", "log_rest"]


class Heterogeneous(Neuron):
    """A neuron with parameters that may differ between neurons; a subclass names each one by `per_neuron`.

    Each is one number; a pair [lo, hi] to draw one per neuron from; or one per neuron, as a tensor [N]. As an attribute
    it is the number; or a buffer [N], from the start or from when a network takes the neuron; before that, the pair.
    """

    def __init__(self) -> None:
        super().__init__()
        self._spreads: dict[str, Spread] = {}

    def per_neuron(
        self, name: str, value: Parameter, valid: Callable[[Tensor], Tensor], expected: str, spread: Spread = "uniform"
    ) -> None:
        """Keep a parameter as the attribute `name`.

        Args:
            name: of the parameter.
            value: a number, a pair or a tensor.
            valid: which of its values are allowed.
            expected: the same in words.
            spread: how a pair is drawn from.

        Raises:
            BpgenError: a value that is not allowed.
        """
        values = _numbers(value)
        fits = values is not None and values.ndim <= 1 and bool(valid(values).all())
        require(fits, f"neuron.{name} must be {expected}, got {value}.")
        assert values is not None
        self._spreads[name] = spread
        if values.ndim == 0:
            setattr(self, name, float(values))
        elif len(values) == 2 and not isinstance(value, Tensor):
            lo, hi = values.tolist()
            require(lo <= hi, f"neuron.{name} as a pair is [lowest, highest], got {value}.")
            setattr(self, name, (lo, hi))
        else:
            require(isinstance(value, Tensor), f"neuron.{name} must be a number, a pair or a tensor [N], got {value}.")
            self.register_buffer(name, values.clone())

    def populate(self, N: int, random: torch.Generator, dtype: torch.dtype) -> Neuron:
        """See `Neuron.populate`: itself with one number for each parameter, else a copy with those that differ [N]."""
        if all(isinstance(getattr(self, name), float) for name in self._spreads):
            return self
        population = copy.deepcopy(self)
        for name, spread in self._spreads.items():
            value, share = getattr(self, name), torch.rand(N, generator=random, dtype=torch.float64)
            if isinstance(value, tuple):
                lo, hi = value
                value = _between(lo, hi, share, spread)
            if isinstance(value, Tensor):
                require(len(value) == N, f"neuron.{name} holds {len(value)} values for the {N} neurons of the network.")
                population.set_each(name, value.to(dtype))
        return population

    def set_each(self, name: str, values: Tensor) -> None:
        """Replace a parameter by one number per neuron [N]."""
        delattr(self, name)
        self.register_buffer(name, values)


def _numbers(value: Any) -> Tensor | None:
    """As a float64 tensor; None if it cannot be one."""
    try:
        return torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None


def _between(lo: float, hi: float, share: Tensor, spread: Spread) -> Tensor:
    """The values that stand at a share [N], uniform in [0, 1), of the way from `lo` to `hi`."""
    if spread == "uniform":
        return lo + (hi - lo) * share
    if spread == "log_rest":
        return 1 - _between(1 - hi, 1 - lo, share, "log")
    start, end = math.log(lo), math.log(hi)
    return (start + (end - start) * share).exp()
