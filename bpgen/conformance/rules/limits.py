"""Checks on every neuron: that the rule runs, and that it equals autograd in the limits in which it claims to."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bpgen.conformance.check import Inapplicable
from bpgen.conformance.compare import assert_apart, assert_same, only
from bpgen.conformance.problem import RECURRENT, neurons, problem
from bpgen.conformance.rules.case import Case, ask, prop, steps_are_no_gradients
from bpgen.errors import BpgenError
from bpgen.neurons import Leaky
from bpgen.problem import Problem
from bpgen.rules.traits import Traits


def not_without_hops(t: Traits) -> str:
    """Why W_rec = 0 is not a limit of this rule."""
    if t.limit.on_average:
        return "it claims its limit for the mean over draws only"
    promised = {"W_rec = 0", "always"} & set(t.limit.at)
    return steps_are_no_gradients(t) or ("" if promised else f"its traits say exact_when={str(t.limit)!r}")


def without_recurrence(p: Problem) -> Problem:
    """The problem without recurrent weights."""
    return p.at(W_rec=torch.zeros_like(p.params["W_rec"]))


def compare(
    case: Case, p: Problem, control: Problem, names: tuple[str, ...], differs: str, wrong: str, full: bool = False
) -> None:
    """The rule in its limit against autograd, seen to be sensitive to what tells `control` from `p`."""
    p, control = (case.at_its_weights(case.in_its_limit(q, full), q) for q in (p, control))
    expected = only(p.gradient(), names)
    assert_apart(control.gradient(), expected, names, differs)
    got = ask(case.in_its_limit(p, full), p).grads
    assert_same(only(got, names), expected, f"{wrong}: it should equal BPTT here")


@prop(
    "runs on the neurons it is defined for, and refuses others",
    "a rule derived for one model and run on another is a lookalike: `bind` refuses what the traits do not name.",
)
def _neurons(case: Case) -> None:
    ran, loss = [], case.problem().loss
    for name, neuron in neurons().items():
        p = problem(neuron, loss=loss.kind, when=loss.when)
        if case.defined_for(name):
            try:
                result = ask(case.bound(p), p)
            except (Inapplicable, BpgenError):
                continue  # options of a neuron it names, refused in so many words
            except Exception as error:
                cure = "Name the neurons it is defined for in traits.neurons, or refuse these options in `bind`."
                raise AssertionError(f"on {name} it raised {type(error).__name__}: {error}. {cure}") from error
            ran.append(name)
            assert all(bool(g.isfinite().all()) for g in result.grads.values()), f"not finite on {name}."
        else:
            try:
                case.bound(p)
            except Inapplicable:
                continue
            raise AssertionError(f"`bind` takes {name}, which its traits do not name: call super().bind(network).")
    kinds = {name.split(",")[0] for name in ran}
    missing = set(case.traits.neurons or ("Leaky",)) - kinds
    assert not missing, f"its traits name {', '.join(sorted(missing))}, which it refuses."


def _on_every_neuron(case: Case, cut: Callable[[Problem], Problem], where: str) -> None:
    right: list[str] = []
    reason = ""
    for name, neuron in neurons().items():
        if not case.defined_for(name):
            continue
        try:
            p = case.accepts(neuron)
            compare(case, cut(p), p, RECURRENT, f"on {name}, going to {where}", f"on {name}, {where}")
        except Inapplicable as refusal:
            reason = str(refusal)
        except AssertionError as wrong:
            cure = f"take A, C and D from `trajectory.local`, or refuse {name} in `bind`."
            raise AssertionError(f"{wrong} It is right on {'; '.join(right)}: {cure}" if right else wrong) from None
        else:
            right.append(name)
    if not right:
        raise Inapplicable(reason or "no neuron of the suite is in its traits")


@prop(
    "equals BPTT at W_rec = 0, on every neuron",
    "without recurrent weights the own path is all there is, so a rule that keeps it whole is exact.",
    not_without_hops,
)
def _no_recurrence(case: Case) -> None:
    _on_every_neuron(case, without_recurrence, "W_rec = 0")


@prop(
    "equals BPTT at T = 1, on every neuron",
    "in a single step credit has no time to cross a synapse.",
    lambda t: steps_are_no_gradients(t) or ("" if "T = 1" in t.limit.at else not_without_hops(t)),
)
def _one_step(case: Case) -> None:
    _on_every_neuron(case, lambda p: p.steps(slice(1)), "T = 1")


@prop(
    "its limit says that the feedback is symmetric there",
    "a rule with feedback weights of its own equals BPTT where these are W_out alone, and its claim has to say so.",
    lambda t: "its traits name no limit" if t.limit.on_average or not t.limit.at else steps_are_no_gradients(t),
)
def _symmetric(case: Case) -> None:
    limit = case.traits.limit
    said = limit.symmetric_feedback or not case.has_own_feedback()
    assert said, f'it has feedback weights of its own: declare exact_when="{limit} with symmetric feedback".'


@prop(
    "trains what neurons learn of their own, or refuses it",
    "a time constant that is learned, and that no gradient reaches, stands still in silence.",
    steps_are_no_gradients,
)
def _learned(case: Case) -> None:
    if not case.defined_for("Leaky"):
        raise Inapplicable(f"it is defined for {', '.join(case.traits.neurons)}")
    p, learned = case.accepts(Leaky(0.4, "tanh", learn_alpha=True)), ("alpha_logit",)
    cure = "say trains_neurons = False, and `bind` refuses them"
    assert bool(ask(case.bound(p), p).grads["alpha_logit"].any()), f"the gradient of alpha_logit is zero: {cure}."
    if not not_without_hops(case.traits):
        wrong = f"on neurons that learn their leak, the gradient of it is wrong ({cure})"
        compare(case, without_recurrence(p), p, learned, "going to W_rec = 0", wrong)
