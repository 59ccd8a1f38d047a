"""Checks of the paths: which weights and which times may have a say in the credit of a neuron.

The forward pass is held fixed while a weight is changed: what the weight no longer delivers is added as current
noise, or to the target. Everything a rule sees of the activity and of the error is then the same, and its gradient
can only change if it used the weight to carry credit.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from bpgen.conformance.check import Inapplicable
from bpgen.conformance.compare import assert_apart, assert_same, only
from bpgen.conformance.problem import RECURRENT, randn
from bpgen.conformance.rules.case import Case, ask, draws_of, prop, steps_are_no_gradients
from bpgen.problem import Problem
from bpgen.rules.chunks import gradients_of_chunk
from bpgen.rules.online import OnlineRule
from bpgen.rules.traits import Traits


def _perturbs(t: Traits) -> str:
    return "it measures the effect of weights by perturbation" if t.signal_origin == "perturbation" else ""


def _own_targets(t: Traits) -> str:
    own = t.signal_origin == "local readouts"
    return "it compares readouts of its own with the targets, which hold the error fixed here" if own else ""


def _other_W_rec(p: Problem) -> Problem:
    """Other recurrent weights under the same activity."""
    mask = p.network.masks().get("W_rec", torch.ones_like(p.params["W_rec"]))
    W_rec = randn(70, *mask.shape)
    noise = p.run(in_place=False).h[:-1] @ ((p.params["W_rec"] - W_rec) * mask).mT
    return replace(p.at(W_rec=W_rec), current_noise=noise if p.current_noise is None else p.current_noise + noise)


def _other_W_out(p: Problem) -> Problem:
    """Other readout weights (of the same signs) under the same error."""
    factor = torch.exp2(4 * torch.rand(p.params["W_out"].shape, dtype=torch.float64, generator=_generator()) - 2)
    q = p.at(W_out=p.params["W_out"] * factor)
    return replace(q, target=p.target + q.outputs() - p.outputs())


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(71)


@prop(
    "credit does not cross the recurrent weights",
    "a rule with recurrence 'none' or 'diagonal' keeps credit inside the neuron: with the activity held fixed, other "
    "W_rec give the same gradient.",
    lambda t: (
        steps_are_no_gradients(t)
        or _perturbs(t)
        or ("" if t.recurrence in ("none", "diagonal") else f"its traits say recurrence={t.recurrence!r}")
    ),
)
def _local(case: Case) -> None:
    p = case.problem()
    q = _other_W_rec(p)
    assert_apart(q.gradient(), p.gradient(), RECURRENT, "in BPTT, scrambling W_rec")
    rule = case.bound(p)
    draws = draws_of(rule, p)
    got = ask(case.bound(p), q, draws).grads
    expected = ask(rule, p, draws).grads
    assert_same(got, expected, "with the activity held fixed, scrambling W_rec changes the gradient", tol=1e-8)


@prop(
    "the error needs no weight transport",
    "a rule that claims to do without W_out may not use its values to carry the error: with the error held fixed, "
    "rescaling each entry of W_out (signs kept) gives the same gradient of W_rec and W_in.",
    lambda t: (
        steps_are_no_gradients(t)
        or _perturbs(t)
        or _own_targets(t)
        or ("its traits say that it needs weight transport" if t.weight_transport else "")
    ),
)
def _transport(case: Case) -> None:
    p = case.problem()
    if p.loss.kind != "mse":
        raise Inapplicable("the error can be held fixed for squared error only, which it refuses")
    q = _other_W_out(p)
    assert_apart(q.gradient(), p.gradient(), RECURRENT, "in BPTT, rescaling W_out")
    rule = case.bound(p)
    expected, got = (only(ask(rule_, r).grads, RECURRENT) for r, rule_ in ((p, rule), (q, case.bound(p))))
    if not any(g.any() for g in expected.values()):
        assert not any(g.any() for g in got.values())  # readout only: no credit at all
        return
    assert_same(got, expected, "with the error held fixed, rescaling W_out changes the gradient", tol=1e-8)


@prop(
    "the future does not leak back",
    "when no error comes after step t, what happens after t cannot matter: masking the tail equals truncating there.",
    lambda t: (
        steps_are_no_gradients(t) or _perturbs(t) or ("its draws belong to a whole sequence" if t.stochastic else "")
    ),
)
def _future(case: Case) -> None:
    p = case.problem()
    if p.loss.when != "all":
        raise Inapplicable("it refuses a loss at all steps, so no tail can be masked")
    T, cut = len(p.x), 4
    mask = randn(72, *p.x.shape[:2]).abs() + 0.1
    mask[cut:] = 0
    # the loss of T steps and that of `cut` steps are the same sum only if the weights are given
    tail = replace(p, loss=p.loss.with_mask(mask))
    changed = replace(tail, x=torch.cat([p.x[:cut], randn(73, *p.x[cut:].shape)]))
    expected = ask(case.bound(p), tail).grads
    whole = ask(case.bound(p), p).grads
    assert_apart(whole, expected, ["W_out"], f"the error of steps {cut + 1} to {T}")
    assert_same(ask(case.bound(p), changed).grads, expected, f"inputs after step {cut}, the last with an error, matter")
    assert_same(
        ask(case.bound(p), tail.steps(slice(cut))).grads, expected, "masking the tail does not equal truncating"
    )


def _in_chunks(case: Case, *lengths: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], list[int]]:
    """Gradients of a sequence, whole and added up over chunks at fixed weights, and the state's size after each."""
    p = case.problem(trainable_initial_state=True)
    rule = case.bound(p)
    if not isinstance(rule, OnlineRule):
        raise Inapplicable("it is not written step by step (bpgen.rules.OnlineRule)")
    if p.loss.when != "all":
        raise Inapplicable("it refuses a loss at all steps")
    draws, carry, first, sizes = draws_of(rule, p), None, 0, []
    added = {name: torch.zeros_like(w) for name, w in p.params.items()}
    other = replace(p, x=randn(74, *p.x.shape))
    for length in lengths:
        part = slice(first, first + length)
        drawn = {name: value[part] for name, value in draws.items()}
        with torch.no_grad():
            carry, result = gradients_of_chunk(
                rule, p.steps(part), carry, drawn, ends=part.stop == len(p.x), share=length / len(p.x)
            )
        first = part.stop
        ask(rule, other)  # a measurement between chunks
        sizes.append(sum(value.numel() for value in carry.state.values()))
        added = {name: total + result.grads[name] for name, total in added.items()}
    return ask(case.bound(p), p, draws).grads, added, sizes


@prop(
    "chunks carried across equal the whole sequence",
    "an online rule keeps all that it needs of the past in its state: cut anywhere, at fixed weights and with a "
    "measurement in between, nothing is lost.",
    lambda t: steps_are_no_gradients(t) or ("" if t.online else "its traits say that it is not online"),
)
def _chunks(case: Case) -> None:
    whole, added, _ = _in_chunks(case, 3, 1, 3)
    assert_same(added, whole, "the gradients of three chunks do not add up to that of the sequence")


@prop(
    "its memory does not grow with the sequence",
    "an online rule that keeps the past itself is offline in disguise, and a stream would fill the memory.",
    lambda t: "" if t.online else "its traits say that it is not online",
)
def _memory(case: Case) -> None:
    _, _, sizes = _in_chunks(case, 1, 2, 4)
    assert len(set(sizes)) == 1, f"after 1, 3 and 7 steps its state holds {', '.join(map(str, sizes))} numbers."


@prop(
    "one seed, one rule",
    "feedback weights and the like follow the seed given to `bind`, so that a run can be repeated.",
)
def _seeded(case: Case) -> None:
    p = case.problem()
    draws = draws_of(case.bound(p), p)
    one, same, other = (ask(case.bound(p, seed=s), p, draws).grads for s in (3, 3, 4))
    assert_same(same, one, "bound twice with one seed, it gives two gradients")
    if case.traits.signal_origin in ("random feedback", "local readouts") and case.options.get("seed") is None:
        assert_apart(other, one, ["W_rec"], "another seed")
