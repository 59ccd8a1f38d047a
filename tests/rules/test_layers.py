"""Rules of networks in layers, which are areas here: OSTL, and deep e-prop, which is e-prop on areas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bpgen
from bpgen.neurons import ALIF, LSTM, Leaky
from bpgen.rules import Rule
from tests.oracles import RECURRENT, assert_differ, assert_equal, problem
from tests.rules import online_reference, reference
from tests.rules.test_online import every_leak, every_readout, mutant
from tests.rules.test_references import tensors

ALL = {"input": True, "readout": True}
LOOP = {"a": {"size": 3, "from": {"b": 1.0}, **ALL}, "b": {"size": 2, "from": {"a": 1.0}, **ALL}}
APART = {"a": {"size": 3, **ALL}, "b": {"size": 2, **ALL}}
STACK = {"low": {"size": 3, "input": True}, "high": {"size": 2, "readout": True, "from": {"low": 1.0}}}


def layered(described, leak="potential", kappa=0.0):
    """A network of areas, and the same for the references: zeros where there is no synapse."""
    p = problem(Leaky(0.4, "tanh", leak), T=6, kappa=kappa, areas=described)
    w = {n: v.detach().numpy() for n, v in p.network.masked(dict(p.network.named_parameters())).items()}
    arrays = [w[n] for n in ("W_rec", "W_in", "b_rec", "W_out", "b_out")]
    data = [v.numpy() for v in (p.x, p.target, p.s_0[:, 0])]
    return p, reference.Model(*arrays, *data, 0.4, leak, "tanh", kappa)


def masked(p, grads):
    """Without what a reference says of weights that do not exist."""
    masks = p.network.masks()
    return {n: g * masks[n] if n in masks else g for n, g in tensors(grads).items()}


def check(rule: Rule, leak: str = "potential", kappa: float = 0.0) -> None:
    p, model = layered(LOOP, leak, kappa)
    expected = masked(p, online_reference.ostl(model, p.network.area.numpy()))
    assert_equal(p.rule(rule).grads, expected)
    assert_differ(p.rule("rtrl").grads, expected, RECURRENT)
    assert_differ(p.rule("snap").grads, expected, RECURRENT)


@every_leak
@every_readout
def test_ostl_is_rtrl_within_each_area(leak, kappa):
    check(bpgen.load_rule("ostl"), leak, kappa)


@pytest.mark.parametrize("neuron", [Leaky(0.4, "tanh"), ALIF(reset="attached"), LSTM()])
@every_readout
def test_ostl_is_exact_where_nothing_passes_between_areas(neuron, kappa):
    for described in (None, APART):
        p = problem(neuron, kappa=kappa, learned=True, areas=described)
        assert_equal(p.rule("ostl").grads, p.rule("bptt").grads)
        assert_equal(p.rule("ostl", recurrence=False).grads, p.rule("eprop").grads)
        assert_differ(p.rule("ostl").grads, p.rule("eprop").grads, ["W_rec"])
    p = problem(neuron, kappa=kappa, learned=True, areas=LOOP)
    assert_differ(p.rule("ostl").grads, p.rule("bptt").grads, ["W_rec"])


def test_an_area_that_the_readout_does_not_see_learns_nothing_under_ostl():
    p = problem(areas=STACK)
    got, low = p.rule("ostl").grads, p.network.area == 0
    assert not got["W_rec"][low].any()
    assert not got["W_in"].any()
    assert got["W_rec"][~low].norm() > 1e-3
    assert p.rule("bptt").grads["W_in"].norm() > 1e-3


# Deep e-prop


def deep_e_prop(w, B, x, target, s_0, alpha):
    """Two layers of tanh units, layer by layer and sample by sample: traces of each layer times an error told to both.

    The second layer sees the first as it was one step ago. B: one feedback matrix [N_l,O] for each layer.
    """
    (W11, W21, W22, U, b1, b2, R, c), a = w, alpha
    grads = {n: 0.0 for n in ("W11", "W21", "W22", "U", "b1", "b2")}
    for b in range(x.shape[1]):
        v1, v2 = s_0[b, : len(b1)], s_0[b, len(b1) :]
        traces = [np.zeros(len(b1)), np.zeros(len(b2)), np.zeros(x.shape[2]), 0.0]  # of z1, z2, x and 1
        for t in range(len(x)):
            z1, z2 = np.tanh(v1), np.tanh(v2)
            traces = [(1 - a) * e + a * pre for e, pre in zip(traces, (z1, z2, x[t, b], 1.0), strict=True)]
            v1 = (1 - a) * v1 + a * (W11 @ z1 + U @ x[t, b] + b1)
            v2 = (1 - a) * v2 + a * (W22 @ z2 + W21 @ z1 + b2)
            error = (R @ np.tanh(v2) + c - target[t, b]) / x.shape[1]
            told1, told2 = (1 - np.tanh(v1) ** 2) * (B[0] @ error), (1 - np.tanh(v2) ** 2) * (B[1] @ error)
            grads["W11"] += np.outer(told1, traces[0])
            grads["U"] += np.outer(told1, traces[2])
            grads["b1"] += told1 * traces[3]
            grads["W21"] += np.outer(told2, traces[0])
            grads["W22"] += np.outer(told2, traces[1])
            grads["b2"] += told2 * traces[3]
    return {n: torch.from_numpy(g) for n, g in grads.items()}


@pytest.mark.parametrize("rule", ["eprop", "eprop_online", "d_rtrl"])
@pytest.mark.parametrize("feedback", ["random", "symmetric"])
def test_deep_e_prop_is_e_prop_on_areas(rule, feedback):
    """Layers hear the error by feedback of their own; by W_out the last one alone does."""
    p, model = layered(STACK)
    bound, n = bpgen.load_rule(rule, feedback=feedback).bind(p.network), 3
    B = (model.R if feedback == "symmetric" else bound.feedback.weight.numpy()).T
    W, U, b, R = model.W - np.diag(np.diag(model.W)), model.U[:n], model.b, model.R[:, n:]
    assert not W[:n, n:].any()  # nothing comes back
    w = (W[:n, :n], W[n:, :n], W[n:, n:], U, b[:n], b[n:], R, model.c)
    expected = deep_e_prop(w, (B[:n], B[n:]), model.x, model.target, model.s0, 0.4)
    for own in ("W11", "W22"):
        expected[own] = expected[own] * (1 - torch.eye(len(expected[own])))  # no autapses
    g = p.rule(bound).grads
    got = {"W11": g["W_rec"][:n, :n], "W21": g["W_rec"][n:, :n], "W22": g["W_rec"][n:, n:], "U": g["W_in"][:n]}
    got |= {"b1": g["b_rec"][:n], "b2": g["b_rec"][n:]}
    high = ["W21", "W22", "b2"]
    low = ["W11", "U", "b1"]
    assert_equal(got, expected, high + (low if feedback == "random" else []))
    if feedback == "symmetric":
        assert not any(v[name].any() for v in (got, expected) for name in low)
    turned = {name: v for name, v in p.rule(rule, feedback="random", seed=9).grads.items()}
    assert_differ(turned, g, ["W_rec"])


MUTANTS = {
    "ostl takes all areas for one": ("ostl", "len(network.area_names) == 1", "len(network.area_names) >= 1"),
    "ostl keeps what is between areas": (
        "ostl",
        "(network.area.unsqueeze(1) == network.area)",
        "(network.area.unsqueeze(1) + network.area > -1)",
    ),
    "ostl keeps a neuron's own part alone": (
        "ostl",
        "(network.area.unsqueeze(1) == network.area)",
        "torch.eye(len(network.area))",
    ),
}


@pytest.mark.parametrize("row", MUTANTS)
def test_mutant_is_killed(row):
    name, old, new = MUTANTS[row]
    check(bpgen.load_rule(name))
    with pytest.raises(AssertionError):
        check(mutant(name, old, new)())
