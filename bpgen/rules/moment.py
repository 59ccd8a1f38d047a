"""One moment of a run: everything an online rule may look at. There is no future in it.

The linear maps of a step, which every forward-in-time rule is made of, for any tail of axes * (J is their sum):
    own        [B,d,N,*] -> [B,d,N,*]     A_t S                  along the neuron's own path
    hop        [B,d,N,*] -> [B,K,N,*]     W_rec D_{t-1} S        from all states to the currents
    drive      [B,K,N,*] -> [B,d,N,*]     C_t U                  from the currents to the state
    read       [B,d,N,*] -> [B,N,*]       D_t S                  from the state to the activity
    J_t S = own(S) + drive(hop(S))
The parameters of neuron p that act on p alone are its own X = K·Q (+ d) parameters: the weights of its K currents from
the Q presynaptic sources (h_{t-1}, x_t, 1), and its d initial states where these are learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bpgen.network import Network, Structure, Trajectory
from bpgen.neurons.gain import Gain, Local


@dataclass
class Moment:
    """Time t of a run, t = 1, 2, ...; the network has just made its step.

    params: weights by name; `W_rec` and `W_in` are masked, `initial_state` is there only if it is learned and in use.
    x: input x_t [B,I]. I: currents I_t [B,K,N].
    s_before, h_before: s_{t-1} [B,d,N], h_{t-1} [B,N]. s, h: the same at t. r: what the readout sees, r_t [B,N].
    error: e_t = ∂L/∂y_t [B,O], step weights and 1/B included; None at a step without a loss.
    ends: whether the sequence ends here (a stream never ends).
    draws: this step's random numbers by name: what `Rule.draw` returned, at t.
    """

    network: Network
    params: Mapping[str, Tensor]
    t: int
    x: Tensor
    I: Tensor
    s_before: Tensor
    h_before: Tensor
    s: Tensor
    h: Tensor
    r: Tensor
    error: Tensor | None
    ends: bool
    draws: Mapping[str, Tensor]

    @cached_property
    def local(self) -> Local:
        """The neuron's gains along a run of this one step, between the times 0 (before) and 1 (now)."""
        h, states = torch.stack([self.h_before, self.h]), torch.stack([self.s_before, self.s])
        currents = torch.stack([torch.zeros_like(self.I), self.I]).flatten(-2)
        step = Trajectory(
            self.network, self.params, self.x.unsqueeze(0), h, states, h[1], False, known_currents=currents
        )
        return step.local

    @cached_property
    def A(self) -> Tensor:
        """∂s_t/∂s_{t-1} [B,d,d,N], per neuron."""
        return _rows(self.local.A, self.s)

    @cached_property
    def C(self) -> Tensor:
        """∂s_t/∂I_t [B,d,K,N], per neuron."""
        return _rows(self.local.C, self.s)

    @cached_property
    def D(self) -> Tensor:
        """∂h_t/∂s_t [B,d,N], per neuron."""
        return self.local.D.pull(torch.ones_like(self.h).unsqueeze(1), 1)

    @cached_property
    def D_before(self) -> Tensor:
        """∂h_{t-1}/∂s_{t-1} [B,d,N], per neuron."""
        return self.local.D.pull(torch.ones_like(self.h).unsqueeze(1), 0)

    @property
    def kappa(self) -> float:
        """Decay of the readout filter: r_t = κ r_{t-1} + (1-κ) h_t."""
        return self.network.kappa

    def own(self, S: Tensor) -> Tensor:
        """A_t S: [B,d,N,*] -> [B,d,N,*]."""
        return _apply(self.A, S)

    def drive(self, U: Tensor) -> Tensor:
        """C_t U: [B,K,N,*] -> [B,d,N,*]."""
        return _apply(self.C, U)

    def read(self, S: Tensor) -> Tensor:
        """D_t S: [B,d,N,*] -> [B,N,*]."""
        return _apply(self.D.unsqueeze(1), S).squeeze(1)

    def hop(self, S: Tensor) -> Tensor:
        """W_rec D_{t-1} S: [B,d,N,*] -> [B,K,N,*]."""
        activity = _apply(self.D_before.unsqueeze(1), S).squeeze(1)
        currents = self.params["W_rec"] @ activity.reshape(*activity.shape[:2], -1)
        return currents.reshape(*self.I.shape, *S.shape[3:])

    # A neuron's own parameters.

    @cached_property
    def pre(self) -> Tensor:
        """The presynaptic side [B,Q] of all currents: h_{t-1}, x_t, and 1 where there is a bias b_rec."""
        return presynaptic(self.params, self.h_before, self.x)

    @cached_property
    def direct(self) -> Tensor:
        """∂I_t/∂(own parameters) at fixed h_{t-1} [B,K,X]: the same for every neuron."""
        K = self.network.neuron.n_currents
        blocks = (torch.eye(K).to(self.pre).unsqueeze(-1) * self.pre[:, None, None]).flatten(-2)
        learned = self.params.get("initial_state")
        if learned is None:
            return blocks
        return torch.cat([blocks, torch.zeros_like(blocks[..., :1]).expand(*blocks.shape[:-1], len(learned))], dim=-1)

    def gradient(self, own: Tensor) -> dict[str, Tensor]:
        """Gradients by parameter name, from those of every neuron's own parameters [N,X]."""
        return gradients_of_own(self.network, self.params, own)

    def synapses(self, W: Tensor) -> dict[str, Tensor]:
        """Gradients by parameter name, from those of all currents by all sources [K·N,Q]; masked ones are zero."""
        return _by_name(self.network, self.params, W)


def presynaptic(params: Mapping[str, Tensor], h: Tensor, x: Tensor) -> Tensor:
    """The presynaptic side [...,Q] of all currents: h_{t-1} [...,N], x_t [...,I], and 1 where there is a bias b_rec."""
    bias = [torch.ones_like(h[..., :1])] if "b_rec" in params else []
    return torch.cat([h, x, *bias], dim=-1)


def gradients_of_own(network: Structure, params: Mapping[str, Tensor], own: Tensor) -> dict[str, Tensor]:
    """Gradients by parameter name, from those of every neuron's own parameters [N,X]."""
    K, Q = network.neuron.n_currents, network.n_rec + network.n_in + ("b_rec" in params)
    grads = _by_name(network, params, own[:, : K * Q].unflatten(-1, (K, Q)).movedim(1, 0).flatten(0, 1))
    if "initial_state" in params:
        grads["initial_state"] = own[:, K * Q :].mT
    return grads


def _by_name(network: Structure, params: Mapping[str, Tensor], W: Tensor) -> dict[str, Tensor]:
    """Gradients by parameter name, from those of all currents by all sources [K·N,Q]; masked ones are zero."""
    N, I = network.n_rec, network.n_in
    grads, masks = {"W_rec": W[:, :N], "W_in": W[:, N : N + I]}, network.masks()
    grads = {name: g * masks[name] if name in masks else g for name, g in grads.items()}
    if "b_rec" in params:
        grads["b_rec"] = W[:, -1]
    return grads


def own_influence(network: Network, params: Mapping[str, Tensor], batch: int) -> Tensor:
    """∂s_0/∂(own parameters) [B,d,X] of any neuron: a learned initial state acts on itself, nothing else does."""
    K, d = network.neuron.n_currents, network.neuron.n_states
    synapses = K * (network.n_rec + network.n_in + ("b_rec" in params))
    learned = d if "initial_state" in params else 0
    one = torch.eye(d, synapses + learned).roll(synapses, -1) if learned else torch.zeros(d, synapses)
    return one.to(params["W_rec"]).expand(batch, -1, -1)


def _rows(gain: Gain, s: Tensor) -> Tensor:
    """The Jacobian [B,d,columns,N] of a gain of the state, from its pull-backs of the d unit vectors."""
    one, zero, d = torch.ones_like(s[:, 0]), torch.zeros_like(s[:, 0]), s.shape[1]
    units = [torch.stack([one if i == j else zero for j in range(d)], dim=1) for i in range(d)]
    return torch.stack([gain.pull(unit, 1) for unit in units], dim=1)


def _apply(J: Tensor, S: Tensor) -> Tensor:
    """Per neuron J S: [B,rows,columns,N] and [B,columns,N,*] to [B,rows,N,*]."""
    J = J.reshape(*J.shape, *(1,) * (S.ndim - 3))
    rows = []
    for row in J.unbind(1):
        products = [a * b for a, b in zip(row.unbind(1), S.unbind(1), strict=True)]
        rows.append(sum(products[1:], products[0]))
    return torch.stack(rows, dim=1) if len(rows) > 1 else rows[0].unsqueeze(1)
