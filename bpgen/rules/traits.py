"""What a rule needs and costs, as data: the table that lets rules be compared without reading their code.

The conformance suite (`bpgen.conformance`) takes a rule at its word: it holds it to what its traits claim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Traits:
    """Traits of a temporal credit-assignment rule.

    signal_origin: who carries the output error to a neuron; "bootstrapped" is a learned prediction of the error.
    signal_scope: whether a neuron learns from its own error alone ("local"), from a broadcast of the output
        error ("broadcast"), from other neurons' credit ("network"), or from nothing ("none").
    recurrence: what is kept of the paths through the recurrent weights: no path at all ("none"), each neuron's
        own ("diagonal"), some of those between neurons, e.g. one hop ("sparse"), or all ("coupled").
    weight_transport: whether the exact forward weights are needed to carry the error.
    needs_future: whether an update waits for errors of later steps (backward in time).
    online: whether the rule can run forward in time with memory that does not grow with T.
    time_per_step, memory: order of cost for a batch element, in N neurons and T steps.
    stochastic: whether the gradient estimate draws random numbers.
    unbiased: whether its mean over these draws is the true gradient.
    neurons: names of the neurons it is defined for; empty means all.
    exact_when: the limit in which it equals BPTT, or "never". The conformance suite sets up "always", "W_rec = 0",
        "T = 1" and "linear neurons", each also "with symmetric feedback"; other limits only through `exact_with`.
    exact_with: constructor options under which that limit is reached, e.g. {"window": 1000}.
    exact_readout: whether W_out and b_out get their exact gradient.
    vmappable: whether `torch.func.vmap` can batch it over seeds; if not, seeds are looped over.
    update: "gradient" for the optimizer, or "step" for a finished weight change.
    """

    signal_origin: Literal["symmetric", "random feedback", "bootstrapped", "perturbation", "none"] = "symmetric"
    signal_scope: Literal["local", "broadcast", "network", "none"] = "network"
    recurrence: Literal["none", "diagonal", "sparse", "coupled"] = "coupled"
    weight_transport: bool = True
    needs_future: bool = True
    online: bool = False
    time_per_step: str = "N²"
    memory: str = "T N"
    stochastic: bool = False
    unbiased: bool = False
    neurons: tuple[str, ...] = ()
    exact_when: str = "never"
    exact_with: Mapping[str, Any] = field(default_factory=dict)
    exact_readout: bool = True
    vmappable: bool = True
    update: Literal["gradient", "step"] = "gradient"
