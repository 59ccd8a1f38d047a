"""Checks of the answer: the true loss, the readout, masked weights, batches, precision, seeds."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from bpgen.conformance.check import Inapplicable
from bpgen.conformance.compare import alive, assert_apart, assert_same, gap, only
from bpgen.conformance.problem import READOUT, RECURRENT, problem, randn
from bpgen.conformance.rules.case import LOSSES, Case, ask, draws_of, prop, steps_are_no_gradients
from bpgen.errors import BpgenError
from bpgen.losses import L2


@prop(
    "loss and outputs are the network's own",
    "`loss` is always the true loss of the true outputs, or curves of two rules cannot be compared.",
)
def _true_loss(case: Case) -> None:
    taken = 0
    for options, l2 in product(LOSSES, (0.1, None)):
        p = problem(case.problem().network.neuron, l2=l2, **options)
        try:
            result = ask(case.bound(p), p)
        except BpgenError:
            continue  # a loss or regulariser that it refuses in so many words
        taken += 1
        outputs = p.outputs()
        label = f"with loss={options['loss']!r}, when={options['when']!r}"
        assert result.outputs.shape == outputs.shape, (
            f"{label} outputs are {list(result.outputs.shape)}, not {list(outputs.shape)}."
        )
        assert gap(result.outputs, outputs) < 1e-9, f"{label} the outputs are not those of the network."
        value = p.loss.total(outputs, p.target, p.params)
        assert gap(result.loss, value) < 1e-9, (
            f"{label} the loss is {float(result.loss):.6g}, the network's is {float(value):.6g} (regulariser included)."
        )
    assert taken, "it refuses every loss."


@prop(
    "the readout has its exact gradient",
    "W_out is one step from the loss: ∂L/∂W_out = Σ_t e_t r_tᵀ with the unfiltered error e_t.",
    lambda t: steps_are_no_gradients(t) or ("" if t.exact_readout else "its traits do not claim it"),
)
def _readout(case: Case) -> None:
    for kappa in (0.0, 0.5):
        try:
            p = case.problem(kappa=kappa)
        except Inapplicable:
            if kappa:
                continue  # readouts with a filter are refused in so many words
            raise
        expected = p.gradient()
        other = replace(p, network=problem(p.network.neuron, kappa=0.9).network).gradient()
        assert_apart(other, expected, ["W_out"], "another readout filter")
        got = ask(case.bound(p), p).grads
        assert_same(only(got, READOUT), only(expected, READOUT), f"not the exact gradient at κ = {kappa}")


@prop(
    "no gradient where a weight cannot act",
    "a masked entry (an autapse, a missing block or synapse, an area that does not see the input or that the readout "
    "does not see) has no effect and so no gradient, whatever value is stored there.",
)
def _masks(case: Case) -> None:
    areas = {"first": {"size": 2, "input": True}, "last": {"size": 3, "readout": True, "from": {"first": 1.0}}}
    for options in ({"density": 0.6}, {"areas": areas}):
        p = case.problem(**options)
        masks = p.network.masks()
        got = ask(case.bound(p), p)
        for name, mask in masks.items():
            assert not got.grads[name][mask == 0].any(), f"{name} has gradients on entries that are masked."
        stored = {name: torch.where(mask == 0, 3.0, p.params[name]) for name, mask in masks.items()}
        again = ask(case.bound(p), p.at(**stored))
        assert_same(again.grads, got.grads, "what is stored in masked entries changes the gradient")
        free = ask(case.bound(p), p.at(W_rec=1.5 * p.params["W_rec"]))  # control: entries that act
        assert gap(free.outputs, got.outputs) > 1e-3, "the check cannot see anything here: W_rec has no effect."


@prop(
    "the regulariser's gradient is added exactly",
    "a regulariser c/2 ‖w‖² is part of the loss: each weight earns c·w on top, under every rule.",
    steps_are_no_gradients,
)
def _regulariser(case: Case) -> None:
    p, coefficients = case.problem(), {"W_rec": 0.3, "W_out": 0.2}
    with_it = replace(p, loss=replace(p.loss, regulariser=L2.of(coefficients)))
    plain, penalised = (ask(case.bound(q), q).grads for q in (p, with_it))
    added = {name: penalised[name] - plain[name] for name in plain}
    expected = {name: coefficients.get(name, 0.0) * w for name, w in p.params.items()}
    assert_same(added, expected, "what the regulariser adds is not c·w")


@prop(
    "split batches add up",
    "the loss is a mean over samples, so the gradient of a batch is the mean of its parts'; accumulation relies on it.",
    lambda t: steps_are_no_gradients(t) or ("its draws belong to a whole batch" if t.stochastic else ""),
)
def _batches(case: Case) -> None:
    p = case.problem()
    whole, one, three = (ask(case.bound(p), q).grads for q in (p, p.samples(slice(0, 1)), p.samples(slice(1, 4))))
    added = {name: (one[name] + 3 * three[name]) / 4 for name in whole}
    assert_apart(three, whole, alive(whole), "leaving out a sample")
    assert_same(added, whole, "the gradient of a batch is not the mean over its samples")


@prop(
    "float32 agrees with float64",
    "training runs in float32: an estimate that loses its digits there was only ever right in the tests.",
)
def _precision(case: Case) -> None:
    p = case.problem()
    draws = draws_of(case.bound(p), p)
    double = ask(case.bound(p), p, draws).grads
    single = p.to(torch.float32)
    cast = {n: v.float() if v.is_floating_point() else v for n, v in draws.items()}
    got = ask(case.bound(single), single, cast)
    kinds = {str(t.dtype) for t in (got.loss, got.outputs, *got.grads.values())}
    assert kinds == {"torch.float32"}, f"on a float32 network it returns {', '.join(sorted(kinds))}."
    assert_same({n: g.double() for n, g in got.grads.items()}, double, "float32 and float64 disagree", tol=1e-3)


@prop(
    "stacked seeds equal seeds alone",
    "a sweep runs its seeds as one batch under torch.func.vmap; writing into fresh buffers, `.item()`, an `if` on data "
    "or reading weights from the module breaks that.",
    lambda t: "" if t.vmappable else "its traits say that seeds are looped over",
)
def _seeds(case: Case) -> None:
    first = case.problem(trainable_initial_state=True)
    problems = [
        problem(first.network.neuron, trainable_initial_state=True, loss=first.loss.kind, when=first.loss.when, seed=s)
        for s in (0, 1)
    ]
    rules = [case.bound(p, seed=s) for s, p in enumerate(problems)]
    draws = [draws_of(rule, p, seed=s) for s, (p, rule) in enumerate(zip(problems, rules, strict=True))]
    alone = [ask(case.bound(p, seed=s), p, draws[s]).grads for s, p in enumerate(problems)]

    def one(kept: dict[str, Tensor], p: dict[str, Any], draws: dict[str, Tensor]) -> dict[str, Tensor]:
        grads: dict[str, Tensor] = functional_call(rules[0], kept, (replace(problems[0], **p), draws)).grads
        return grads

    shared = problems[0].loss
    problems = [replace(p, loss=shared) for p in problems]
    alone[1] = ask(case.bound(problems[1], seed=1), problems[1], draws[1]).grads
    kept = _stack([dict([*rule.named_parameters(), *rule.named_buffers()]) for rule in rules])
    with torch.no_grad():
        stacked: dict[str, Any] = {n: torch.stack([getattr(p, n) for p in problems]) for n in ("x", "target")}
        stacked["params"] = _stack([dict(p.params) for p in problems])
        both = vmap(one)(kept, stacked, _stack(draws))
    assert_apart(alone[0], alone[1], alive(alone[1]), "another seed")
    for s in (0, 1):
        assert_same({n: g[s] for n, g in both.items()}, alone[s], f"seed {s} in the stack is not seed {s} alone")


def _stack(trees: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([tree[name] for tree in trees]) for name in trees[0]}


@prop(
    "the gradient follows the data",
    "a gradient that does not change with the inputs has learned nothing from them.",
    lambda t: "it has no learning signal" if "none" in (t.signal_origin, t.signal_scope) else "",
)
def _follows(case: Case) -> None:
    p = case.problem()
    draws = draws_of(case.bound(p), p)
    one, other = (ask(case.bound(q), q, draws).grads for q in (p, replace(p, x=randn(77, *p.x.shape))))
    for name in RECURRENT[:2]:
        assert one[name].norm() > 1e-9, f"the gradient of {name} is zero."
        assert gap(other[name], one[name]) > 1e-6, f"the gradient of {name} is the same for other inputs."
