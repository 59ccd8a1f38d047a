"""A, C and D: the derivatives inside one neuron, kept as cheaply as each neuron allows.

A gain stands for one of
    A_t = ∂s_t/∂s_{t-1} [d,d]      C_t = ∂s_t/∂I_t [d,K]      D_t = ∂h_t/∂s_t [1,d]
at every time of a trajectory, per neuron. It only knows its pull-back, the product with its transpose:
`pull(u, t)` maps [...,rows,N] to [...,columns,N]; `add_pull` adds that to something. `t` is an
index or a slice of times.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from bpgen.neurons.activation import Activation

Time = int | slice


@dataclass(frozen=True)
class Scale:
    """The same number at all times: factor · identity."""

    factor: float

    @property
    def is_zero(self) -> bool:
        """Whether no credit passes here at all."""
        return self.factor == 0

    def pull(self, u: Tensor, t: Time) -> Tensor:
        """factor · u."""
        return u if self.factor == 1 else self.factor * u

    def add_pull(self, v: Tensor, u: Tensor, t: Time) -> Tensor:
        """v + factor · u, in one pass."""
        return torch.add(v, u, alpha=self.factor) if self.factor else v

    def pull_into(self, u: Tensor, t: Time) -> None:
        """Overwrite u by its pull-back."""
        if self.factor != 1:
            u.mul_(self.factor)


@dataclass(frozen=True)
class PerNeuron:
    """A number for each neuron, the same at all times: diag(factor [N])."""

    factor: Tensor
    is_zero = False

    def pull(self, u: Tensor, t: Time) -> Tensor:
        """factor · u."""
        return self.factor * u

    def add_pull(self, v: Tensor, u: Tensor, t: Time) -> Tensor:
        """v + factor · u, in one pass."""
        return torch.addcmul(v, self.factor, u)

    def pull_into(self, u: Tensor, t: Time) -> None:
        """Overwrite u by its pull-back."""
        u.mul_(self.factor)


def scale(factor: float | Tensor) -> Scale | PerNeuron:
    """The gain that is one number, or one per neuron [N]."""
    return PerNeuron(factor) if isinstance(factor, Tensor) else _number(factor)


_number = lru_cache(maxsize=256)(Scale)


@dataclass(frozen=True)
class Slope:
    """factor · φ' at the outputs o = φ(v), without ever storing φ'.

    `o` is [T+1,B,N], indexed by time; its entry 0 is used by D alone. `factor` is a number or [N].
    """

    activation: Activation
    o: Tensor
    factor: float | Tensor = 1.0

    @property
    def _scale(self) -> Scale | PerNeuron:
        return scale(self.factor)

    @cached_property
    def _o(self) -> tuple[Tensor, ...]:
        return self.o.unbind(0)

    @property
    def is_zero(self) -> bool:
        """Whether no credit passes here at all."""
        return self._scale.is_zero

    def pull(self, u: Tensor, t: Time) -> Tensor:
        """factor · φ' u, for u [...,1,N]."""
        return self._scale.pull(self.activation.pull(u, self.o[t].unsqueeze(-2)), t)

    def add_pull(self, v: Tensor, u: Tensor, t: Time) -> Tensor:
        """v + factor · φ' u."""
        return self._scale.add_pull(v, self.activation.pull(u, self.o[t].unsqueeze(-2)), t)

    def pull_into(self, u: Tensor, t: Time) -> None:
        """Overwrite u [...,N] by its pull-back."""
        self.activation.pull_into(u, self._o[t] if isinstance(t, int) else self.o[t])
        self._scale.pull_into(u, t)


@dataclass(frozen=True)
class Dense:
    """Any gain, materialised: `jacobian` [T+1,B,rows,columns,N] indexed by time."""

    jacobian: Tensor
    is_zero = False

    def pull(self, u: Tensor, t: Time) -> Tensor:
        """Jᵀ u per neuron: [...,rows,N] -> [...,columns,N]. Row by row; an einsum costs ten times as much (d = 2)."""
        first, *others = zip(self.jacobian[t].unbind(-3), u.unsqueeze(-2).unbind(-3), strict=True)
        pulled = first[0] * first[1]
        for row, value in others:
            pulled = torch.addcmul(pulled, row, value)
        return pulled

    def add_pull(self, v: Tensor, u: Tensor, t: Time) -> Tensor:
        """v + Jᵀ u."""
        return v + self.pull(u, t)

    def pull_into(self, u: Tensor, t: Time) -> None:
        """Overwrite u [...,N] by its pull-back; for gains of one row and one column."""
        u.mul_(self._rows[t] if isinstance(t, int) else self.jacobian[t][..., 0, 0, :])

    @cached_property
    def _rows(self) -> tuple[Tensor, ...]:
        """By time, of gains of one row and one column."""
        return self.jacobian[..., 0, 0, :].unbind(0)


Gain = Scale | PerNeuron | Slope | Dense


@dataclass(frozen=True)
class Local:
    """The three gains of a trajectory; valid times: A, C at 1..T, D at 0..T."""

    A: Gain
    C: Gain
    D: Gain
