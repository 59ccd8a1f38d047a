"""The rule under examination: fresh copies of it, and problems that it accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bpgen.conformance.check import Inapplicable, Outcome, Suite
from bpgen.conformance.problem import neurons, problem
from bpgen.errors import BpgenError
from bpgen.neurons import Leaky, Neuron
from bpgen.problem import Problem
from bpgen.rules.base import Rule, RuleGradients
from bpgen.rules.feedback import Feedback
from bpgen.rules.traits import Traits
from bpgen.streams import generator

SUITE = Suite("form", "purity", "answers", "ingredients", "limits", "claims", "paths", "blocks")

LOSSES: tuple[dict[str, Any], ...] = (
    {"loss": "mse", "when": "all"},
    {"loss": "cross_entropy", "when": "all"},
    {"loss": "cross_entropy", "when": "last"},
    {"loss": "mse", "when": "last"},
)


def prop(name: str, why: str, unless: Callable[[Traits], str] = lambda t: "") -> Callable[[Any], Any]:
    """Register a check of rules: `unless(traits)` is the reason why it does not apply to a rule, or ""."""
    return SUITE.prop(name, why, lambda case: unless(case.traits))


def steps_are_no_gradients(t: Traits) -> str:
    """The commonest reason to skip."""
    return "its updates are finished steps, not gradients" if t.update == "step" else ""


def draws_of(rule: Rule, p: Problem, seed: int = 0) -> dict[str, Tensor]:
    """The random numbers of one call of `rule.gradients`."""
    return dict(rule.draw(p.network, p.x, generator(seed, "draws")))


def ask(rule: Rule, p: Problem, draws: Mapping[str, Tensor] | None = None) -> RuleGradients:
    """The rule's answer."""
    with torch.no_grad():
        return rule.gradients(p, draws_of(rule, p) if draws is None else draws)


@dataclass
class Case:
    """The rule under examination: how to make a fresh one, and problems it accepts.

    make: the constructor. options: what the user chose of its arguments. claimed: traits in place of its own.
    """

    name: str
    make: Callable[..., Rule]
    cls: type[Rule]
    options: Mapping[str, Any] = field(default_factory=dict)
    claimed: Traits | None = None

    @property
    def traits(self) -> Traits:
        """What the rule says of itself."""
        return self.claimed or self.cls.traits

    @property
    def exceptions(self) -> Mapping[str, str]:
        """Checks that it declares to fail, with reasons."""
        return self.cls.conformance_exceptions

    def remarks(self, outcomes: Mapping[str, Outcome]) -> list[str]:
        """None here; see `bpgen.conformance.rules.findings.Examined`."""
        return []

    def bound(self, p: Problem, seed: int = 0, **options: Any) -> Rule:
        """A fresh rule bound to the network of a problem.

        Raises:
            Inapplicable: the rule refuses this network.
        """
        try:
            rule = self.make(**{**self.options, **options})
            rule.bind(p.network, seed)  # what it returns does not matter: an override may have forgotten to
            return rule
        except BpgenError as refusal:
            raise Inapplicable(str(refusal)) from refusal

    def accepts(self, neuron: Neuron, **options: Any) -> Problem:
        """A problem with these neurons and options of `problem`, with the first loss that the rule takes.

        Raises:
            Inapplicable: the rule refuses them all.
        """
        refused: Inapplicable | None = None
        for loss in LOSSES:
            trial = problem(neuron, **{**loss, **options})
            try:
                ask(self.bound(trial), trial)
            except Inapplicable as refusal:
                refused = refusal
            except BpgenError as refusal:
                refused = Inapplicable(str(refusal))
            else:
                return problem(neuron, **{**loss, **options})  # the rule may have overwritten the trial's weights
        raise refused or Inapplicable("no loss fits")

    def problem(self, **options: Any) -> Problem:
        """A problem with the first neurons that the rule takes: tanh units with a leaky potential where it can.

        Raises:
            Inapplicable: it takes none.
        """
        refused = []
        for name, neuron in neurons().items():
            if self.defined_for(name):
                try:
                    return self.accepts(neuron, **options)
                except Inapplicable as refusal:
                    refused.append(refusal)
        raise (*refused, Inapplicable(f"its traits name neurons unknown here: {', '.join(self.traits.neurons)}"))[0]

    def leaky(self, alpha: float, activation: Any, **options: Any) -> Problem:
        """The same with leaky neurons of this leak and activation."""
        if not self.defined_for("Leaky"):
            raise Inapplicable(f"it is defined for {', '.join(self.traits.neurons)}")
        refused = []
        for leak in ("potential", "rate", "inside"):
            try:
                return self.accepts(Leaky(alpha, activation, leak), **options)
            except Inapplicable as refusal:
                refused.append(refusal)
        raise refused[0]

    def defined_for(self, neuron: str) -> bool:
        """Whether the traits name the neuron; `neuron` may carry options after a comma."""
        return not self.traits.neurons or neuron.split(",")[0] in self.traits.neurons

    def in_its_limit(self, p: Problem, full: bool = False) -> Rule:
        """A fresh rule as its `exact_when` wants it: `exact_with` options, and with symmetric feedback.

        A rule that is exact in full (`full`) only with these options keeps its own in the limit of W_rec = 0.
        """
        options = self.traits.exact_with if full == self.traits.limit.in_full else {}
        return self.with_symmetric_feedback(p, required=self.traits.limit.symmetric_feedback, **options)

    def at_its_weights(self, rule: Rule, p: Problem) -> Problem:
        """The problem at the weights at which the rule is exact in its limit."""
        return p.at(**rule.limit_weights(p.params))

    def has_own_feedback(self) -> bool:
        """Whether the error reaches the neurons through a `Feedback` other than W_out.

        Raises:
            Inapplicable: it takes no network of the suite.
        """
        parts = self.bound(self.problem()).modules()
        return any(isinstance(part, Feedback) and part.kind != "symmetric" for part in parts)

    def with_symmetric_feedback(self, p: Problem, required: bool = False, **options: Any) -> Rule:
        """A fresh rule whose feedback weights, if it has any, are W_out.

        Raises:
            Inapplicable: it has none although they are `required`, or refuses the network.
        """
        rule = self.bound(p, **options)
        carriers = [m for m in rule.modules() if isinstance(m, Feedback)]
        if required and not carriers:
            raise Inapplicable("it has no bpgen.rules.Feedback whose weight could be set to W_out")
        for carrier in carriers:
            if carrier.kind != "symmetric":
                carrier.weight = p.params["W_out"].clone()
        return rule
