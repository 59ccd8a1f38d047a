"""Checks of what a rule claims as a whole: to be exact, to be something else than BPTT, to be right on average."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.func import vmap

from bpgen.conformance.check import Inapplicable
from bpgen.conformance.compare import assert_apart, assert_same, gap, only
from bpgen.conformance.problem import RECURRENT, neurons, problem, randn
from bpgen.conformance.rules.case import Case, ask, draws_of, prop, steps_are_no_gradients
from bpgen.conformance.rules.limits import compare, without_recurrence
from bpgen.errors import BpgenError
from bpgen.losses import Activity
from bpgen.neurons import Leaky
from bpgen.rules.traits import Traits


def _in_full(t: Traits) -> str:
    return steps_are_no_gradients(t) or ("" if t.limit.in_full else f"its traits say exact_when={str(t.limit)!r}")


@prop(
    "equals BPTT with recurrent weights, in the limit it claims",
    "the strongest claim a rule can make is checked on networks with everything in them.",
    _in_full,
)
def _exact(case: Case) -> None:
    linear = "linear neurons" in case.traits.limit.at
    compared, reason = 0, ""
    for name, neuron in ({"Leaky": Leaky(0.4, "linear")} if linear else neurons()).items():
        if not case.defined_for(name):
            continue
        for options in ({"kappa": 0.3}, {}):  # a readout filter may be refused
            try:
                p = case.accepts(neuron, **options)
                control = without_recurrence(p)
                compare(case, p, control, RECURRENT, f"on {name}, W_rec = 0", f"on {name}, it is wrong", full=True)
            except Inapplicable as refusal:
                reason = str(refusal)
            else:
                compared += 1
                break
    if not compared:
        raise Inapplicable(reason)


@prop(
    "equals BPTT under a cost of the activity and with output feedback, or refuses them",
    "both open paths of their own into the gradient: a rule that claims to be exact follows them or refuses them.",
    lambda t: _in_full(t) or ("" if "always" in t.limit.at else "it is exact in a limit only"),
)
def _extras(case: Case) -> None:
    plain = case.problem()
    costly = replace(plain, loss=replace(plain.loss, activity=Activity(0.7, "rate", 0.2)))
    fed_back = problem(plain.network.neuron, loss=plain.loss.kind, when=plain.loss.when, output_feedback=0.5)
    for p, what in ((costly, "a cost of the activity"), (fed_back, "output feedback")):
        expected = only(p.gradient(), RECURRENT)
        assert_apart(only(plain.gradient(), RECURRENT), expected, RECURRENT, what)
        try:
            got = ask(case.bound(p), p).grads
        except (BpgenError, Inapplicable):
            continue
        assert_same(only(got, RECURRENT), expected, f"with {what}, it should equal BPTT or refuse")


def _makes_no_local_claim(t: Traits) -> str:
    claims = t.recurrence in ("none", "diagonal") or not t.weight_transport or t.signal_scope in ("local", "broadcast")
    if "always" in t.limit.at or t.unbiased:
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
    true, got = p.gradient(), ask(case.bound(p), p).grads
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
    true = torch.cat([g.flatten() for n, g in p.gradient().items() if n in RECURRENT])
    stacks = case.traits.vmappable
    options = case.traits.exact_with if case.traits.limit.on_average else {}
    rule, n_draws = case.bound(p, **options), 8000 if stacks else 2000
    batch = [draws_of(rule, p, seed=s) for s in range(n_draws)]
    stacked = {n: torch.stack([d[n] for d in batch]) for n in batch[0]}

    def one(draws: dict[str, torch.Tensor]) -> torch.Tensor:
        grads = ask(rule, p, draws).grads
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
