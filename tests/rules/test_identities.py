"""Identities between rules: degenerate limits, and what a rule becomes in a special case."""

from __future__ import annotations

import pytest
import torch

import bpgen
from bpgen.network.readout import filtered_back
from bpgen.neurons import Leaky
from bpgen.rules import propagate, weight_gradients
from tests.oracles import RECURRENT, WEIGHTS, assert_differ, assert_equal, problem, randn, run_slow
from tests.rules import reference
from tests.rules.test_references import both, tensors

T = 7
every_leak = pytest.mark.parametrize("leak", ["potential", "rate", "inside"])


# Degenerate limits: nothing is left to cut.
CUTTING = {
    "three_factor": {},
    "rflo": {"feedback": "symmetric"},
    "tbptt": {"window": T},
}


@pytest.mark.parametrize("rule", CUTTING)
@every_leak
def test_every_path_cutting_rule_is_bptt_without_recurrence_or_with_one_step(rule, leak):
    for steps in (T, 1):
        p = problem(Leaky(0.4, "tanh", leak), T=steps)
        if steps == T:
            with torch.no_grad():
                p.network.W_rec.zero_()
        assert_equal(p.rule(rule, **CUTTING[rule]).grads, p.rule("bptt").grads, WEIGHTS)


@pytest.mark.parametrize("style", ["blocks", "sliding"])
@every_leak
def test_tbptt_of_the_whole_sequence_is_bptt(style, leak):
    p = problem(Leaky(0.4, "tanh", leak), T=T)
    for window in (T, T + 5):
        assert_equal(p.rule("tbptt", window=window, style=style).grads, p.rule("bptt").grads, WEIGHTS)
    assert_differ(p.rule("tbptt", window=T - 1, style=style).grads, p.rule("bptt").grads, RECURRENT, by=1e-4)


@every_leak
def test_rflo_with_the_readout_as_feedback_is_three_factor(leak):
    p, rule = problem(Leaky(0.4, "tanh", leak), T=T), bpgen.load_rule("rflo")
    rule.feedback.weight = p.network.params()["W_out"]
    assert_equal(p.rule(rule).grads, p.rule("three_factor").grads, WEIGHTS)
    rule.feedback.weight = -rule.feedback.weight
    flipped = p.rule(rule).grads
    assert_equal({n: -flipped[n] for n in RECURRENT}, p.rule("three_factor").grads, RECURRENT)


@every_leak
@pytest.mark.parametrize("kappa", [0.0, 0.6])
def test_any_modulator_times_the_trace(leak, kappa):
    """T7: Σ_t m_t e_t for a modulator m from anywhere, against explicit traces; it is e-prop with m = q alone."""
    p, model = both(leak, kappa)
    with torch.no_grad():
        run = p.network.run(p.network.params(), p.x, when="all", initial_state=p.s_0)
    unfiltered = reference.Model(**{**vars(model), "kappa": 0.0})  # m is told to the activities themselves
    e_prop, error = p.rule("eprop").grads, (run.outputs - p.target) / 3
    m = randn(33, *p.x.shape[:2], 5)
    got = weight_gradients(run, propagate(run, m), error)
    assert_equal(got, tensors(reference.e_prop(unfiltered, m.numpy())), RECURRENT)
    assert_differ(got, e_prop, RECURRENT)
    q = filtered_back(error, kappa, len(p.x)) @ p.network.params()["W_out"]
    assert_equal(tensors(reference.e_prop(unfiltered, q.numpy())), e_prop, RECURRENT)


@every_leak
def test_memoryless_three_factor_is_the_last_step_outer_product(leak):
    """The released experiment of Liu 2022: α = 1, no bias, cross-entropy at the last step (science 1.3)."""
    p = problem(Leaky(1.0, "relu", leak), T=T, N=8, loss="cross_entropy", when="last", bias="out")
    slow = run_slow(p, p.network.params())
    softmax = slow.outputs.softmax(-1)
    error = (softmax - torch.eye(3, dtype=torch.float64)[p.target]) / 3
    post = (error @ p.network.W_out) * (slow.h[-1] > 0)
    expected = {"W_rec": post.T @ slow.h[-2] * (1 - torch.eye(8)), "W_in": post.T @ p.x[-1]}
    expected = {name: g.detach() for name, g in expected.items()}
    assert_equal(p.rule("three_factor").grads, expected)
    assert_differ(p.rule("bptt").grads, expected, ["W_rec", "W_in"])
    p.x[-1] = 0  # the bottom row of a digit
    assert not p.rule("three_factor").grads["W_in"].any()
    assert p.rule("bptt").grads["W_in"].norm() > 1e-6


def test_linear_rflo_learns_within_the_span_of_its_feedback():
    p = problem(Leaky(0.4, "linear"), T=T, N=8, O=2, autapses=True)
    ranks = {}
    for name in ("rflo", "bptt"):
        network, rule = problem(Leaky(0.4, "linear"), T=T, N=8, O=2, autapses=True).network, bpgen.load_rule(name)
        first = network.W_rec.detach().clone()
        for _ in range(4):
            grads = bpgen.gradients(rule, network, p.x, p.target, "mse", "all", initial_state=p.s_0).grads
            with torch.no_grad():
                for n, w in network.named_parameters():
                    w -= 0.02 * grads[n]
        s = torch.linalg.svdvals(network.W_rec.detach() - first)
        ranks[name] = int((s > 1e-12 * s[0]).sum())
        assert s[1] > 1e-3 * s[0]
    assert ranks["rflo"] == 2
    assert ranks["bptt"] > 2
