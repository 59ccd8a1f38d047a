"""The neuron under examination: fresh copies of it, and states that it can reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bpgen.conformance.check import Outcome, Suite
from bpgen.conformance.problem import problem, randn
from bpgen.network import Trajectory
from bpgen.network.readout import filtered_back
from bpgen.neurons import Neuron
from bpgen.problem import Problem
from bpgen.rules import propagate, weight_gradients
from bpgen.streams import generator

SUITE = Suite("dynamics", "life", "derivatives", "networks", "curvature")


@dataclass
class Case:
    """The neuron under examination: its class, and what the user chose of its options."""

    name: str
    cls: type[Neuron]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def exceptions(self) -> Mapping[str, str]:
        """Checks that it declares to fail, with reasons."""
        declared: Mapping[str, str] = getattr(self.cls, "conformance_exceptions", {})
        return declared

    def remarks(self, outcomes: Mapping[str, Outcome]) -> list[str]:
        """What its curvature is, where that is not the curvature of the true loss."""
        if not self.fresh().spiking:
            return []
        return ["It spikes: gradients and curvature are those of the surrogate network, whatever passes here."]

    def fresh(self) -> Neuron:
        """A new neuron, not yet in a network."""
        return self.cls(**self.options)

    def population(self, N: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> Neuron:
        """A new neuron as a network of N takes it."""
        return self.fresh().populate(N, generator(seed, "neuron"), dtype)

    @cached_property
    def d(self) -> int:
        """State components per neuron."""
        return self.fresh().n_states

    @cached_property
    def K(self) -> int:
        """Input currents per neuron."""
        return self.fresh().n_currents

    @property
    def simple(self) -> bool:
        """Whether the path in place is for it."""
        return self.fresh().in_place

    def problem(self, seed: int = 0, from_rest: bool = False, **options: Any) -> Problem:
        """A network of this neuron with random weights and inputs, from a state that it reaches, or from rest."""
        p = replace(problem(self.fresh(), seed=seed, **options), initial_state=None)
        if from_rest or options.get("trainable_initial_state"):
            return p
        before = replace(p, x=1.5 * randn(40 + seed, *p.x.shape))
        return replace(p, initial_state=before.run(in_place=False).states[-1].clone())

    @cached_property
    def trajectory(self) -> Trajectory:
        """A run of such a network: states and currents as they come."""
        with torch.no_grad():
            return self.problem().run(in_place=False)

    def states_and_currents(self) -> tuple[Neuron, Tensor, Tensor]:
        """The population of that run, with states [T·B,d,N] and the currents [T·B,K,N] that come next."""
        run = self.trajectory
        return run.network.neuron, run.states[:-1].flatten(0, 1), run.currents[1:].flatten(0, 1)


def bptt(p: Problem, run: Trajectory) -> dict[str, Tensor]:
    """BPTT through the neuron's own gains."""
    _, error = p.value_and_error(run)
    signal = filtered_back(error, p.network.kappa, run.n_steps) @ run.params["W_out"]
    return weight_gradients(run, propagate(run, signal, carrier=run.params["W_rec"]), error)
