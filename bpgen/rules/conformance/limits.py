"""Checks of the credit itself, in the limits in which a rule claims to be exact, against autograd.

Without recurrent weights a neuron's own path is all there is. Four checks then take it apart, each sensitive to one
ingredient alone, so that the one that fails names the mistake:
    feedback   linear neurons, α = 1, loss at the last step, ∂L/∂b_rec = Σ c_T          the learning signal, C and D
    slope      the same with tanh neurons                                              φ'
    timing     linear neurons, α = 1, loss at all steps, ∂L/∂W_rec and ∂L/∂W_in         which step's activity
    leak       the same with α < 1                                                     A
and one compares everything at once, on every neuron.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

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
from bpgen.rules.conformance.problem import READOUT, RECURRENT, ask, neurons, problem
from bpgen.rules.traits import Traits

WEIGHTS = (*RECURRENT, *READOUT)


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
    expected = only(p.gradient(), names)
    assert_apart(control.gradient(), expected, names, differs)
    got = ask(case.in_its_limit(p, full), p).grads
    assert_same(only(got, names), expected, f"{wrong}: it should equal BPTT here")


@prop(
    "feedback takes the output error to the right neurons",
    "q_t = ē_t B with B [O,N]: a transposed, reshaped or wrongly scaled B sends the error elsewhere.",
    _not_without_hops,
)
def _feedback(case: Case) -> None:
    p = without_recurrence(case.leaky(1.0, "linear", when="last", loss="mse"))
    other = replace(p, target=p.target - p.outputs() + p.at(W_out=p.params["W_out"].flip(0)).outputs())
    control = other.at(W_out=p.params["W_out"].flip(0))
    compare(case, p, control, ("b_rec",), "permuting W_out", "the learning signal q_t is wrong")


@prop(
    "the slope φ' of the activation is there",
    "credit of a current passes the non-linearity: c_t = α φ' q_t. Without φ' saturated neurons learn like others.",
    _not_without_hops,
)
def _slope(case: Case) -> None:
    p = without_recurrence(case.leaky(1.0, "tanh", when="last", loss="mse"))
    control = _like(p, activation="linear")
    control = replace(control, target=p.target + control.outputs() - p.outputs())  # the same error
    compare(case, p, control, ("b_rec",), "leaving out φ'", "the slope of the activation is missing or misplaced")


@prop(
    "pre- and postsynaptic factors are of the right steps",
    "credit c_t meets h_{t-1} and x_t: one step early or late learns another association.",
    _not_without_hops,
)
def _timing(case: Case) -> None:
    p = without_recurrence(case.leaky(1.0, "linear"))
    control = replace(p, x=p.x.roll(1, 0))
    control = replace(control, target=_shifted_target(p, control))
    compare(case, p, control, ("W_rec", "W_in"), "a shift by one step", "the factors are of the wrong steps")


def _shifted_target(p: Problem, q: Problem) -> torch.Tensor:
    """The target that leaves the error of `q` what it is in `p`."""
    return p.target + q.outputs() - p.outputs() if p.loss.kind == "mse" else p.target


@prop(
    "the leak carries credit back with the right factor and sign",
    "a neuron remembers: λ_t = D q_t + A λ_{t+1} with A = 1-α, the same memory that the forward pass has.",
    _not_without_hops,
)
def _leak(case: Case) -> None:
    p = without_recurrence(case.leaky(0.4, "linear"))
    control = _like(p, alpha=1.0)
    control = replace(control, target=_shifted_target(p, control))
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
    control = replace(p, network=problem(p.network.neuron, kappa=0.0).network)
    control = replace(control, target=_shifted_target(p, control))
    compare(case, p, control, RECURRENT, "leaving out the filter", "the error is not filtered back through the readout")
