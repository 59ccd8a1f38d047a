"""Credit of the input currents, and what it says about the weights.

    ∂L/∂W_rec = Σ_t c_t h_{t-1}ᵀ,   ∂L/∂W_in = Σ_t c_t x_tᵀ,   ∂L/∂b_rec = Σ_t c_t,   ∂L/∂W_out = Σ_t e_t r_tᵀ
    ∂L/∂θ = Σ_t c_t j_t     of a learned parameter of a neuron, which does what a current j does (`Neuron.as_currents`)
Credit that is zero before some step is stored from there on: a credit [L,B,K,N] stands at the last L steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from bpgen.network import Trajectory


class Credit(NamedTuple):
    """Credit of the input currents [L,B,K,N] at the last L steps, and of the initial state [B,d,N] or None.

    outputs: what the outputs are told by their feedback into the network, besides e [L,B,O]; None where nothing is.
    aux: what the rule itself wants to learn from (`Rule.learn`) or to report, by name.
    """

    currents: Tensor
    initial: Tensor | None = None
    outputs: Tensor | None = None
    aux: Mapping[str, Tensor] = MappingProxyType({})

    def plus(self, other: Credit) -> Credit:
        """The sum of the currents' and of the initial state's credit."""
        parts = [part for part in (self.initial, other.initial) if part is not None]
        initial = parts[0] + parts[1] if len(parts) == 2 else parts[0] if parts else None
        return self._replace(currents=add_at_end(self.currents, other.currents), initial=initial)


def add_at_end(a: Tensor, b: Tensor) -> Tensor:
    """a + b [max(L, L'),...], both at the last steps and zero before."""
    if len(a) < len(b):
        a, b = b, a
    early = len(a) - len(b)
    return torch.cat([a[:early], a[early:] + b]) if early else a + b


def weight_gradients(trajectory: Trajectory, credit: Credit, error: Tensor) -> dict[str, Tensor]:
    """One matrix product per weight; zero where a weight earns no credit.

    Args:
        trajectory: the run the credit belongs to.
        credit: credit of the currents and of the initial state.
        error: e [L,B,O], the unfiltered output error at the last L steps.

    Returns:
        A gradient for every parameter of the network, by name.
    """
    params = trajectory.params
    grads = recurrent_gradients(trajectory, credit.currents)
    grads |= readout_gradients(trajectory, error if credit.outputs is None else add_at_end(credit.outputs, error))
    if "initial_state" in params:
        none = torch.zeros_like(params["initial_state"])
        grads["initial_state"] = none if credit.initial is None else credit.initial.sum(0)
    grads = trajectory.network.masked(grads)
    return {name: grads[name] for name in params}


def recurrent_gradients(trajectory: Trajectory, currents: Tensor) -> dict[str, Tensor]:
    """Gradients of W_rec, W_in, b_rec and what neurons learn, from the credit of the currents [L,B,K,N] at the end."""
    c = currents.flatten(-2)  # [L,B,K·N]
    before = trajectory.n_steps - c.shape[0]
    silent = 1 if trajectory.from_rest and before == 0 else 0  # the first step follows h_0 = 0
    grads = {"W_rec": _outer(c[silent:], trajectory.h[before + silent : -1]), "W_in": _outer(c, trajectory.x[before:])}
    if "b_rec" in trajectory.params:
        grads["b_rec"] = c.sum((0, 1))
    for name, j in trajectory.as_currents.items():
        grads[name] = (currents * j[before:]).sum((0, 1, 2))
    return grads


def readout_gradients(trajectory: Trajectory, error: Tensor) -> dict[str, Tensor]:
    """Gradients of W_out and b_out, from the unfiltered error e [L,B,O] at the last L steps."""
    before = trajectory.n_steps - error.shape[0]
    grads = {"W_out": _outer(error, trajectory.r[before:] if before else trajectory.r)}
    if "b_out" in trajectory.params:
        grads["b_out"] = error.sum((0, 1))
    return grads


def _outer(post: Tensor, pre: Tensor) -> Tensor:
    """Σ_{t,b} post preᵀ, as one matrix product over all steps and samples, its narrow side in front (faster)."""
    post, pre = post.flatten(0, 1), pre.flatten(0, 1)
    return post.mT @ pre if post.shape[-1] <= pre.shape[-1] else (pre.mT @ post).mT.contiguous()
