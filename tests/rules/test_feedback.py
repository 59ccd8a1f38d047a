"""Feedback weights: how they are drawn, by which seed, and who may set them."""

from __future__ import annotations

import math

import pytest
import torch

import bpgen
from bpgen.errors import BpgenError
from bpgen.neurons import Leaky
from tests.oracles import RECURRENT, assert_differ, distance, problem, randn


def weight(network=None, bind_seed=0, rule="rflo", **options):
    network = network or bpgen.Network(Leaky(), 4, 400, 50)
    return bpgen.load_rule(rule, **options).bind(network, bind_seed).feedback.weight


def test_spread_is_scale_over_the_root_of_n():
    for scale in (1.0, 0.3):
        w = weight(scale=scale)
        assert w.shape == (50, 400)
        assert w.dtype == torch.float32
        assert float(w.std()) == pytest.approx(scale / math.sqrt(400), rel=0.02)
        assert abs(float(w.mean())) < 5 * scale / math.sqrt(400 * 20000)


@pytest.mark.parametrize("rule", ["rflo", "three_factor"])
def test_sparse_feedback_leaves_whole_neurons_without_error(rule):
    w = weight(rule=rule, feedback="sparse", density=0.2)
    silent = (w == 0).all(0)
    assert 0.8 - 0.08 < float(silent.double().mean()) < 0.8 + 0.08  # 4 standard deviations
    assert (w[:, ~silent] != 0).all()


def test_a_seed_is_one_matrix_in_every_dtype_and_its_own_stream():
    double = bpgen.Network(Leaky(), 4, 400, 50, dtype=torch.float64)
    assert torch.equal(weight(seed=3), weight(seed=3, bind_seed=8))
    assert torch.equal(weight(seed=3), weight(double, seed=3).float())
    assert distance(weight(seed=4), weight(seed=3)) > 0.5
    start = bpgen.Network(Leaky(), 50, 400, 50, seed=3).W_in.detach().T  # same seed, other purpose
    correlation = torch.corrcoef(torch.stack([start.flatten(), weight(seed=3).flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.04


def test_seed_of_bind_is_used_where_the_rule_has_none():
    assert torch.equal(weight(bind_seed=3), weight(seed=3))
    assert torch.equal(weight(bind_seed=0), weight(seed=0))  # 0 is a seed, not "none"
    assert torch.equal(weight(bind_seed=5, seed=0), weight(seed=0))
    assert distance(weight(bind_seed=4), weight(bind_seed=3)) > 0.5


def test_gradients_binds_once_and_with_its_seed():
    p, rule = problem(), bpgen.load_rule("rflo")
    assert rule.feedback.weight is None
    bpgen.gradients(rule, p.network, p.x, p.target, "mse", "all", seed=7)
    drawn = rule.feedback.weight
    assert torch.equal(drawn, weight(p.network, seed=7))
    bpgen.gradients(rule, p.network, p.x, p.target, "mse", "all", seed=8)
    assert rule.feedback.weight is drawn
    assert torch.equal(rule.state_dict()["feedback.weight"], drawn)  # it survives in a checkpoint
    one, other = (bpgen.gradients("rflo", p.network, p.x, p.target, "mse", "all", seed=s).grads for s in (7, 8))
    assert_differ(one, other, RECURRENT)


def test_assigned_before_bind_is_kept_and_used():
    p, rule = problem(), bpgen.load_rule("rflo")
    mine = randn(70, 3, 5)
    rule.feedback.weight = mine
    rule.bind(p.network, seed=1)
    got = p.rule(rule).grads
    assert rule.feedback.weight is mine
    assert_differ(p.rule("rflo", seed=1).grads, got, RECURRENT)


def test_symmetric_feedback_has_no_matrix_and_follows_the_readout():
    p, rule = problem(), bpgen.load_rule("three_factor")
    before = p.rule(rule).grads
    assert rule.feedback.weight is None
    assert not rule.state_dict()
    with torch.no_grad():
        p.network.W_out.copy_(randn(71, 3, 5))
    assert_differ(p.rule(rule).grads, before, RECURRENT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feedback": "randm"}, "unknown feedback 'randm'.*Did you mean 'random'"),
        ({"scale": 0.0}, "scale must be > 0, got 0"),
        ({"density": 0.0}, r"density must be in \(0, 1\]"),
        ({"density": 1.1}, r"density must be in \(0, 1\]"),
        ({"trace": "muray"}, "unknown trace of rflo 'muray'.*Did you mean 'murray'"),
    ],
)
def test_bad_options_name_what_was_expected(options, message):
    with pytest.raises(BpgenError, match=message):
        bpgen.load_rule("rflo", **options)
