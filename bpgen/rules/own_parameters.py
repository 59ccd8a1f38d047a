"""A neuron's own parameters, which act on nothing but itself: what is theirs by name, and how it starts.

The parameters of neuron p that act on p alone are its own X = K·Q (+ d) (+ L) parameters: the weights of its K currents
from the Q presynaptic sources (h_{t-1}, x_t, 1), its d initial states where these are learned, and its L learned
parameters (`Neuron.learned`), each of which does what a current of its own does.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bpgen.network import Network, Structure


def presynaptic(params: Mapping[str, Tensor], h: Tensor, x: Tensor) -> Tensor:
    """The presynaptic side [...,Q] of all currents: h_{t-1} [...,N], x_t [...,I], and 1 where there is a bias b_rec."""
    bias = [torch.ones_like(h[..., :1])] if "b_rec" in params else []
    return torch.cat([h, x, *bias], dim=-1)


def gradients_of_own(network: Structure, params: Mapping[str, Tensor], own: Tensor) -> dict[str, Tensor]:
    """Gradients by parameter name, from those of every neuron's own parameters [N,X]."""
    K, Q = network.neuron.n_currents, network.n_rec + network.n_in + ("b_rec" in params)
    grads = by_source(network, params, own[:, : K * Q].unflatten(-1, (K, Q)).movedim(1, 0).flatten(0, 1))
    rest = own[:, K * Q :]
    if "initial_state" in params:
        grads["initial_state"], rest = rest.split([network.neuron.n_states, rest.shape[1] - network.neuron.n_states], 1)
        grads["initial_state"] = grads["initial_state"].mT
    return {**grads, **dict(zip(learned_of(network, params), rest.unbind(1), strict=True))}


def learned_of(network: Structure, params: Mapping[str, Tensor]) -> list[str]:
    """Names of the parameters that neurons learn of their own."""
    return [name for name in network.neuron.learned if name in params]


def by_source(network: Structure, params: Mapping[str, Tensor], W: Tensor) -> dict[str, Tensor]:
    """Gradients by parameter name, from those of all currents by all sources [K·N,Q], existing or not."""
    N, I = network.n_rec, network.n_in
    grads = {"W_rec": W[:, :N], "W_in": W[:, N : N + I]}
    if "b_rec" in params:
        grads["b_rec"] = W[:, -1]
    return grads


def own_influence(network: Network, params: Mapping[str, Tensor], batch: int) -> Tensor:
    """∂s_0/∂(own parameters) [B,d,X] of any neuron: a learned initial state acts on itself, nothing else does."""
    K, d = network.neuron.n_currents, network.neuron.n_states
    synapses = K * (network.n_rec + network.n_in + ("b_rec" in params))
    learned, of_neurons = d if "initial_state" in params else 0, len(learned_of(network, params))
    one = torch.zeros(d, synapses + learned + of_neurons)
    one[:, synapses : synapses + learned] = torch.eye(d)[:, :learned]
    return one.to(params["W_rec"]).expand(batch, -1, -1)
