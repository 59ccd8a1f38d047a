"""Traces of Wang et al. 2026: D-RTRL, which is e-prop online, and pp-prop, whose traces are factored."""

from __future__ import annotations

import pytest
import torch
from torch.func import jacrev, vmap

import bpgen
from bpgen.conformance.rules.blocks import StepByStep
from bpgen.rules import BpgenError, Rule
from tests.oracles import RECURRENT, Problem, assert_differ, assert_equal, autograd, no_hop, problem
from tests.rules import online_reference
from tests.rules.test_online import NEURONS, every_leak, every_neuron, mutant
from tests.rules.test_references import both, tensors

DECAYS = (0.0, 0.5, 0.9)


def of_any_neuron(p: Problem, alpha: float) -> dict[str, torch.Tensor]:
    """pp-prop from f and g of a neuron alone, sample by sample and neuron by neuron; with κ, one more state."""
    network, params = p.network, p.network.masked({n: w.detach() for n, w in p.network.named_parameters()})
    neuron, kappa, N, B = network.neuron, network.kappa, network.n_rec, p.x.shape[1]
    K = neuron.n_currents

    def advance(s, I):  # one neuron: s [n], I [K]
        state = neuron.f(s[: neuron.n_states, None], I[:, None])
        h = neuron.g(state)
        return torch.cat([state[:, 0], kappa * s[neuron.n_states :] + (1 - kappa) * h]) if kappa else state[:, 0]

    def heard(s):  # what the readout sees of one neuron
        return s[-1] if kappa else neuron.g(s[:, None])[0]

    W = torch.zeros(K * N, N + network.n_in + 1, dtype=p.x.dtype)
    for b in range(B):
        s = p.s_0[b]
        full = torch.cat([s, torch.zeros(1, N, dtype=s.dtype)]) if kappa else s  # [n,N]
        x_bar, f = 0.0, torch.zeros(N, full.shape[0], K, dtype=s.dtype)
        for t in range(1, len(p.x) + 1):
            h = neuron.g(full[: neuron.n_states])
            x_bar = alpha * x_bar + torch.cat([h, p.x[t - 1, b]])
            I = (params["W_rec"] @ h + params["W_in"] @ p.x[t - 1, b] + params["b_rec"]).view(K, N)
            A = vmap(jacrev(advance, 0))(full.T, I.T)  # [N,n,n]
            C = vmap(jacrev(advance, 1))(full.T, I.T)  # [N,n,K]
            f = alpha * A @ f + (1 - alpha) * C
            full = vmap(advance)(full.T, I.T).T
            D = vmap(jacrev(heard))(full.T)  # [N,n]
            y = params["W_out"] @ vmap(heard)(full.T) + params["b_out"]
            q = params["W_out"].T @ (y - p.target[t - 1, b]) / B
            credit = (q[:, None] * torch.einsum("pi,pik->pk", D, f) / (1 - alpha**t)).T.flatten()
            W += torch.outer(credit, torch.cat([x_bar, torch.ones(1, dtype=s.dtype)]))
    grads = {"W_rec": W[:, :N], "W_in": W[:, N:-1], "b_rec": W[:, -1]}
    return {n: g * network.masks().get(n, 1) for n, g in grads.items()}


@every_leak
def test_d_rtrl_is_its_published_equation(leak):
    p, model = both(leak)
    expected = tensors(online_reference.d_rtrl(model))
    assert_equal(p.rule("d_rtrl").grads, expected)
    assert_differ(p.rule("rtrl").grads, expected, RECURRENT)


@every_neuron
def test_d_rtrl_leaves_out_the_way_through_any_weight_the_own_one_included(neuron):
    p = problem(NEURONS[neuron], autapses=True)
    got = p.rule("d_rtrl").grads
    assert_equal(got, autograd(p, **no_hop()))
    assert all(torch.equal(g, p.rule("eprop_online").grads[n]) for n, g in got.items())
    assert_differ(p.rule("snap").grads, got, ["W_rec"])  # has the own one


@every_leak
@pytest.mark.parametrize("decay", DECAYS)
def test_pp_prop_is_its_published_equation(leak, decay):
    check(bpgen.load_rule("pp_prop"), leak, decay)


def check(rule: Rule, leak: str = "potential", decay: float = 0.5) -> None:
    p, model = both(leak)
    rule.decay = decay
    expected = tensors(online_reference.pp_prop(model, decay))
    for way in (rule, StepByStep(rule.bind(p.network))):
        assert_equal(p.rule(way).grads, expected)
    assert_differ(p.rule("d_rtrl").grads, expected, RECURRENT)


@pytest.mark.parametrize("kappa", [0.0, 0.5])
@pytest.mark.parametrize("neuron", ["inside", "alif, attached", "gru", "lstm"])
def test_pp_prop_on_any_neuron(neuron, kappa):
    p = problem(NEURONS[neuron], kappa=kappa)
    got, expected = p.rule("pp_prop", decay=0.6).grads, of_any_neuron(p, 0.6)
    assert_equal(got, expected)
    assert_differ(p.rule("pp_prop", decay=0.7).grads, expected, RECURRENT)


def test_pp_prop_without_a_memory_is_each_steps_own_term():
    p = problem()
    cut = {"hop": lambda h, t: h.detach(), "own": lambda s, t: s.detach()}
    assert_equal(p.rule("pp_prop", decay=0.0).grads, autograd(p, **cut))
    assert_differ(p.rule("d_rtrl").grads, p.rule("pp_prop", decay=0.0).grads, RECURRENT)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_never_forgets_is_refused(decay):
    with pytest.raises(BpgenError, match=r"decay must be in \[0, 1\), got"):
        bpgen.load_rule("pp_prop", decay=decay)


MUTANTS = {
    "pp_prop averages both sides": (
        "pp_prop",
        'alpha * state["pre"] + sources',
        'alpha * state["pre"] + (1 - alpha) * sources',
    ),
    "pp_prop forgets the correction": ("pp_prop", " / (1 - self.decay**moment.t)", ""),
    "pp_prop corrects a step late": ("pp_prop", "self.decay**moment.t", "self.decay ** (moment.t + 1)"),
    "pp_prop leaves the neuron's recurrence out": ("pp_prop", "(A.unsqueeze(3)", "(torch.ones_like(A).unsqueeze(3)"),
    "pp_prop counts a bias twice": ("pp_prop", "torch.ones_like(pre[:, :1])", "2 * torch.ones_like(pre[:, :1])"),
}


@pytest.mark.parametrize("row", MUTANTS)
def test_mutant_is_killed(row):
    name, old, new = MUTANTS[row]
    check(bpgen.load_rule(name))
    with pytest.raises(AssertionError):
        check(mutant(name, old, new)())
