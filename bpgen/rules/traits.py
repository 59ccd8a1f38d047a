"""What a rule needs and costs, as data: the table that lets rules be compared without reading their code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Traits:
    """Traits of a temporal credit-assignment rule.

    signal_origin: who carries the output error to a neuron.
    signal_scope: whether a neuron learns from its own error alone ("local"), from a broadcast of the output
        error ("broadcast"), from other neurons' credit ("network"), or from nothing ("none").
    weight_transport: whether the exact forward weights are needed to carry the error.
    needs_future: whether an update waits for errors of later steps (backward in time).
    online: whether the rule can run forward in time with memory that does not grow with T.
    time_per_step, memory: order of cost for a batch element, in N neurons and T steps.
    stochastic: whether the gradient estimate draws random numbers.
    neurons: names of the neurons it is defined for; empty means all.
    exact_when: the limit in which it equals BPTT, or "never".
    update: "gradient" for the optimizer, or "step" for a finished weight change.
    """

    signal_origin: Literal["symmetric", "random feedback", "none", "perturbation"] = "symmetric"
    signal_scope: Literal["local", "broadcast", "network", "none"] = "network"
    weight_transport: bool = True
    needs_future: bool = True
    online: bool = False
    time_per_step: str = "N²"
    memory: str = "T N"
    stochastic: bool = False
    neurons: tuple[str, ...] = ()
    exact_when: str = "never"
    update: Literal["gradient", "step"] = "gradient"
