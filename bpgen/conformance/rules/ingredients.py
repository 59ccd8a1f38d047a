"""Checks of the ingredients of credit, one by one, so that the one that fails names the mistake.

Without recurrent weights a neuron's own path is all there is, and BPTT by autograd knows it. Each check is sensitive to
one ingredient alone; the first four do not ask what is remembered:
    feedback   near rest, α = 1, loss at the last step: direction of ∂L/∂b_rec = Σ c_t       the learning signal
    timing     near rest, α = 1, loss at step 1 alone: directions of ∂L/∂W                   which step's activity
    slope      as feedback, far from rest, for two activations                                   φ'
    gain       near rest, α < 1, T = 1: size of ∂L/∂b_rec                                    C, scale of the feedback
    leak       near rest, another α < 1, loss at all steps: ∂L/∂W                            A
    readout    near rest, α = 1, κ > 0: ∂L/∂W                                                the error's way back
Near rest the slope of a tanh neuron is 1, whether a rule takes it from the trajectory, has it typed in, or forgets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bpgen.conformance.check import Inapplicable
from bpgen.conformance.compare import assert_apart, assert_same, only
from bpgen.conformance.problem import RECURRENT, problem
from bpgen.conformance.rules.case import Case, ask, prop
from bpgen.conformance.rules.limits import compare, not_without_hops, without_recurrence
from bpgen.neurons import Leaky
from bpgen.problem import Problem

_REST = 1e-5  # size of currents and states near rest: φ' differs from 1 by its square


def _near_rest(case: Case, alpha: float, **options: Any) -> Problem:
    """tanh neurons without recurrent weights, whose states stay so small that φ' = 1."""
    p = without_recurrence(case.leaky(alpha, "tanh", **options))
    small = {name: _REST * p.params[name] for name in ("W_in", "b_rec") if name in p.params}
    start = None if p.initial_state is None else _REST * p.initial_state
    return replace(p.at(**small), initial_state=start)


def _like(p: Problem, **changed: Any) -> Problem:
    """The problem with other dynamics under the same weights."""
    neuron = p.network.neuron
    assert isinstance(neuron, Leaky)
    options = {"alpha": neuron.alpha, "activation": neuron.activation, "leak": neuron.leak, **changed}
    return replace(p, network=problem(Leaky(**options)).network)


def _same_error(control: Problem, p: Problem) -> Problem:
    """The control with the target that leaves its error what it is in `p`."""
    if p.loss.kind != "mse":
        return control
    return replace(control, target=p.target + control.outputs() - p.outputs())


def _directions(grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: g / g.norm().clamp_min(1e-300) for name, g in grads.items()}


def _compare_directions(
    case: Case, p: Problem, control: Problem, names: tuple[str, ...], differs: str, wrong: str
) -> None:
    """As `compare`, whatever the sizes are."""
    p, control = (case.at_its_weights(case.in_its_limit(q), q) for q in (p, control))
    expected = _directions(only(p.gradient(), names))
    assert_apart(_directions(only(control.gradient(), names)), expected, names, differs)
    got = only(ask(case.in_its_limit(p), p).grads, names)
    lost = [name for name, g in got.items() if not g.any()]
    assert not lost, f"{wrong}: the gradient of {', '.join(lost)} is zero, and BPTT's is not."
    assert_same(_directions(got), expected, f"{wrong}: it should point along BPTT's here")


def _times_bptt(case: Case, p: Problem) -> float | None:
    """The factor by which the rule's ∂L/∂b_rec is BPTT's; None where it is not along it."""
    p = case.at_its_weights(case.in_its_limit(p), p)
    got, expected = ask(case.in_its_limit(p), p).grads["b_rec"], p.gradient()["b_rec"]
    factor = float(got @ expected / (expected @ expected))
    return factor if (got - factor * expected).norm() < 1e-6 * expected.norm() else None


@prop(
    "feedback takes the output error to the right neurons",
    "q_t = ē_t B with B [O,N]: a transposed or reshaped B sends the error elsewhere.",
    not_without_hops,
)
def _feedback(case: Case) -> None:
    p = _near_rest(case, 1.0, when="last", loss="mse")
    other = p.at(W_out=p.params["W_out"].flip(0))
    control = replace(other, target=p.target - p.outputs() + other.outputs())
    _compare_directions(case, p, control, ("b_rec",), "permuting W_out", "the learning signal q_t is wrong")


@prop(
    "pre- and postsynaptic factors are of the right steps",
    "credit c_t meets h_{t-1} and x_t: one step early or late learns another association.",
    not_without_hops,
)
def _timing(case: Case) -> None:
    p = _near_rest(case, 1.0)
    mask = p.loss.mask
    if mask is not None:  # an error at the first step alone: no leak carries anything yet
        first = torch.zeros_like(mask)
        first[0] = mask[0]
        p = replace(p, loss=p.loss.with_mask(first))
    control = replace(p, x=p.x.roll(1, 0), initial_state=None if p.initial_state is None else -p.initial_state.flip(0))
    control = _same_error(control, p)
    wrong = "the factors are of the wrong steps (an error at step 1 alone is the credit c_1, which meets h_0 and x_1)"
    _compare_directions(case, p, control, ("W_rec", "W_in"), "a shift by one step", wrong)


@prop(
    "the slope φ' of the activation is there",
    "credit of a current passes the non-linearity: c_t = α φ' q_t. Without φ' saturated neurons learn like others.",
    not_without_hops,
)
def _slope(case: Case) -> None:
    wrong = "the slope of the activation is missing or misplaced"
    for activation in ("tanh", "softplus"):
        try:
            p = without_recurrence(case.leaky(1.0, activation, when="last", loss="mse"))
        except Inapplicable:
            if activation == "tanh":
                raise
            return  # refused in so many words
        control = _same_error(_like(p, activation="linear"), p)
        _compare_directions(case, p, control, ("b_rec",), "leaving out φ'", wrong)
        wrong = (
            "the slope is right for tanh and wrong for softplus: take it from `trajectory.local`, or refuse in `bind`"
        )


@prop(
    "the credit of a current has the right size",
    "c_t = C_t D_t q_t: a missing or fixed α, or feedback of the wrong scale, is another learning rate.",
    not_without_hops,
)
def _gain(case: Case) -> None:
    alpha = 0.37  # a number that nobody types in
    p = _near_rest(case, alpha, when="last", loss="mse", T=1)
    control = _same_error(_like(p, alpha=0.8), p)
    factor = _times_bptt(case, p)
    seen = "" if factor is None else f"; it is {factor:.3g} times BPTT's, as if α = {alpha} were {factor * alpha:.3g}"
    wrong = f"the size of the credit is wrong (α in C_t, or the scale of the feedback{seen})"
    compare(case, p, control, ("b_rec",), "another α", wrong)


@prop(
    "the leak carries credit back with the right factor and sign",
    "a neuron remembers: λ_t = D q_t + A λ_{t+1} with A = 1-α, the same memory that the forward pass has.",
    not_without_hops,
)
def _leak(case: Case) -> None:
    alpha = 0.58
    p = _near_rest(case, alpha)
    control = _same_error(_like(p, alpha=1.0), p)
    wrong = f"the own path through the leak is wrong{_memory(case, alpha)}"
    compare(case, p, control, ("W_rec", "W_in"), "leaving out the leak", wrong)


def _memory(case: Case, alpha: float) -> str:
    """What the rule seems to take for the leak, seen in the credit of two steps for the error of the last."""
    try:
        one, two = (_times_bptt(case, _near_rest(case, alpha, when="last", loss="mse", T=T)) for T in (1, 2))
    except Inapplicable:
        return ""
    if not one or not two:
        return ""
    kept = (2 - alpha) * two / one - 1
    return f" (credit seems to keep {kept:.3g} of itself per step, where the state keeps 1-α = {1 - alpha:.3g})"


@prop(
    "the error comes back through a leaky readout",
    "with κ > 0 an activity is heard for many steps: ē_t = κ ē_{t+1} + (1-κ) e_t reaches it.",
    not_without_hops,
)
def _kappa(case: Case) -> None:
    p = _near_rest(case, 1.0, kappa=0.6)
    control = _same_error(replace(p, network=problem(p.network.neuron, kappa=0.0).network), p)
    compare(case, p, control, RECURRENT, "leaving out the filter", "the error is not filtered back through the readout")
