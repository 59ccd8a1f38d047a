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
from torch.func import vmap

from bpgen.neurons import Leaky, Neuron
from bpgen.rules.conformance.check import (
    Case,
    Inapplicable,
    assert_apart,
    assert_same,
    only,
    prop,
    steps_are_no_gradients,
)
from bpgen.rules.conformance.problem import READOUT, RECURRENT, Problem, gap, neurons, problem, randn
from bpgen.rules.traits import Traits

WEIGHTS = (*RECURRENT, *READOUT)


def _not_alone(t: Traits) -> str:
    """Why W_rec = 0 is not a limit of this rule."""
    if t.stochastic and ("expectation" in t.exact_when or "mean" in t.exact_when):
        return "it claims its limit for the mean over draws only"
    promised = "W_rec = 0" in t.exact_when or t.exact_when.startswith("always")
    return steps_are_no_gradients(t) or ("" if promised else f"its traits say exact_when={t.exact_when!r}")


def _alone(p: Problem) -> Problem:
    """The problem without recurrent weights."""
    return p.with_params(W_rec=torch.zeros_like(p.params["W_rec"]))


def _like(p: Problem, **changed: Any) -> Problem:
    """The problem with other dynamics under the same weights."""
    neuron = p.network.neuron
    assert isinstance(neuron, Leaky)
    options = {"alpha": neuron.alpha, "activation": neuron.activation, "leak": neuron.leak, **changed}
    return replace(p, network=problem(Leaky(**options)).network)


def _compare(case: Case, p: Problem, control: Problem, names: tuple[str, ...], differs: str, wrong: str) -> None:
    """The rule in its limit against autograd, seen to be sensitive to what tells `control` from `p`."""
    expected = only(p.true_gradients(), names)
    assert_apart(control.true_gradients(), expected, names, differs)
    got = p.ask(case.in_its_limit(p)).grads
    assert_same(only(got, names), expected, f"{wrong}: it should equal BPTT here")


@prop(
    "feedback takes the output error to the right neurons",
    "q_t = ē_t B with B [O,N]: a transposed, reshaped or wrongly scaled B sends the error elsewhere.",
    _not_alone,
)
def _feedback(case: Case) -> None:
    p = _alone(case.leaky(1.0, "linear", when="last", loss="mse"))
    other = replace(p, target=p.target - p.outputs() + p.with_params(W_out=p.params["W_out"].flip(0)).outputs())
    control = other.with_params(W_out=p.params["W_out"].flip(0))
    _compare(case, p, control, ("b_rec",), "permuting W_out", "the learning signal q_t is wrong")


@prop(
    "the slope φ' of the activation is there",
    "credit of a current passes the non-linearity: c_t = α φ' q_t. Without φ' saturated neurons learn like others.",
    _not_alone,
)
def _slope(case: Case) -> None:
    p = _alone(case.leaky(1.0, "tanh", when="last", loss="mse"))
    control = _like(p, activation="linear")
    control = replace(control, target=p.target + control.outputs() - p.outputs())  # the same error
    _compare(case, p, control, ("b_rec",), "leaving out φ'", "the slope of the activation is missing or misplaced")


@prop(
    "pre- and postsynaptic factors are of the right steps",
    "credit c_t meets h_{t-1} and x_t: one step early or late learns another association.",
    _not_alone,
)
def _timing(case: Case) -> None:
    p = _alone(case.leaky(1.0, "linear"))
    control = replace(p, x=p.x.roll(1, 0))
    control = replace(control, target=_shifted_target(p, control))
    _compare(case, p, control, ("W_rec", "W_in"), "a shift by one step", "the factors are of the wrong steps")


def _shifted_target(p: Problem, q: Problem) -> torch.Tensor:
    """The target that leaves the error of `q` what it is in `p`."""
    return p.target + q.outputs() - p.outputs() if p.loss.kind == "mse" else p.target


@prop(
    "the leak carries credit back with the right factor and sign",
    "a neuron remembers: λ_t = D q_t + A λ_{t+1} with A = 1-α, the same memory that the forward pass has.",
    _not_alone,
)
def _leak(case: Case) -> None:
    p = _alone(case.leaky(0.4, "linear"))
    control = _like(p, alpha=1.0)
    control = replace(control, target=_shifted_target(p, control))
    _compare(case, p, control, ("W_rec", "W_in"), "leaving out the leak", "the own path through the leak is wrong")


def _on_every_neuron(case: Case, cut: Callable[[Problem], Problem], where: str, **options: Any) -> None:
    compared, reason = 0, ""
    for name, neuron in neurons().items():
        if not case.defined_for(name):
            continue
        try:
            p = case.accepts(neuron, **options)
            _compare(case, cut(p), p, RECURRENT, f"on {name}, going to {where}", f"on {name}, {where}")
            compared += 1
        except Inapplicable as refusal:
            reason = str(refusal)
    if not compared:
        raise Inapplicable(reason or "no neuron of the suite is in its traits")


@prop(
    "equals BPTT at W_rec = 0, on every neuron",
    "without recurrent weights the own path is all there is, so a rule that keeps it whole is exact.",
    _not_alone,
)
def _no_recurrence(case: Case) -> None:
    _on_every_neuron(case, _alone, "W_rec = 0")


@prop(
    "equals BPTT at T = 1, on every neuron",
    "in a single step credit has no time to cross a synapse.",
    lambda t: steps_are_no_gradients(t) or ("" if "T = 1" in t.exact_when else _not_alone(t)),
)
def _one_step(case: Case) -> None:
    _on_every_neuron(case, lambda p: p.steps(1), "T = 1")


@prop(
    "the error comes back through a leaky readout",
    "with κ > 0 an activity is heard for many steps: ē_t = κ ē_{t+1} + (1-κ) e_t reaches it.",
    _not_alone,
)
def _kappa(case: Case) -> None:
    p = _alone(case.leaky(1.0, "linear", kappa=0.6))
    control = replace(p, network=problem(p.network.neuron, kappa=0.0).network)
    control = replace(control, target=_shifted_target(p, control))
    _compare(
        case, p, control, RECURRENT, "leaving out the filter", "the error is not filtered back through the readout"
    )


def _in_full(t: Traits) -> str:
    partly = any(limit in t.exact_when for limit in ("W_rec = 0", "T = 1"))
    exact = t.exact_when.startswith("always") or "linear neurons" in t.exact_when or (t.exact_with and not partly)
    return steps_are_no_gradients(t) or ("" if exact else f"its traits say exact_when={t.exact_when!r}")


@prop(
    "equals BPTT with recurrent weights, in the limit it claims",
    "the strongest claim a rule can make is checked on a network with everything in it.",
    _in_full,
)
def _exact(case: Case) -> None:
    linear = "linear neurons" in case.traits.exact_when
    candidates: dict[str, Neuron] = {"Leaky": Leaky(0.4, "linear")} if linear else neurons()
    compared, reason = 0, ""
    for name, neuron in candidates.items():
        if not case.defined_for(name):
            continue
        try:
            p = case.accepts(neuron, kappa=0.3)
            _compare(
                case, p, _alone(p), RECURRENT, f"on {name}, leaving out W_rec", f"on {name}, the gradient is wrong"
            )
            compared += 1
        except Inapplicable as refusal:
            reason = str(refusal)
    if not compared:
        raise Inapplicable(reason)


def _makes_no_local_claim(t: Traits) -> str:
    claims = t.recurrence in ("none", "diagonal") or not t.weight_transport or t.signal_scope in ("local", "broadcast")
    if t.exact_when.startswith("always") or t.unbiased:
        return "it claims to be exact"
    return steps_are_no_gradients(t) or ("" if claims else "it does not claim to be local")


@prop(
    "it is not BPTT in disguise",
    "a rule that says it is local and returns the true gradient went through autograd or W_rec somewhere: every "
    "comparison with BPTT would be void.",
    _makes_no_local_claim,
)
def _disguise(case: Case) -> None:
    p = case.problem()
    true, got = p.true_gradients(), p.ask(case.bound(p)).grads
    names = ("W_rec", "W_in")
    one, other = (torch.cat([g[n].flatten() for n in names]) for g in (true, got))
    assert one.norm() > 1e-9, "the check cannot see anything here: the true gradient is zero."
    if not other.any():
        return
    cosine = float(torch.dot(one, other) / one.norm() / other.norm())
    assert cosine < 0.9999, f"its gradient of W_rec and W_in points exactly along BPTT's (cosine {cosine:.6f})."


@prop(
    "its mean over draws is the true gradient",
    "'unbiased' is a claim about every component: z-tests along the true gradient and five random directions.",
    lambda t: "" if t.unbiased else "its traits do not claim it",
)
def _unbiased(case: Case) -> None:
    p = case.problem(T=6, B=2)
    true = torch.cat([g.flatten() for n, g in p.true_gradients().items() if n in RECURRENT])
    stacks = case.traits.vmappable
    rule, n_draws = case.bound(p), 8000 if stacks else 2000
    batch = [p.draws(rule, seed=s) for s in range(n_draws)]
    fixed = {"initial_state": p.s_0} if p.s_0 is not None else {}
    stacked = {n: torch.stack([d[n] for d in batch]) for n in batch[0] if n not in fixed}

    def one(draws: dict[str, torch.Tensor]) -> torch.Tensor:
        grads = p.ask(rule, {**draws, **fixed}).grads
        return torch.cat([grads[n].flatten() for n in p.params if n in RECURRENT])

    if stacks:
        samples = vmap(one, chunk_size=500)(stacked)
    else:
        samples = torch.stack([one({n: v[i] for n, v in stacked.items()}) for i in range(n_draws)])
    directions = [true / true.norm(), *(v / v.norm() for v in (randn(80 + i, len(true)) for i in range(5)))]
    for i, direction in enumerate(directions):
        along = samples @ direction
        error = float(along.std()) / len(along) ** 0.5
        z = (float(along.mean()) - float(true @ direction)) / max(error, 1e-300)
        label = "along the true gradient" if i == 0 else f"along random direction {i}"
        means = f"{float(along.mean()):.4g}, not {float(true @ direction):.4g}"
        assert abs(z) < 4.5, f"{label} the mean of {n_draws} draws is {means} (z = {z:.1f})."
    power = 4.5 * float((samples @ directions[0]).std()) / len(samples) ** 0.5 / float(true.norm())
    if power > 0.5:
        raise Inapplicable(f"its draws scatter so much that a bias of {power:.0%} could hide in {n_draws} of them")
    assert gap(samples[0], true) > 0.01, "a single draw is the true gradient already: it is not stochastic."
