"""What each built-in rule is, said by autograd with the right paths cut, and the identities between rules."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch.func import functional_call, vmap

import bpgen
from bpgen.losses import Loss
from bpgen.neurons import Leaky
from tests.neurons.strangers import Adaptive
from tests.oracles import (
    RECURRENT,
    WEIGHTS,
    asked,
    assert_differ,
    assert_equal,
    autograd,
    distance,
    in_blocks,
    no_hop,
    problem,
    randn,
    run_slow,
    sliding,
    through,
    true_loss,
)

T = 7
every_leak = pytest.mark.parametrize("leak", ["potential", "rate", "inside"])


def local_rule(p, rule):
    """Own path alone, with the rule's own feedback weights."""
    return autograd(p, **no_hop(), **through(rule.feedback.weight))


# row: rule, options, its gradient by autograd
RULES = {
    "bptt": ("bptt", {}, lambda p, rule: autograd(p)),
    "three_factor": ("three_factor", {}, lambda p, rule: autograd(p, **no_hop())),
    "eprop": ("eprop", {}, lambda p, rule: autograd(p, **no_hop())),
    "three_factor, random": ("three_factor", {"feedback": "random", "seed": 2}, local_rule),
    "rflo": ("rflo", {"seed": 3}, local_rule),
    "rflo, sparse": ("rflo", {"seed": 4, "feedback": "sparse", "density": 0.5}, local_rule),
    "tbptt, blocks": ("tbptt", {"window": 3}, lambda p, rule: autograd(p, **in_blocks(3))),
    "tbptt, sliding": ("tbptt", {"window": 3, "style": "sliding"}, lambda p, rule: sliding(p, 3)),
    "readout_only": (
        "readout_only",
        {},
        lambda p, rule: autograd(p, read=lambda r, W_out: r.detach() @ W_out.T),
    ),
}
every_rule = pytest.mark.parametrize("row", RULES)
LOSSES = {
    "mse, all steps": {"loss": "mse", "when": "all"},
    "cross-entropy, last step": {"loss": "cross_entropy", "when": "last"},
    "cross-entropy, masked": {"loss": "cross_entropy", "when": "all", "masked": True},
}


def load(row, network):
    name, options, _ = RULES[row]
    return bpgen.load_rule(name, **options).bind(network)


def alive(row, when, kappa):
    """The parameters that must have a gradient; all others must have exactly none."""
    if row == "readout_only":
        return {"W_out", "b_out"}
    too_far = row.startswith("tbptt") and when == "last" and kappa == 0
    return {*WEIGHTS, *(() if too_far else ["initial_state"])}


def test_table_covers_every_built_in_rule():
    builtin = {n for n, p in bpgen.registry.plugins("rule").items() if p.class_path.startswith("bpgen_rules")}
    assert builtin >= {options[0] for options in RULES.values()}


@pytest.mark.parametrize("kappa", [0.0, 0.5])
@pytest.mark.parametrize("loss", LOSSES)
@every_leak
@every_rule
def test_rule_equals_autograd_with_its_paths_cut(row, leak, loss, kappa):
    p = problem(Leaky(0.4, "tanh", leak), T=T, kappa=kappa, learned=True, **LOSSES[loss])
    rule = load(row, p.network)
    result, expected, names = p.rule(rule), RULES[row][2](p, rule), alive(row, p.when, kappa)
    assert_equal(result.grads, expected, names)
    for name in set(expected) - names:
        assert not result.grads[name].any(), name
        assert not expected[name].any(), name
    slow = run_slow(p, p.network.params()).outputs
    torch.testing.assert_close(result.outputs, slow)
    torch.testing.assert_close(result.loss, true_loss(slow, p.target, p.loss, p.when, p.mask))
    assert result.loss.ndim == 0


@every_leak
def test_control_the_rules_are_all_different(leak):
    p = problem(Leaky(0.4, "tanh", leak), T=T)
    rows = [row for row in RULES if row not in ("eprop", "readout_only")]
    grads = {row: p.rule(load(row, p.network)).grads for row in rows}
    for one, other in combinations(rows, 2):
        assert_differ(grads[one], grads[other], RECURRENT)
    for row in rows:  # and the readout learns the same under all of them
        assert_equal(grads[row], grads["bptt"], ["W_out", "b_out"], tol=1e-15)


@pytest.mark.parametrize("loss", LOSSES)
@every_leak
def test_bptt_equals_finite_differences(leak, loss):
    p = problem(Leaky(0.4, "softplus", leak), T=T, learned=True, kappa=0.3, **LOSSES[loss])
    params, eps, expected = p.network.params(), 1e-6, {}
    for name, w in params.items():
        slope = torch.zeros_like(w)
        for i in range(w.numel()):
            sides = []
            for sign in (1, -1):
                moved = w.clone()
                moved.view(-1)[i] += sign * eps
                y = run_slow(p, {**params, name: moved}).outputs
                sides.append(true_loss(y, p.target, p.loss, p.when, p.mask))
            slope.view(-1)[i] = (sides[0] - sides[1]) / (2 * eps)
        expected[name] = slope
    assert_equal(p.rule("bptt").grads, expected, tol=1e-7)
    assert_differ(p.rule("three_factor").grads, expected, RECURRENT)


@every_leak
@every_rule
def test_locality_scrambled_recurrent_weights_on_a_fixed_trajectory(row, leak):
    p = problem(Leaky(0.4, "tanh", leak), T=T)
    rule, error = load(row, p.network), randn(40, T, 3, 3)
    run = p.network.run(p.network.params(), p.x, when="all", initial_state=p.s_0, in_place=False)
    scrambled = replace(run, params={**run.params, "W_rec": randn(41, 5, 5)})
    before, after = (rule.credit(r, error) for r in (run, scrambled))
    if row == "readout_only":
        assert not before.any()
    elif row in ("bptt", "tbptt, blocks", "tbptt, sliding"):
        assert distance(after.currents, before.currents) > 0.01
    else:
        assert torch.equal(after.currents, before.currents)
        assert torch.equal(after.initial, before.initial)
        assert before.currents.norm() > 1e-6


@every_rule
def test_rules_never_call_autograd(row, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a built-in rule called autograd")

    p = problem(T=T)
    rule = load(row, p.network)
    for owner, name in ((torch.autograd, "grad"), (torch.autograd, "backward"), (torch.Tensor, "backward")):
        monkeypatch.setattr(owner, name, refuse)
    result = p.rule(rule)
    assert not any(t.requires_grad for t in (result.loss, result.outputs, *result.grads.values()))
    assert all(w.grad is None for w in p.network.parameters())


@pytest.mark.parametrize("loss", LOSSES)
@every_rule
def test_split_batches_add_up(row, loss):
    p = problem(T=T, **LOSSES[loss])
    rule = load(row, p.network)
    whole, one, two = p.rule(rule), p.part(slice(0, 1)), p.part(slice(1, 3))
    one, two = one.rule(rule), two.rule(rule)
    torch.testing.assert_close((one.loss + 2 * two.loss) / 3, whole.loss)
    for name in alive(row, p.when, 1.0) - {"initial_state"}:
        added = (one.grads[name] + 2 * two.grads[name]) / 3
        assert_equal({name: added}, {name: whole.grads[name]})
        assert distance(two.grads[name], whole.grads[name]) > 0.01


@every_leak
@every_rule
def test_float32_agrees_with_float64(row, leak):
    p = problem(Leaky(0.4, "tanh", leak), T=T)
    rule, double = load(row, p.network), p.rule(load(row, p.network))
    network, rule = problem(Leaky(0.4, "tanh", leak), T=T).network.float(), rule.float()
    single = replace(p, network=network, x=p.x.float(), target=p.target.float(), s_0=p.s_0.float()).rule(rule)
    assert {g.dtype for g in single.grads.values()} == {single.loss.dtype} == {torch.float32}
    for name in alive(row, p.when, 1.0) - {"initial_state"}:
        assert_equal({name: single.grads[name].double()}, double.grads, [name], tol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("neuron", [Leaky(0.4, "tanh"), Leaky(0.4, "tanh", "rate"), Adaptive()])
@every_rule
def test_two_stacked_seeds_train_as_two_runs_alone(row, neuron):
    problems = [problem(neuron, T=T, learned=True, kappa=0.4, seed=s) for s in (0, 1)]
    name, options, _ = RULES[row]
    options = {k: v for k, v in options.items() if k != "seed"}
    rules = [bpgen.load_rule(name, **options).bind(p.network, seed=s) for s, p in enumerate(problems)]
    noise, loss, network = randn(50, 2, T, 3, 5 * neuron.n_currents), Loss("mse", "all"), problems[0].network

    def stacked(trees):
        return {n: torch.stack([tree[n] for tree in trees]) for n in trees[0]}

    def one_seed(buffers, params, x, target, noise):
        args = (network, params, x, target, loss, {"current_noise": noise})
        return functional_call(rules[0], buffers, asked(*args)).grads

    start = [p.network.params() for p in problems]
    params, buffers = stacked(start), stacked([dict(r.named_buffers()) for r in rules])
    x, target = (torch.stack([getattr(p, n) for p in problems]) for n in ("x", "target"))
    for _ in range(5):
        grads = vmap(one_seed)(buffers, params, x, target, noise)
        params = {n: w - 0.1 * grads[n] for n, w in params.items()}
    for s, p in enumerate(problems):
        alone = {n: w.clone() for n, w in start[s].items()}
        for _ in range(5):
            draws = {"current_noise": noise[s]}
            grads = rules[s].gradients(*asked(p.network, alone, p.x, p.target, loss, draws)).grads
            alone = {n: w - 0.1 * grads[n] for n, w in alone.items()}
        for n in alone:
            torch.testing.assert_close(params[n][s], alone[n], rtol=1e-11, atol=1e-13)
            assert (alone[n] - start[s][n]).norm() > 1e-6 or n not in alive(row, "all", 1.0)
    assert distance(params["W_out"][0], params["W_out"][1]) > 0.1
    if "feedback.weight" in buffers:
        assert distance(*buffers["feedback.weight"]) > 0.1


def test_a_learned_state_that_a_given_one_replaced_earns_nothing():
    p = problem(T=T, learned=True)
    given = replace(p, s_0=randn(60, 3, 1, 5))
    expected = autograd(given)
    assert not expected["initial_state"].any()
    for rule in ("bptt", "three_factor"):
        assert not given.rule(rule).grads["initial_state"].any()
        assert p.rule(rule).grads["initial_state"].norm() > 1e-6
    assert_equal(given.rule("bptt").grads, expected, WEIGHTS)
