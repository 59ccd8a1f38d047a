"""Checks of conduct: what a rule may read, write, draw and remember."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bpgen.conformance.compare import alive, assert_apart, assert_same
from bpgen.conformance.problem import clone, randn
from bpgen.conformance.rules.case import Case, ask, draws_of, prop
from bpgen.conformance.rules.findings import learned
from bpgen.problem import Problem


def _other_batch(p: Problem) -> Problem:
    """Another batch for the same network."""
    return replace(
        p,
        x=randn(60, *p.x.shape),
        initial_state=None if p.initial_state is None else randn(61, *p.initial_state.shape),
    )


def _random_states() -> tuple[Tensor, object, list[int]]:
    return torch.get_rng_state(), random.getstate(), [int(n) for n in np.random.get_state(legacy=True)[1][:5]]  # type: ignore[index]  # noqa: NPY002


def _kept(rule: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in rule.state_dict().items()}


@prop(
    "nothing is changed in place",
    "weights belong to the optimizer, and the batch, the draws and the mask to the caller.",
)
def _in_place(case: Case) -> None:
    p = case.problem()
    rule = case.bound(p)
    draws = draws_of(rule, p)
    module = {f"the module's {n}": w.detach() for n, w in p.network.state_dict().items()}
    handed = {
        **{f"params[{n!r}]": w for n, w in p.params.items()},
        **{f"draws[{n!r}]": w for n, w in draws.items()},
        "x": p.x,
        "target": p.target,
        **{n: v for n, v in (("the mask", p.loss.mask), ("initial_state", p.initial_state)) if v is not None},
        **module,
    }
    before = {name: value.clone() for name, value in handed.items()}
    ask(rule, p, draws)
    changed = [name for name, value in handed.items() if not torch.equal(value, before[name])]
    assert not changed, f"`gradients` overwrote {', '.join(changed)}."
    assert all(w.grad is None for w in p.network.parameters()), "`gradients` left something in `.grad` of the network."


@prop(
    "random numbers come from draws only",
    "what is drawn inside cannot be paired between rules, repeated after a resume, or batched over seeds: draw it in "
    "`draw(network, x, random)` and read it from `draws`.",
)
def _randomness(case: Case) -> None:
    p = case.problem()
    draws, results = draws_of(case.bound(p), p), []
    for seed in (1, 2):
        rule = case.bound(p)
        torch.manual_seed(seed)
        before = _random_states()
        results.append(ask(rule, p, draws).grads)
        after = _random_states()
        assert torch.equal(before[0], after[0]), "it drew from torch's global random stream."
        assert before[1:] == after[1:], "it drew from the global random stream of Python or numpy."
    assert_same(results[1], results[0], "with the same draws, the gradient depends on the global random seed")


@prop(
    "stochastic if and only if it says so",
    "a stochastic rule has to be averaged before its alignment is measured; who draws nothing must not be.",
)
def _draws(case: Case) -> None:
    p = case.problem()
    one, other = (draws_of(case.bound(p), p, seed) for seed in (0, 1))
    names = sorted(set(one))
    if not case.traits.stochastic:
        assert not names, f"its traits say deterministic, but `draw` returns {', '.join(names)}."
        return
    assert names, "its traits say stochastic, but `draw` returns nothing."
    again = draws_of(case.bound(p), p, 0)
    assert all(torch.equal(again[n], one[n]) for n in names), "`draw` does not follow the generator it is given."
    first, second = ({**result.grads, **result.aux} for result in (ask(case.bound(p), p, d) for d in (one, other)))
    assert any(not torch.equal(first[n], second[n]) for n in first), "other draws change neither gradients nor aux."


@prop(
    "weights are read from params, not from the module",
    "under vmap the module still holds seed 0's weights, and during line searches or meta-learning yesterday's: a rule "
    "that reads them is silently wrong.",
)
def _functional(case: Case) -> None:
    p = case.problem(trainable_initial_state=True)
    rule = case.bound(p)
    expected = ask(rule, p).grads
    other = p.at(**{n: w + 0.3 * randn(62 + i, *w.shape) for i, (n, w) in enumerate(p.params.items())})
    assert_apart(ask(case.bound(p), other).grads, expected, ["W_out"], "handing in other weights")
    empty = clone(p.network)
    with torch.no_grad():
        for w in empty.parameters():
            w.fill_(float("nan"))
    got = ask(case.bound(p), replace(p, network=empty)).grads
    read = [n for n, g in got.items() if not bool(g.isfinite().all())]
    assert not read, f"with the module's own weights blanked out, the gradient of {', '.join(read)} is not a number."
    assert_same(got, expected, "with the module's own weights blanked out, the gradient changes")


@prop(
    "nothing is carried from one sequence to the next",
    "each call starts from its own initial state; a trace that is not reset pairs this sequence's errors with the last "
    "one's activity.",
)
def _carried(case: Case) -> None:
    p = case.problem()
    rule, alone = case.bound(p), case.bound(p)
    draws, before = draws_of(alone, p), _kept(rule)
    expected = ask(alone, p, draws).grads
    other = ask(rule, _other_batch(p)).grads
    assert_apart(other, expected, ["W_out"] if other["W_out"].any() else alive(other), "another batch")
    after = _kept(rule)
    changed = [name for name in after if not torch.equal(after[name], before[name])]
    found = ", ".join(changed)
    assert not changed, f"`gradients` changed its {found}: hand new values out in aux and take them over in `learn`."
    assert_same(ask(rule, p, draws).grads, expected, "the gradient depends on the batch before: something is kept")


@prop(
    "what it learns is declared",
    "feedback weights or a baseline that change between batches are part of the model: its traits name them "
    "(`learns`), so that a reader knows of them.",
)
def _learns(case: Case) -> None:
    moved, declared = learned(case), set(case.traits.learns)
    silent, still = set(moved) - declared, declared - set(moved)
    assert not silent, f"`learn` changes {', '.join(sorted(silent))}, which traits.learns does not name."
    assert not still, f"traits.learns names {', '.join(sorted(still))}, which three batches leave as they are."


@prop(
    "state_dict restores the rule",
    "a resumed run rebuilds the rule and loads its state_dict: what is not in there (plain attributes) is lost.",
)
def _restored(case: Case) -> None:
    p = case.problem()
    rule, restored = case.bound(p, seed=5), case.bound(p, seed=9)
    draws = draws_of(rule, p)
    rule.learn(ask(rule, _other_batch(p)).aux)  # what it learns from batch to batch has to be in there, too
    restored.load_state_dict(_kept(rule))
    assert_same(ask(restored, p, draws).grads, ask(rule, p, draws).grads, "a rule restored from its state_dict differs")
