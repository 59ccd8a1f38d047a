"""Problems on which rules and neurons are examined: nothing here knows a rule.

A problem is generic: no weight is zero, square or symmetric, the initial state is random, α < 1, T >= 6, float64.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from bpgen.losses import Loss, LossName, When
from bpgen.network import Network
from bpgen.neurons import ALIF, GRU, LIF, LSTM, Leaky, Neuron
from bpgen.problem import Problem
from bpgen.streams import generator

RECURRENT = ("W_rec", "W_in", "b_rec")
READOUT = ("W_out", "b_out")


def neurons() -> dict[str, Neuron]:
    """One neuron of every kind, from the simplest on."""
    return {
        "Leaky": Leaky(0.4, "tanh"),
        "Leaky, leak='rate'": Leaky(0.4, "tanh", "rate"),
        "Leaky, leak='inside'": Leaky(0.4, "tanh", "inside"),
        "LIF": LIF(0.4, surrogate="fast_sigmoid", drive="plain"),
        "ALIF": ALIF(0.4, surrogate="fast_sigmoid", drive="plain"),
        "GRU": GRU(),
        "LSTM": LSTM(),
    }


def randn(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers of a stream of their own, float64."""
    return torch.randn(*shape, generator=generator(seed, "conformance"), dtype=torch.float64)


def problem(
    neuron: Neuron,
    *,
    T: int = 7,
    B: int = 4,
    sizes: tuple[int, int, int] = (4, 5, 3),
    loss: LossName = "mse",
    when: When = "all",
    l2: float | None = None,
    seed: int = 0,
    **network_options: Any,
) -> Problem:
    """A generic problem, all weights shifted away from their start.

    Args:
        neuron: its neurons.
        T: steps.
        B: batch.
        sizes: numbers I of inputs, N of neurons, O of outputs.
        loss: cross_entropy or mse.
        when: last or all steps; all are weighted by a random mask.
        l2: coefficient of a regulariser.
        seed: of everything.
        **network_options: of `Network`; the initial state is given where it is no parameter of it.
    """
    options: dict[str, Any] = {"bias": "both", **network_options}
    I, N, O = sizes
    network = Network(neuron, I, N, O, dtype=torch.float64, seed=seed, **options)
    first = 100 * seed
    with torch.no_grad():
        for i, p in enumerate(network.parameters()):
            p.add_(randn(first + i, *p.shape), alpha=0.4)
        if neuron.spiking:  # near enough to the threshold to have a slope
            network.W_in.mul_(2.0)
    steps = (T, B) if when == "all" else (B,)
    if loss == "mse":
        target = randn(first + 20, *steps, O)
    else:
        target = torch.randint(O, steps, generator=generator(first + 20, "conformance"))
    mask = randn(first + 21, T, B).abs() + 0.1 if when == "all" else None
    s_0 = None if options.get("trainable_initial_state") else randn(first + 22, B, neuron.n_states, N)
    x = randn(first + 23, T, B, I)
    return Problem(network, network.params(), x, target, Loss.of(loss, when, mask, l2), s_0)


def clone(network: Network) -> Network:
    """A network of its own with the same structure and weights."""
    return deepcopy(network)
