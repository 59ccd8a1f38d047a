"""Variants of a problem that two neurons cannot notice, for the locality audit: all that is theirs stays as it was.

Noise in the currents makes up for what changed weights or other activities deliver, and the target for what they do to
the outputs, so that currents, states and activity of the two, and the error, are the same numbers.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bpgen.conformance.problem import randn
from bpgen.problem import Problem


def clamped(p: Problem, at: Problem, currents: Tensor) -> Problem:
    """The problem `at` with noise that makes its currents [T,B,K,N] the given ones, and with the error of `p`."""
    neuron, params = at.network.neuron, at.network.masked(at.params)
    s = at.network.start(params, at.batch, at.initial_state)
    noise = []
    for x, wanted in zip(at.x, currents, strict=True):
        I, _, _ = at.network.advance(params, s, neuron.g(s), x)
        noise.append((wanted - I).flatten(-2))
        s = neuron.f(s, wanted)
    q = replace(at, current_noise=torch.stack(noise))
    return replace(q, target=p.target + q.outputs() - p.outputs())


def other_synapses(p: Problem, currents: Tensor, pair: tuple[int, int]) -> Problem:
    """Other weights everywhere but between the two and from the inputs to them."""
    K, N = p.network.neuron.n_currents, p.network.n_rec
    changed = {}
    for n, name in enumerate(("W_rec", "W_in")):
        own = torch.zeros(K, N, p.params[name].shape[1], dtype=torch.bool)
        if name == "W_in":
            own[:, list(pair)] = True
        else:
            own[:, pair[0], pair[1]] = own[:, pair[1], pair[0]] = True
        other = randn(90 + n, *p.params[name].shape)
        changed[name] = torch.where(own.flatten(0, 1), p.params[name], other)
    return clamped(p, p.at(**changed), currents)


def other_neurons(p: Problem, currents: Tensor, pair: tuple[int, int]) -> Problem:
    """Other currents of all neurons but the two."""
    moved = currents + randn(92, *currents.shape)
    moved[..., list(pair)] = currents[..., list(pair)]
    return clamped(p, p, moved)


def other_readout(p: Problem, currents: Tensor, pair: tuple[int, int]) -> Problem:
    """Readout weights of other sizes and the same signs."""
    factor = torch.exp2(2 * randn(93, *p.params["W_out"].shape).tanh())
    return clamped(p, p.at(W_out=p.params["W_out"] * factor), currents)
