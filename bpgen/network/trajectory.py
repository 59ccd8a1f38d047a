"""One run of a network over a batch of sequences: everything a rule or a curvature product may look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from bpgen.losses import Activity
from bpgen.network.readout import filtered
from bpgen.network.structure import Params, Structure, drive
from bpgen.neurons.gain import Local


@dataclass
class Trajectory:
    """Activity of a network at given weights. Time first; index t = 1..T along h and states, 0 is the start.

    network: its structure, with its neurons at these weights.
    params: weights by name; `W_rec` and `W_in` are already masked.
    x: inputs [T,B,I].
    h: activities [T+1,B,N].
    states: [T+1,B,d,N].
    outputs: y [B,O] at the last step, or [T,B,O].
    in_place: whether plain tensors may be overwritten by whoever owns them (not under vmap, jvp or autograd).
    from_rest: whether h_0 = 0 and nothing can change that: no product with h_0, no credit for it.
    known_currents: `currents` with K and N in one axis, where they were kept.
    activity: the regulariser of the activities, if the loss has one.
    left: with K > 1 or d > 1 what the in-place pass left of the currents [T+1,B,K,N]; see `Neuron.advance_into`.
    r_0: what the readout's filter holds before the first step [B,N]; None is nothing.
    """

    network: Structure
    params: Params
    x: Tensor
    h: Tensor
    states: Tensor
    outputs: Tensor
    in_place: bool
    current_noise: Tensor | None = None
    known_currents: Tensor | None = field(default=None, repr=False)
    from_rest: bool = False
    activity: Activity | None = None
    r_0: Tensor | None = None
    left: Tensor | None = field(default=None, repr=False)

    @cached_property
    def penalty(self) -> Tensor | None:
        """∂E/∂h_t [T,B,N] of a regulariser of the activity, part of every learning signal; None without one."""
        return None if self.activity is None else self.activity.gradient(self.h)

    @property
    def n_steps(self) -> int:
        """T."""
        return self.x.shape[0]

    @property
    def currents_shape(self) -> tuple[int, int]:
        """K, N."""
        return self.network.neuron.n_currents, self.network.n_rec

    @cached_property
    def currents(self) -> Tensor:
        """I [T+1,B,K,N]; entry 0 is unused and zero. Computed again where the forward pass overwrote them."""
        I = self.known_currents
        if I is None:
            I = drive(self.params, self.x, self.current_noise) + self.h[:-1] @ self.params["W_rec"].mT
            I = torch.cat([torch.zeros_like(I[:1]), I])
        return I.unflatten(-1, self.currents_shape)

    @cached_property
    def local(self) -> Local:
        """The gains A, C, D inside each neuron along this trajectory."""
        return self.network.neuron.local(self)

    @cached_property
    def as_currents(self) -> dict[str, Tensor]:
        """The currents [T,B,K,N] that learned parameters of the neurons are equal to; see `Neuron.as_currents`."""
        neuron = self.network.neuron
        known = [name for name in neuron.learned if name in self.params]
        equal = neuron.as_currents(self.states[:-1], self.currents[1:]) if known else {}
        return {name: equal[name] for name in known}

    @cached_property
    def r(self) -> Tensor:
        """The filtered activity [T,B,N] that the readout weights see."""
        return filtered(self.h[1:], self.network.kappa, self.r_0)
