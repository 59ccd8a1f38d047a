"""Every built-in rule under every option of a network or loss: a stated gradient, or refused in words; never silence.

The stated gradient comes from autograd on the slow network, with the paths open that the rule claims to follow. One
table row per rule says how it is set up, what it then equals, and which options it refuses.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
import torch

import bpgen
from bpgen.errors import BpgenError
from bpgen.losses import Activity
from bpgen.neurons import Leaky
from tests.oracles import (
    RECURRENT,
    WEIGHTS,
    Problem,
    activity_cost,
    assert_differ,
    assert_equal,
    autograd,
    in_blocks,
    leaves,
    no_cost,
    no_hop,
    problem,
    run_slow,
    through,
    true_loss,
)
from tests.rules.reference_spiking_rules import kernel

T = 7
COST = Activity(3.0, "rate", 0.2)
OPTIONS = {
    "plain": {},
    "output feedback": {"output_feedback": 1.0},
    "learned start": {"learned": True},
    "leaky readout": {"kappa": 0.6},
    "sparse, under Dale's law": {"density": 0.6, "cell_types": {"E": 0.6, "I": 0.4}, "dale": True},
    "leaks of their own": {},
    "cost of the activity": {},
    "last step": {"when": "last", "loss": "cross_entropy"},
}
READOUT = ("W_out", "b_out")


def setting(option: str, activation: str) -> tuple[Problem, Activity | None, Callable]:
    """The problem, the cost of the activity that bpgen is told, and the same by its definition."""
    alpha = torch.linspace(0.2, 0.8, 5, dtype=torch.float64) if option == "leaks of their own" else 0.4
    p = problem(Leaky(alpha, activation), T=T, **OPTIONS[option])
    if option == "cost of the activity":
        return p, COST, lambda h: activity_cost(h, COST.coefficient, COST.form, COST.target)
    return p, None, no_cost


def ask(rule, p: Problem, activity: Activity | None, seed: int = 0):
    return bpgen.gradients(
        rule, p.network, p.x, p.target, p.loss, p.when, p.mask, p.s_0, activity=activity, seed=seed
    ).grads


def exact(p, rule, cost):
    return autograd(p, cost)


def local(p, rule, cost):
    B = rule.feedback.weight
    return autograd(p, cost, **no_hop(), **({} if B is None else through(B)))


def rated(p, rule, cost):
    """E-prop of the loss and of the rule's own cost of running rates, c/(2B) Σ_t Σ_j (f_t - f*)²."""

    def of_rates(h):
        f, total = torch.zeros_like(h[0]), cost(h)
        for now in h[1:]:
            f = rule.rate_decay * f + (1 - rule.rate_decay) * now
            total = total + 0.5 * rule.rate_cost * (f - rule.rate_target).square().sum(-1).mean()
        return total

    return autograd(p, of_rates, **no_hop())


def blind(p, rule, cost):
    """All paths but the one through the outputs."""
    return autograd(p, cost, fed=lambda y, t: y.detach())


def diffused(p, rule, cost):
    """E-prop whose error spreads by K before it is told: the slope of Σ_t C_t r_t at fixed C_t, without hops."""
    params, last = leaves(p), p.when == "last"
    slow = run_slow(p, params, **no_hop())
    y = slow.outputs.detach().requires_grad_()
    e = torch.autograd.grad(true_loss(y, p.target, p.loss, p.when, p.mask), y)[0]
    r, field, told = 0, 0, cost(slow.h)
    for t, h in enumerate(slow.h[1:]):
        r = p.network.kappa * r + (1 - p.network.kappa) * h
        if not last or t == len(slow.h) - 2:
            spread = rule.decay * field @ rule.mean if isinstance(field, torch.Tensor) else 0
            field = spread + (e if last else e[t]) @ rule.feedback.weight
            told = told + (field * r).sum()
    got = torch.autograd.grad(told, list(params.values()), allow_unused=True, materialize_grads=True)
    return {**dict(zip(params, got, strict=True)), **{n: autograd(p, cost, **no_hop())[n] for n in READOUT}}


def smoothed(p, rule, cost):
    """E-prop with errors and traces convolved with a kernel α: the slope of Σ_t (α*e)_t W_out (α*r)_t, no hops."""
    params, last, kappa = leaves(p), p.when == "last", p.network.kappa
    slow, alpha = run_slow(p, params, **no_hop()), torch.from_numpy(kernel(rule.tau_rise, rule.tau_decay, T))
    y = slow.outputs.detach().requires_grad_()
    e = torch.autograd.grad(true_loss(y, p.target, p.loss, p.when, p.mask), y)[0]
    errors = [*([torch.zeros_like(e)] * (T - 1)), e] if last else list(e)
    r, told = [torch.zeros_like(slow.h[0])], cost(slow.h)
    for h in slow.h[1:]:
        r.append(kappa * r[-1] + (1 - kappa) * h)
    for t in range(T):
        e, seen = (sum(alpha[t - s] * of[s] for s in range(t + 1)) for of in (errors, r[1:]))
        told = told + (e @ params["W_out"].detach() * seen).sum()
    got = torch.autograd.grad(told, list(params.values()), allow_unused=True, materialize_grads=True)
    return {**dict(zip(params, got, strict=True)), **{n: autograd(p, cost, **no_hop())[n] for n in READOUT}}


def one_hop(p, rule, cost):
    """E-prop and the first order of BPTT in W_rec: the derivative by c, at c = 0, of the path through c W_rec."""
    grads = []
    for c in (0.0, 1e-3, -1e-3):

        def part(h, t, c=c):
            return h.detach() + c * (h - h.detach())

        grads.append(autograd(p, cost, hop=part, fed=lambda y, t: y.detach()))
    none, up, down = grads
    return {n: none[n] + (up[n] - down[n]) / 2e-3 for n in none}


def without_start(gradient):
    """The same, where a learned initial state earns nothing."""

    def grads(p, rule, cost):
        got = gradient(p, rule, cost)
        return {n: torch.zeros_like(g) if n == "initial_state" else g for n, g in got.items()}

    return grads


def readout(p, rule, cost):
    """The exact gradient of the readout, at outputs that are fed back as they are, and nothing else."""
    grads = blind(p, rule, cost)
    return {n: g if n in READOUT else torch.zeros_like(g) for n, g in grads.items()}


def along_noise(p, rule, cost):
    """Weight perturbation: ξ ⟨ξ, g⟩ for small σ."""
    g = autograd(p, cost)
    masks = p.network.masks()
    random = bpgen.streams.generator(0, "draws")
    xi = {n.removeprefix("noise/"): v[0] for n, v in rule.draw(p.network, p.x, random).items()}
    assert not any(xi[n][masks[n] == 0].any() for n in masks)
    slope = sum((xi[n] * g[n]).sum() for n in g)
    return {n: xi[n] * slope for n in g}


def along_current_noise(p, rule, cost):
    """Node perturbation for small σ: c_t = ξ_t ⟨ξ, ∂L_b/∂I⟩ / B; start and readout apart, as its docstring says."""
    xi = rule.draw(p.network, p.x, bpgen.streams.generator(0, "draws"))["perturbation"]
    params = {n: w.detach() for n, w in p.network.named_parameters()}
    noise = torch.zeros_like(xi, requires_grad=True)
    slow = run_slow(p, params, noise=noise)
    value = true_loss(slow.outputs, p.target, p.loss, p.when, p.mask) + cost(slow.h)
    by_noise = torch.autograd.grad(value, noise)[0]
    c = xi * (xi * by_noise).sum((0, 2))[None, :, None]
    h = torch.stack(slow.h).detach()
    grads = readout(p, rule, no_cost)
    grads.update(W_rec=torch.einsum("tbp,tbq->pq", c, h[:-1]), W_in=torch.einsum("tbp,tbi->pi", c, p.x))
    grads["b_rec"] = c.sum((0, 1))
    return {n: g * p.network.masks().get(n, 1) for n, g in grads.items()}


@dataclass
class Row:
    """Options of the rule; what it then equals, and how closely; options it refuses, with a word of the message."""

    options: Mapping = field(default_factory=dict)
    equals: Callable = exact
    refuses: Mapping[str, str] = field(default_factory=dict)
    activation: str = "tanh"
    tol: float = 1e-10


FORWARD = {"output feedback": "not defined for networks with output feedback", "cost of the activity": "runs forward"}
UNFILTERED = {**FORWARD, "leaky readout": "kappa 0"}
BPTT = {"reference": "bptt"}
ROWS = {
    "bptt": Row(),
    "tbptt": Row({"window": T}),
    "scaled_bptt": Row(BPTT),
    "unscaled": Row(BPTT),
    "norm_matched": Row(BPTT),
    "noisy_bptt": Row({"scale": 0.0}),
    "rtrl": Row({}, exact, FORWARD),
    "snap": Row({"n": 100}, exact, FORWARD),
    "ostl": Row({}, exact, FORWARD),
    "sk_rtrl": Row({"rank": 100}, exact, FORWARD),
    "three_factor": Row({}, local),
    "eprop": Row({"feedback": "random"}, local),
    "rflo": Row({}, local),
    "eprop_online": Row({}, local, FORWARD),
    "rflo_online": Row({}, local, FORWARD),
    "d_rtrl": Row({}, local, FORWARD),
    "eprop_plus": Row({"rate_cost": 3.0, "rate_target": 0.2}, rated, FORWARD),
    "causal_credit": Row({"boost": 0.5}, lambda p, rule, cost: autograd(p, cost, **no_hop())),
    "diffusive_eprop": Row({"density": 0.6}, diffused),
    "diffusive_eprop_online": Row({"density": 0.6}, diffused, FORWARD),
    "superspike": Row({"tau_rise": 0.7, "tau_decay": 2.0}, smoothed),
    "mdgl": Row({"weights": "true", "tail": "leaky"}, one_hop, tol=1e-5),
    "modprop": Row({"weights": "true", "mu": 1.0}, blind, activation="linear"),
    "readout_only": Row({}, readout),
    "kernl": Row({"lr": 0.0, "feedback": "sparse", "density": 0.6}, without_start(local), UNFILTERED),
    "weight_perturbation": Row({"sigma": 1e-4}, along_noise, tol=1e-6),
    "node_perturbation": Row({"sigma": 1e-4}, along_current_noise, tol=1e-6),
    "dni": Row({}, lambda p, rule, cost: autograd(p, cost, **in_blocks(1)), UNFILTERED),
}
# compared draw by draw or step by step with slow loops of their own, where these options are arguments of the loop
ELSEWHERE = {
    "uoro": "test_online, test_means_exactly",
    "kf_rtrl": "test_online, test_means_exactly",
    "pp_prop": "test_factored",
    "random_gradient": "test_controls",
    "reinforce": "test_perturbation",
    "rmhl": "test_perturbation",
    "force": "test_steps",
    "hebbian": "test_steps",
    "decolle": "test_spiking_rules",
    "ottt": "test_spiking_rules",
    "sltt": "test_spiking_rules",
}


def test_every_built_in_rule_has_a_row():
    builtin = {n for n, plugin in bpgen.registry.plugins("rule").items() if plugin.class_path.startswith("bpgen_rules")}
    assert builtin == {*ROWS, *ELSEWHERE}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", ROWS)
def test_rule_equals_what_it_claims_or_says_no(name, option):
    row = ROWS[name]
    p, activity, cost = setting(option, row.activation)
    rule = bpgen.load_rule(name, **row.options)
    if option in row.refuses:
        with pytest.raises(BpgenError, match=row.refuses[option]):
            ask(rule, p, activity)
        return
    got, expected = ask(rule.bind(p.network), p, activity), row.equals(p, rule, cost)
    assert set(got) == set(expected)
    for n in expected:
        if expected[n].any():
            assert_equal(got, expected, [n], tol=row.tol)
        else:
            assert not got[n].any(), n


REFUSED_ELSEWHERE = {
    ("uoro", "output feedback"): "not defined for networks with output feedback",
    ("kf_rtrl", "output feedback"): "not defined for networks with output feedback",
    ("pp_prop", "output feedback"): "not defined for networks with output feedback",
    ("uoro", "cost of the activity"): "runs forward",
    ("pp_prop", "cost of the activity"): "runs forward",
    ("kf_rtrl", "cost of the activity"): "runs forward",
    ("force", "last step"): "squared errors",
    **{(name, option): words for name in ("ottt", "sltt") for option, words in FORWARD.items()},
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", ELSEWHERE)
def test_rules_compared_elsewhere_run_or_say_no(name, option):
    """Finite, alive where the rule teaches, silent where a weight cannot act or a start earns nothing."""
    p, activity, _ = setting(option, "tanh")
    refusal = REFUSED_ELSEWHERE.get((name, option))
    if refusal:
        with pytest.raises(BpgenError, match=refusal):
            ask(bpgen.load_rule(name), p, activity)
        return
    options = {"probability": 0.5, "repeats": 4} if name == "rmhl" else {}
    grads = ask(bpgen.load_rule(name, **options), p, activity)
    assert all(g.isfinite().all() for g in grads.values())
    assert grads["W_out"].norm() > 1e-9
    assert (grads["W_rec"].norm() > 1e-9) == (name != "force")
    assert not grads["W_rec"][p.network.masks()["W_rec"] == 0].any()
    if option == "learned start":
        assert grads["initial_state"].any() == (name in ("decolle", "random_gradient"))


@pytest.mark.parametrize("option", [o for o in OPTIONS if o != "plain"])
def test_control_each_option_changes_the_gradient(option):
    p, _, cost = setting(option, "tanh")
    if option == "last step":
        assert_differ(autograd(p), autograd(p, **no_hop()), RECURRENT)
        return
    plain = autograd(setting("plain", "tanh")[0])
    assert_differ(autograd(p, cost), plain, RECURRENT)


FED_BACK = [
    n for n in bpgen.list_rules() if "feedback" in inspect.signature(type(bpgen.load_rule(n)).__init__).parameters
]


@pytest.mark.parametrize("name", FED_BACK)
def test_random_feedback_that_equals_the_readout_is_symmetric_feedback(name):
    """T8: B = W_outᵀ gives the host rule back; and B is what is used: with another one it is another rule."""
    p = problem(Leaky(0.4, "tanh"), T=T, kappa=0.0 if name == "kernl" else 0.5)
    symmetric = p.rule(name, feedback="symmetric").grads
    rule = bpgen.load_rule(name, feedback="random")
    rule.feedback.weight = p.network.params()["W_out"]
    assert_equal(p.rule(rule).grads, symmetric, WEIGHTS)
    other = p.rule(name, feedback="random", seed=7).grads
    assert_differ(other, symmetric, RECURRENT)
    assert_equal(other, symmetric, READOUT)


def test_there_are_sixteen_rules_with_a_choice_of_feedback():
    assert set(FED_BACK) == {
        *("eprop", "eprop_online", "kernl", "mdgl", "modprop", "rflo", "rflo_online", "three_factor"),
        *("diffusive_eprop", "diffusive_eprop_online", "ottt", "sltt", "superspike", "d_rtrl", "pp_prop"),
        "eprop_plus",
    }
