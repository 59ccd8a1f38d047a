"""What a rule needs and costs, as data: the table that lets rules be compared without reading their code.

The conformance suite (`bpgen.conformance`) takes a rule at its word: it holds it to what its traits claim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from bpgen.errors import require

Place = Literal["always", "by its options", "W_rec = 0", "T = 1", "linear neurons"]


@dataclass(frozen=True)
class Limit:
    """Where a rule equals BPTT.

    at: what the conformance suite sets up to see it; nothing, where it cannot. "by its options" is always, but under
        the options of `Traits.exact_with` alone.
    symmetric_feedback: whether the feedback weights have to be W_out there.
    on_average: whether it is meant of the mean over the rule's draws.
    condition: what else has to hold, in words.
    """

    at: tuple[Place, ...] = ()
    symmetric_feedback: bool = False
    on_average: bool = False
    condition: str = ""

    @property
    def in_full(self) -> bool:
        """Whether it speaks of networks with recurrent weights."""
        return bool({"always", "by its options", "linear neurons"} & set(self.at))

    @classmethod
    def of(cls, value: Limit | str) -> Limit:
        """Accept a limit, or one in words: "never", or one of the places, alone or "... with symmetric feedback".

        Raises:
            BpgenError: any other words.
        """
        if isinstance(value, Limit):
            return value
        place, feedback = value.removesuffix(" with symmetric feedback"), value.endswith(" with symmetric feedback")
        places = get_args(Place)
        require(
            place in (*places, "never"),
            f"exact_when must be 'never' or one of {', '.join(map(repr, places))}, each alone or followed by ' with "
            f"symmetric feedback', got {value!r}. Anything else is a bpgen.rules.Limit with its condition in words.",
        )
        return cls(() if place == "never" else (place,), feedback)  # type: ignore[arg-type]

    def __str__(self) -> str:
        text = " or ".join(place for place in self.at if place != "by its options")
        text += " with symmetric feedback" if self.symmetric_feedback else ""
        if self.on_average:
            text = f"{text} on average over its draws".strip()
        return ", ".join(part for part in (text, self.condition) if part) or "never"


@dataclass(frozen=True)
class Traits:
    """Traits of a temporal credit-assignment rule.

    signal_origin: who carries the output error to a neuron; "bootstrapped" is a learned prediction of the error;
        "local readouts" are the rule's own, which it compares with the targets: the outputs' error is not asked for.
    signal_scope: whether a neuron learns from its own error alone ("local"), from a broadcast of the output
        error ("broadcast"), from other neurons' credit ("network"), or from nothing ("none").
    recurrence: what is kept of the paths through the recurrent weights: no path at all ("none"), each neuron's
        own ("diagonal"), some of those between neurons, e.g. one hop ("sparse"), or all ("coupled").
    weight_transport: whether the exact forward weights are needed to carry the error.
    needs_future: whether an update waits for errors of later steps (backward in time). A rule that does not could run
        forward in time, whether or not it is written so here (`online`).
    online: whether it runs forward in time here, with memory that does not grow with T: a `bpgen.rules.OnlineRule`.
    time_per_step, memory: order of cost for a batch element, in N neurons and T steps.
    stochastic: whether the gradient estimate draws random numbers.
    unbiased: whether its mean over these draws is the true gradient.
    neurons: names of the neurons it is defined for; empty means all.
    exact_when: the limit in which it equals BPTT, a `Limit` or its words (`Limit.of`). Declare the weakest one that is
        true: with "never" no check of the suite knows what the gradient should be.
    exact_with: constructor options under which that limit is reached, e.g. {"window": 1000}.
    exact_readout: whether W_out and b_out get their exact gradient.
    trains: names of the parameters it trains; empty means all.
    learns: names of the rule's own tensors that `Rule.learn` changes between batches, as in its state_dict.
    vmappable: whether `torch.func.vmap` can batch it over seeds; if not, seeds are looped over.
    update: "gradient" for the optimizer, or "step" for a finished weight change.
    """

    signal_origin: Literal["symmetric", "random feedback", "local readouts", "bootstrapped", "perturbation", "none"] = (
        "symmetric"
    )
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
    exact_when: Limit | str = "never"
    exact_with: Mapping[str, Any] = field(default_factory=dict)
    exact_readout: bool = True
    trains: tuple[str, ...] = ()
    learns: tuple[str, ...] = ()
    vmappable: bool = True
    update: Literal["gradient", "step"] = "gradient"

    def __post_init__(self) -> None:
        Limit.of(self.exact_when)  # words that no check understands are found where they are written

    @property
    def limit(self) -> Limit:
        """`exact_when` as a `Limit`."""
        return Limit.of(self.exact_when)

    def plain(self) -> dict[str, Any]:
        """As JSON may hold it."""
        return {**vars(self), "exact_when": str(self.limit), "exact_with": dict(self.exact_with)}
