"""Problems on which a rule is examined, and the true gradient by autograd: nothing here knows the credit kernel.

A problem is generic: no weight is zero, square or symmetric, the initial state is random, α < 1, T >= 6, float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bpgen.losses import L2, Loss, LossName, When
from bpgen.network import Network, Trajectory
from bpgen.neurons import ALIF, GRU, LIF, LSTM, Leaky, Neuron
from bpgen.rules.base import Rule, RuleGradients
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


@dataclass(frozen=True)
class Problem:
    """A network with the weights it is asked at, a batch and a loss; `s_0` [B,d,N] or None; noise [T,B,K·N]."""

    network: Network
    params: Mapping[str, Tensor]
    x: Tensor
    target: Tensor
    loss: Loss
    s_0: Tensor | None
    noise: Tensor | None = None

    def draws(self, rule: Rule, seed: int = 0) -> dict[str, Tensor]:
        """What a call of `rule.gradients` is handed besides the batch."""
        draws = dict(rule.draw(self.network, self.x, generator(seed, "draws")))
        given = {"initial_state": self.s_0, "current_noise": self.noise}
        return {**draws, **{name: value for name, value in given.items() if value is not None}}

    def ask(self, rule: Rule, draws: Mapping[str, Tensor] | None = None) -> RuleGradients:
        """The rule's answer."""
        draws = self.draws(rule) if draws is None else draws
        with torch.no_grad():
            return rule.gradients(self.network, self.params, self.x, self.target, self.loss, draws)

    def run(self, params: Mapping[str, Tensor] | None = None) -> Trajectory:
        """The network's run, as a pure function."""
        return self.network.run(
            self.params if params is None else params,
            self.x,
            when=self.loss.when,
            initial_state=self.s_0,
            current_noise=self.noise,
            in_place=False,
        )

    def outputs(self) -> Tensor:
        """The network's outputs [B,O] or [T,B,O]."""
        return self.run().outputs

    def activity(self) -> Tensor:
        """h [T+1,B,N]."""
        return self.run().h

    def true_gradients(self) -> dict[str, Tensor]:
        """∂L/∂w of every parameter, by autograd through the whole run."""
        params = {name: w.clone().requires_grad_() for name, w in self.params.items()}
        with torch.enable_grad():
            run = self.run(params)
            value = self.loss.total(run.outputs, self.target, params, run.h)
            grads = torch.autograd.grad(value, list(params.values()), allow_unused=True, materialize_grads=True)
        return dict(zip(params, grads, strict=True))

    def with_params(self, **changed: Tensor) -> Problem:
        """The same problem at other weights; the module keeps its own."""
        return replace(self, params={**self.params, **changed})

    def steps(self, first: int) -> Problem:
        """The same problem cut off after its `first` steps."""
        mask = None if self.loss.mask is None else self.loss.mask[:first]
        noise = None if self.noise is None else self.noise[:first]
        target = self.target[:first] if self.loss.when == "all" else self.target
        return replace(self, x=self.x[:first], target=target, loss=self.loss.with_mask(mask), noise=noise)

    def samples(self, part: slice) -> Problem:
        """The same problem on a part of its batch."""
        mask, noise, s_0 = self.loss.mask, self.noise, self.s_0
        return replace(
            self,
            x=self.x[:, part],
            target=self.target[:, part] if self.loss.when == "all" else self.target[part],
            loss=self.loss.with_mask(None if mask is None else mask[:, part]),
            noise=None if noise is None else noise[:, part],
            s_0=None if s_0 is None else s_0[part],
        )

    def to(self, dtype: torch.dtype) -> Problem:
        """The same problem in another precision."""

        def cast(value: Tensor | None) -> Tensor | None:
            return value.to(dtype) if value is not None and value.is_floating_point() else value

        network = clone(self.network).to(dtype)
        batch: dict[str, Any] = {name: cast(getattr(self, name)) for name in ("x", "target", "s_0", "noise")}
        params = {name: w.to(dtype) for name, w in self.params.items()}
        return replace(self, network=network, params=params, loss=self.loss.with_mask(cast(self.loss.mask)), **batch)


def clone(network: Network) -> Network:
    """A network of its own with the same structure and weights."""
    return deepcopy(network)


def problem(
    neuron: Neuron,
    *,
    T: int = 7,
    B: int = 4,
    loss: LossName = "mse",
    when: When = "all",
    masked: bool = True,
    l2: float | None = None,
    learned: bool = False,
    seed: int = 0,
    **network_options: Any,
) -> Problem:
    """A generic problem: N = 5 neurons, I = 4 inputs, O = 3 outputs, all weights shifted away from their start.

    Args:
        neuron: its neurons.
        T: steps.
        B: batch.
        loss: cross_entropy or mse.
        when: last or all steps.
        masked: whether the steps are weighted by a random mask, with when="all".
        l2: coefficient of a regulariser.
        learned: whether the initial state is a parameter instead of being given.
        seed: of everything.
        **network_options: of `Network`.
    """
    I, N, O = 4, 5, 3
    options: dict[str, Any] = {"bias": "both", "trainable_initial_state": learned, **network_options}
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
    mask = randn(first + 21, T, B).abs() + 0.1 if masked and when == "all" else None
    s_0 = None if learned else randn(first + 22, B, neuron.n_states, N)
    x = randn(first + 23, T, B, I)
    return Problem(network, network.params(), x, target, Loss(loss, when, mask, L2.of(l2)), s_0)


def gap(got: Tensor, expected: Tensor) -> float:
    """‖got - expected‖ / ‖expected‖; infinite where only the expected one is zero."""
    scale = float(expected.norm())
    return float((got - expected).norm()) / scale if scale > 0 else float("inf") if got.any() else 0.0
