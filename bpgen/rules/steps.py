"""Some steps of a run at fixed weights: what an online rule may look at over a block of them, or moment by moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from bpgen.network import Trajectory
from bpgen.network.readout import filtered_back
from bpgen.neurons.gain import Gain, Scale


@dataclass
class Steps:
    """k steps of a run; gains and presynaptic sides of all of them are computed once, when they are asked for.

    run: the network over these steps; its index 0 is where they begin.
    t: steps since the start of the sequence, before the first of them.
    error: e [L,B,O] = ∂L/∂y at the last L of them, step weights and 1/B included; L = 0 where no loss is near.
    ends: whether the sequence ends with the last of them.
    draws: random numbers by name [k,...]: what `Rule.draw` returned, for these steps.
    there: which of them are no padding, bool [k,B]; None is all, and where the rest of a sequence is yet to come.
    """

    run: Trajectory
    t: int
    error: Tensor
    ends: bool
    draws: Mapping[str, Tensor] = field(default_factory=dict)
    there: Tensor | None = None

    @property
    def error_back(self) -> Tensor:
        """ē [L,B,O] at the last L >= 1 steps: the error filtered back through the readout, see `filtered_back`."""
        error = self.error if self.error.shape[0] else self.error_at_all
        return filtered_back(error, self.run.network.kappa, self.run.n_steps)

    @property
    def error_at_all(self) -> Tensor:
        """e [k,B,O], zero at the steps without a loss."""
        before = self.run.n_steps - len(self.error)
        if before == 0:
            return self.error
        return torch.cat([self.error.new_zeros(before, *self.error.shape[1:]), self.error])

    @cached_property
    def A(self) -> Tensor:
        """∂s_t/∂s_{t-1} [k,B,d,d,N], per neuron."""
        return jacobians(self.run.local.A, self.run)

    @cached_property
    def C(self) -> Tensor:
        """∂s_t/∂I_t [k,B,d,K,N], per neuron."""
        return jacobians(self.run.local.C, self.run)

    @cached_property
    def D(self) -> Tensor:
        """∂h_t/∂s_t [k+1,B,d,N], per neuron, t = 0 included."""
        ones = torch.ones_like(self.run.h).unsqueeze(-2)
        return self.run.local.D.pull(ones, slice(0, self.run.n_steps + 1))

    def carried(self, s: Tensor, k: int) -> Tensor:
        """J_t s [B,d·N] of a vector of states [B,d·N], t the k-th of these steps: see `bpgen.rules.moment`."""
        A, C, W, told = self.run.local.A, self.run.local.C, self.run.params["W_rec"].mT, self._D[k - 1] * s
        if isinstance(A, Scale) and isinstance(C, Scale):
            return torch.addmm(s, told, W, beta=A.factor, alpha=C.factor)
        d, (K, N) = self.run.network.neuron.n_states, self.run.currents_shape
        I = (told.unflatten(1, (d, N)).sum(1) @ W).unflatten(1, (1, K, N))
        return ((self.A[k - 1] * s.unflatten(1, (1, d, N))).sum(2) + (self.C[k - 1] * I).sum(2)).flatten(1)

    @cached_property
    def _D(self) -> tuple[Tensor, ...]:
        """D, step by step, [B,d·N] each."""
        return self.D.flatten(2).unbind(0)

    @cached_property
    def pre(self) -> Tensor:
        """The presynaptic sides [k,B,Q] of all currents."""
        return presynaptic(self.run.params, self.run.h[:-1], self.run.x)


def presynaptic(params: Mapping[str, Tensor], h: Tensor, x: Tensor) -> Tensor:
    """The presynaptic side [...,Q] of all currents: h_{t-1} [...,N], x_t [...,I], and 1 where there is a bias b_rec."""
    parts = (h, x, h.new_ones(*h.shape[:-1], 1)) if "b_rec" in params else (h, x)
    return torch.cat(parts, dim=-1)


def jacobians(gain: Gain, run: Trajectory) -> Tensor:
    """A gain of the state along a run, materialised: [k,B,d,columns,N]."""
    T, d = run.n_steps, run.network.neuron.n_states
    one = torch.ones_like(run.states[1:, :, 0])
    units = [torch.stack([one if i == j else torch.zeros_like(one) for j in range(d)], dim=-2) for i in range(d)]
    return torch.stack([gain.pull(unit, slice(1, T + 1)) for unit in units], dim=-3)
