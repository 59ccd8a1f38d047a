"""Networks that hear their own output: the forward pass, the exact gradient, and what other rules make of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bpgen
from bpgen.curvature.products import HessianProducts
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.neurons import ALIF, GRU, LIF, LSTM, Leaky
from bpgen.rules.chunks import check_chunks
from tests.curvature.dense import asked
from tests.oracles import (
    RECURRENT,
    WEIGHTS,
    assert_differ,
    assert_equal,
    autograd,
    distance,
    in_blocks,
    leaves,
    no_hop,
    problem,
    randn,
    run_slow,
    true_loss,
)
from tests.seeds import assert_seeds_stack

NEURONS = {
    "potential": lambda: Leaky(0.4, "tanh"),
    "rate": lambda: Leaky(0.4, "tanh", "rate"),
    "inside": lambda: Leaky(0.4, "softplus", "inside"),
    "lif": lambda: LIF(0.4, threshold=0.3),
    "alif": lambda: ALIF(0.4, threshold=0.3, reset="attached"),
    "gru": GRU,
    "lstm": LSTM,
}
every_neuron = pytest.mark.parametrize("name", NEURONS)


def fed(name="potential", scale=1.0, **options):
    return problem(NEURONS[name](), output_feedback=scale, **options)


@pytest.mark.parametrize("kappa", [0.0, 0.6])
def test_forward_is_a_plain_loop(kappa):
    p = fed(kappa=kappa)
    w = {n: v.numpy(force=True) for n, v in p.network.params().items()}
    W, W_fb = w["W_rec"] * (1 - np.eye(5)), p.network.W_fb.numpy()
    s, r, y = p.s_0[:, 0].numpy(), np.zeros((3, 5)), np.zeros((3, 3))
    for t in range(7):
        I = np.tanh(s) @ W.T + p.x[t].numpy() @ w["W_in"].T + w["b_rec"] + y @ W_fb.T
        s = 0.6 * s + 0.4 * I
        r = kappa * r + (1 - kappa) * np.tanh(s)
        y = r @ w["W_out"].T + w["b_out"]
        for when, got in (("all", slice(t, t + 1)), ("last", -1)):
            out = p.network.run(p.network.params(), p.x[: t + 1], when=when, initial_state=p.s_0).outputs
            np.testing.assert_allclose(out[got].squeeze(0) if when == "all" else out, y, rtol=1e-12)
    out = p.network.run(p.network.params(), p.x, when="all", initial_state=p.s_0).outputs
    without = problem(NEURONS["potential"](), kappa=kappa).network
    first, *others = without.run(p.network.params(), p.x, when="all", initial_state=p.s_0).outputs
    torch.testing.assert_close(first, out[0])  # y_0 = 0
    assert distance(torch.stack(others), out[1:]) > 0.05  # control: the feedback matters


@every_neuron
@pytest.mark.parametrize("options", [{}, {"kappa": 0.6}, {"when": "last"}, {"learned": True, "kappa": 0.3}])
def test_bptt_is_the_gradient_and_local_rules_drop_the_path(name, options):
    p = fed(name, N=8, **options)
    names = (*WEIGHTS, *(["initial_state"] if "learned" in options else []))
    exact, bptt, local = autograd(p), p.rule("bptt").grads, p.rule("three_factor").grads
    assert_equal(bptt, exact, names)
    assert_equal(local, autograd(p, **no_hop()), names)
    blind = autograd(p, fed=lambda y, t: y.detach())  # hops through W_rec only
    assert_differ(blind, exact, (*RECURRENT, "W_out", "b_out"))
    assert_differ(local, exact, RECURRENT)


@pytest.mark.parametrize("kappa", [0.0, 0.5])
@pytest.mark.parametrize("when", ["last", "all"])
@pytest.mark.parametrize("window", [1, 3, 7])
def test_truncation_in_blocks_cuts_this_path_too(kappa, when, window):
    p = fed(kappa=kappa, when=when, T=8)
    got = p.rule("tbptt", window=window).grads
    assert_equal(got, autograd(p, **in_blocks(window)), WEIGHTS)
    assert_differ(got, autograd(p, **{**in_blocks(window), "fed": lambda y, t: y}), RECURRENT)
    assert_equal(p.rule("tbptt", window=8).grads, autograd(p), WEIGHTS)


def test_bptt_equals_finite_differences():
    p, h = fed(kappa=0.4), 1e-6
    grads = p.rule("bptt").grads

    def value(params):
        outputs = p.network.run(params, p.x, when="all", initial_state=p.s_0).outputs
        return float(true_loss(outputs, p.target, p.loss, p.when, p.mask))

    for i, name in enumerate(WEIGHTS):
        params = p.network.params()
        v = randn(50 + i, *params[name].shape)
        up, down = ({**params, name: params[name] + s * h * v} for s in (1, -1))
        slope = (value(up) - value(down)) / (2 * h)
        assert float((grads[name] * v).sum()) == pytest.approx(slope, rel=1e-6), name
        assert abs(slope) > 1e-3


def test_curvature_follows_the_path():
    p, h = fed(kappa=0.4), 1e-5
    products = HessianProducts(asked(p, Loss("mse", "all")))
    assert products.by == "autograd"
    v, free = randn(3, products.size), ~torch.eye(5, dtype=torch.bool)
    direction = torch.zeros(5, 5, dtype=torch.float64).masked_scatter(free, v)

    def gradient(shift):
        params = leaves(p)
        params["W_rec"] = (params["W_rec"].detach() + shift * direction).requires_grad_()
        value = true_loss(run_slow(p, params).outputs, p.target, p.loss, p.when, p.mask)
        return torch.autograd.grad(value, params["W_rec"])[0][free]

    assert distance(products(v), (gradient(h) - gradient(-h)) / (2 * h)) < 1e-6


@pytest.mark.parametrize("rule", ["bptt", "three_factor", "tbptt"])
def test_stacked_seeds_are_the_seeds_alone(rule):
    assert_seeds_stack(fed(kappa=0.3), rule)


def test_float32_agrees_with_float64():
    options = {"output_feedback": 1.0, "kappa": 0.3, "bias": "both"}
    nets = [bpgen.Network(Leaky(0.4, "tanh"), 4, 9, 3, dtype=t, **options) for t in (torch.float32, torch.float64)]
    x, y = randn(0, 12, 5, 4), randn(1, 12, 5, 3)
    single, double = (
        bpgen.gradients("bptt", n, x.to(n.W_fb.dtype), y.to(n.W_fb.dtype), "mse", "all").grads for n in nets
    )
    assert_equal({n: g.double() for n, g in single.items()}, double, tol=1e-5)


def test_feedback_weights_are_fixed_drawn_from_the_seed_and_saved():
    def network(seed=0, scale=0.7, neuron=None):
        return bpgen.Network(neuron or Leaky(), 4, 200, 3, seed=seed, output_feedback=scale)

    W_fb = network().W_fb
    assert W_fb.shape == (200, 3)
    assert 0.69 < float(W_fb.abs().max()) <= 0.7
    assert float(W_fb.std()) == pytest.approx(0.7 / 3**0.5, rel=0.05)
    assert torch.equal(network().W_fb, W_fb)
    assert not torch.equal(network(seed=1).W_fb, W_fb)
    torch.testing.assert_close(network(scale=1.4).W_fb, 2 * W_fb)
    assert torch.equal(network().W_rec, network(scale=0.0).W_rec)
    assert "W_fb" not in dict(network().named_parameters())
    assert "W_fb" in network().state_dict()
    assert "W_fb" not in network(scale=0.0).state_dict()
    gated = network(neuron=GRU()).W_fb
    assert gated.shape == (800, 3)
    assert not gated[400:600].any()  # the candidate's input current hears no activity
    assert gated[600:].all()


def test_what_is_not_defined_says_so():
    p = fed()
    with pytest.raises(BpgenError, match=r"sliding.*output_feedback"):
        p.rule("tbptt", window=3, style="sliding")
    with pytest.raises(BpgenError, match="RTRL is not defined"):
        p.rule("rtrl")
    with pytest.raises(BpgenError, match="offline rule: in chunks"):
        check_chunks(bpgen.load_rule("bptt"), p.network)
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(BpgenError, match="output_feedback must be >= 0"):
            bpgen.Network(Leaky(), 4, output_feedback=bad)
