"""Numbers of every rule, curvature and stability on a fixed set of problems, in float64.

`python -m tests.numbers.record` writes them to `numbers.json.gz`; the test beside compares them to 1e-12. They were
first written by version 0.1, before its structure was redrawn: what is meant to change a number rewrites the file and
says so.

A gradient is kept as its norm and its product with one fixed random direction, a refusal as its first words.
"""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import bpgen
from bpgen.errors import BpgenError
from bpgen.neurons import ALIF, GRU, LIF, LSTM, Leaky, Neuron
from bpgen.streams import generator

FILE = Path(__file__).with_name("numbers.json.gz")
T, B, I, N, O = 7, 4, 4, 5, 3
NEURONS: dict[str, Callable[[], Neuron]] = {
    "potential": lambda: Leaky(0.4, "tanh"),
    "rate": lambda: Leaky(0.4, "tanh", "rate"),
    "inside": lambda: Leaky(0.4, "softplus", "inside"),
    "relu": lambda: Leaky(0.4, "relu"),
    "memoryless": lambda: Leaky(1.0, "relu"),
    "lif": lambda: LIF(0.4, surrogate="fast_sigmoid", drive="plain"),
    "alif": lambda: ALIF(0.4, surrogate="fast_sigmoid", drive="plain", reset="attached", n_refractory=1),
    "gru": GRU,
    "lstm": LSTM,
}
SITUATIONS: dict[str, dict[str, Any]] = {  # of the network and of the call
    "plain": {},
    "given start, L2": {"call": {"initial_state": True, "regulariser": 0.1}},
    "learned start": {"network": {"trainable_initial_state": True}},
    "learned start replaced": {"network": {"trainable_initial_state": True}, "call": {"initial_state": True}},
    "readout filter, sparse, activity": {
        "network": {"kappa": 0.5, "density": 0.7, "cell_types": {"E": 0.6, "I": 0.4}},
        "call": {"activity": 0.3},
    },
    "output feedback, noise": {"network": {"output_feedback": 0.4, "sigma_rec": 0.1, "bias": "none"}},
}
LOSSES = (("cross_entropy", "last"), ("cross_entropy", "all"), ("mse", "last"), ("mse", "all"))


def randn(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers of a stream of their own."""
    return torch.randn(*shape, generator=generator(seed, "numbers"), dtype=torch.float64)


def problem(
    neuron: str, loss: str, when: str, situation: str
) -> tuple[bpgen.Network, tuple[Tensor, Tensor], dict[str, Any]]:
    """A network, its batch, and the options of a call."""
    options = SITUATIONS[situation]
    cell = NEURONS[neuron]()
    network = bpgen.Network(
        cell, I, N, O, dtype=torch.float64, seed=1, **{"bias": "both", **options.get("network", {})}
    )
    with torch.no_grad():
        for i, p in enumerate(network.parameters()):
            p.add_(randn(i, *p.shape), alpha=0.4)
        if cell.spiking:
            network.W_in.mul_(2.0)
    steps = (T, B) if when == "all" else (B,)
    if loss == "mse":
        target = randn(20, *steps, O)
    else:
        target = torch.randint(O, steps, generator=generator(20, "numbers"))
    call = {"loss": loss, "when": when, **options.get("call", {})}
    if when == "all":
        call["mask"] = randn(21, T, B).abs() + 0.1
    if call.get("initial_state"):
        call["initial_state"] = randn(22, B, network.neuron.n_states, N)
    return network, (randn(23, T, B, I), target), call


def answer(ask: Callable[[], Any]) -> Any:
    """What a call returns, or how it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ask()
        except BpgenError:
            return "refused"


def of_gradients(rule: str, *where: str) -> Any:
    """Loss, and two numbers a weight."""
    network, batch, call = problem(*where)
    if rule == "rmhl":
        torch.manual_seed(0)

    def ask() -> list[float]:
        result = bpgen.gradients(rule, network, *batch, **call, seed=3)
        numbers = [float(result.loss), float(result.outputs.sum())]
        for i, name in enumerate(sorted(result.grads)):
            g = result.grads[name].double()
            numbers += [float(g.norm()), float((g * randn(40 + i, *g.shape)).sum())]
        return numbers

    return answer(ask)


def of_curvature(*where: str) -> Any:
    """Both ends of the spectrum of two blocks."""
    network, batch, call = problem(*where)

    def ask() -> list[float]:
        numbers: list[float] = []
        for block in ("W_rec", "all"):
            found = bpgen.sharpness(network, *batch, **call, block=block, definition="both", top=2, tol=1e-10)
            numbers += found.eigenvalues.tolist()
        return numbers

    return answer(ask)


def of_stability(rule: str, *where: str) -> Any:
    """The leading eigenvalue of the rule's own Jacobian, and the alignment."""
    network, batch, call = problem(*where)

    def ask() -> list[float]:
        found = bpgen.stability.stability(rule, network, *batch, **call, lr=0.1, probes=2, tol=1e-10)
        return [found.rho, found.cosine, found.lambda_max, found.rho_directional, float(found.mu[0].abs())]

    return answer(ask)


def numbers() -> Iterator[tuple[str, Any]]:
    """Every case by name, with its numbers."""
    from bpgen.registry import plugins

    for neuron in NEURONS:
        for loss, when in LOSSES:
            for situation in SITUATIONS:
                where = (neuron, loss, when, situation)
                for rule in plugins("rule"):
                    yield " | ".join((rule, *where)), of_gradients(rule, *where)
                if (loss, when) in (LOSSES[0], LOSSES[3]) or situation == "plain":
                    yield " | ".join(("curvature", *where)), of_curvature(*where)
            if loss == "mse" and when == "all":
                for rule in ("bptt", "three_factor", "rflo", "mdgl", "scaled_bptt"):
                    where = (neuron, loss, when, "plain")
                    yield " | ".join(("stability", rule, *where)), of_stability(rule, *where)


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in numbers())
    FILE.write_bytes(gzip.compress(("{\n" + rows + "\n}\n").encode(), mtime=0))
