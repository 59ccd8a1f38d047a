"""Checks of the credit itself, in the limits in which a rule claims to be exact, against autograd.

Without recurrent weights a neuron's own path is all there is. Five checks then take it apart, each sensitive to one
ingredient alone, so that the one that fails names the mistake. The first four do not ask what is remembered:
    feedback   linear neurons, α = 1, loss at the last step: direction of ∂L/∂b_rec = Σ c_t     the learning signal
    slope      the same with tanh neurons                                                      φ'
    timing     linear neurons, α = 1, loss at step 1 alone: directions of ∂L/∂W                 which step's activity
    gain       linear neurons, α < 1, T = 1: size of ∂L/∂b_rec                                  C, scale of the feedback
    leak       linear neurons, α < 1, loss at all steps, ∂L/∂W                                  A
and one compares everything at once, on every neuron.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bpgen.neurons import Leaky
from bpgen.problem import Problem
from bpgen.rules.conformance.case import Case, Inapplicable
from bpgen.rules.conformance.check import (
    assert_apart,
    assert_same,
    only,
    prop,
    steps_are_no_gradients,
)
from bpgen.rules.conformance.problem import RECURRENT, ask, neurons, problem
from bpgen.rules.traits import Traits


def _not_without_hops(t: Traits) -> str:
    """Why W_rec = 0 is not a limit of this rule."""
    if t.limit.on_average:
        return "it claims its limit for the mean over draws only"
    promised = {"W_rec = 0", "always"} & set(t.limit.at)
    return steps_are_no_gradients(t) or ("" if promised else f"its traits say exact_when={str(t.limit)!r}")


def without_recurrence(p: Problem) -> Problem:
    """The problem without recurrent weights."""
    return p.at(W_rec=torch.zeros_like(p.params["W_rec"]))


def _like(p: Problem, **changed: Any) -> Problem:
    """The problem with other dynamics under the same weights."""
    neuron = p.network.neuron
    assert isinstance(neuron, Leaky)
    options = {"alpha": neuron.alpha, "activation": neuron.activation, "leak": neuron.leak, **changed}
    return replace(p, network=problem(Leaky(**options)).network)


def compare(
    case: Case, p: Problem, control: Problem, names: tuple[str, ...], differs: str, wrong: str, full: bool = False
) -> None:
    """The rule in its limit against autograd, seen to be sensitive to what tells `control` from `p`."""
    p, control = (case.at_its_weights(case.in_its_limit(q, full), q) for q in (p, control))
    expected = only(p.gradient(), names)
    assert_apart(control.gradient(), expected, names, differs)
    got = ask(case.in_its_limit(p, full), p).grads
    assert_same(only(got, names), expected, f"{wrong}: it should equal BPTT here")


def _compare_directions(
    case: Case, p: Problem, control: Problem, names: tuple[str, ...], differs: str, wrong: str
) -> None:
    """The same, whatever the sizes are."""
    p, control = (case.at_its_weights(case.in_its_limit(q), q) for q in (p, control))
    expected = _directions(only(p.gradient(), names))
    assert_apart(_directions(only(control.gradient(), names)), expected, names, differs)
    got = _directions(only(ask(case.in_its_limit(p), p).grads, names))
    assert_same(got, expected, f"{wrong}: it should point along BPTT's here")


def _directions(grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: g / g.norm().clamp_min(1e-300) for name, g in grads.items()}


def _same_error(control: Problem, p: Problem) -> Problem:
    """The control with the target that leaves its error what it is in `p`."""
    if p.loss.kind != "mse":
        return control
    return replace(control, target=p.target + control.outputs() - p.outputs())


@prop(
    "feedback takes the output error to the right neurons",
    "q_t = ē_t B with B [O,N]: a transposed or reshaped B sends the error elsewhere.",
    _not_without_hops,
)
def _feedback(case: Case) -> None:
    p = without_recurrence(case.leaky(1.0, "linear", when="last", loss="mse"))
    other = p.at(W_out=p.params["W_out"].flip(0))
    control = replace(other, target=p.target - p.outputs() + other.outputs())
    _compare_directions(case, p, control, ("b_rec",), "permuting W_out", "the learning signal q_t is wrong")


@prop(
    "the slope φ' of the activation is there",
    "credit of a current passes the non-linearity: c_t = α φ' q_t. Without φ' saturated neurons learn like others.",
    _not_without_hops,
)
def _slope(case: Case) -> None:
    p = without_recurrence(case.leaky(1.0, "tanh", when="last", loss="mse"))
    control = _same_error(_like(p, activation="linear"), p)
    wrong = "the slope of the activation is missing or misplaced"
    _compare_directions(case, p, control, ("b_rec",), "leaving out φ'", wrong)


@prop(
    "pre- and postsynaptic factors are of the right steps",
    "credit c_t meets h_{t-1} and x_t: one step early or late learns another association.",
    _not_without_hops,
)
def _timing(case: Case) -> None:
    p = without_recurrence(case.leaky(1.0, "linear"))
    mask = p.loss.mask
    if mask is not None:  # an error at the first step alone: no leak carries anything yet
        first = torch.zeros_like(mask)
        first[0] = mask[0]
        p = replace(p, loss=p.loss.with_mask(first))
    control = replace(p, x=p.x.roll(1, 0), initial_state=None if p.initial_state is None else -p.initial_state.flip(0))
    control = _same_error(control, p)
    wrong = "the factors are of the wrong steps"
    _compare_directions(case, p, control, ("W_rec", "W_in"), "a shift by one step", wrong)


@prop(
    "the credit of a current has the right size",
    "c_t = C_t D_t q_t: a missing or fixed α, or feedback of the wrong scale, is another learning rate.",
    _not_without_hops,
)
def _gain(case: Case) -> None:
    p = without_recurrence(case.leaky(0.4, "linear", when="last", loss="mse", T=1))
    control = _same_error(_like(p, alpha=0.8), p)
    wrong = "the size of the credit is wrong (α in C_t, or the scale of the feedback)"
    compare(case, p, control, ("b_rec",), "another α", wrong)


@prop(
    "the leak carries credit back with the right factor and sign",
    "a neuron remembers: λ_t = D q_t + A λ_{t+1} with A = 1-α, the same memory that the forward pass has.",
    _not_without_hops,
)
def _leak(case: Case) -> None:
    p = without_recurrence(case.leaky(0.4, "linear"))
    control = _same_error(_like(p, alpha=1.0), p)
    compare(case, p, control, ("W_rec", "W_in"), "leaving out the leak", "the own path through the leak is wrong")


def _on_every_neuron(case: Case, cut: Callable[[Problem], Problem], where: str, **options: Any) -> None:
    compared, reason = 0, ""
    for name, neuron in neurons().items():
        if not case.defined_for(name):
            continue
        try:
            p = case.accepts(neuron, **options)
            compare(case, cut(p), p, RECURRENT, f"on {name}, going to {where}", f"on {name}, {where}")
            compared += 1
        except Inapplicable as refusal:
            reason = str(refusal)
    if not compared:
        raise Inapplicable(reason or "no neuron of the suite is in its traits")


@prop(
    "equals BPTT at W_rec = 0, on every neuron",
    "without recurrent weights the own path is all there is, so a rule that keeps it whole is exact.",
    _not_without_hops,
)
def _no_recurrence(case: Case) -> None:
    _on_every_neuron(case, without_recurrence, "W_rec = 0")


@prop(
    "equals BPTT at T = 1, on every neuron",
    "in a single step credit has no time to cross a synapse.",
    lambda t: steps_are_no_gradients(t) or ("" if "T = 1" in t.limit.at else _not_without_hops(t)),
)
def _one_step(case: Case) -> None:
    _on_every_neuron(case, lambda p: p.steps(slice(1)), "T = 1")


@prop(
    "the error comes back through a leaky readout",
    "with κ > 0 an activity is heard for many steps: ē_t = κ ē_{t+1} + (1-κ) e_t reaches it.",
    _not_without_hops,
)
def _kappa(case: Case) -> None:
    p = without_recurrence(case.leaky(1.0, "linear", kappa=0.6))
    control = _same_error(replace(p, network=problem(p.network.neuron, kappa=0.0).network), p)
    compare(case, p, control, RECURRENT, "leaving out the filter", "the error is not filtered back through the readout")
