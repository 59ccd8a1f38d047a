"""A time constant for each neuron that is learned: its gradient under every rule, against autograd with paths cut."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import product

import pytest
import torch

import bpgen
from bpgen.curvature.products import HessianProducts
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.neurons import ALIF, LIF, Leaky
from bpgen.registry import plugins
from bpgen.rules.chunks import gradients_of_chunk
from tests.oracles import (
    WEIGHTS,
    asked,
    assert_differ,
    assert_equal,
    autograd,
    distance,
    in_blocks,
    no_hop,
    problem,
    run_slow,
    sliding,
    through,
    true_loss,
)

SPIKES = {"surrogate": "fast_sigmoid", "learn_alpha": True}
NEURONS = {
    "potential": Leaky(0.4, "tanh", learn_alpha=True),
    "drawn": Leaky((0.2, 0.8), "softplus", learn_alpha=True),
    "relu": Leaky(torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]), learn_alpha=True),
    "inside": Leaky(0.4, "tanh", "inside", learn_alpha=True),
    "lif": LIF(0.4, **SPIKES),
    "lif, plain, attached": LIF((0.2, 0.6), drive="plain", reset="attached", **SPIKES),
    "lif, refractory": LIF(0.4, n_refractory=2, reset="attached", **SPIKES),
    "alif": ALIF(0.4, **SPIKES),
    "alif, scaled": ALIF(0.4, adaptation="scaled", **SPIKES),
    "alif, plain, attached": ALIF(0.4, drive="plain", reset="attached", adaptive=0.6, **SPIKES),
}
SMOOTH = ("potential", "drawn", "inside")
ALL = (*WEIGHTS, "alpha_logit")
every_neuron = pytest.mark.parametrize("neuron", NEURONS)
RULES = {
    "bptt": ({}, lambda p, rule: autograd(p)),
    "rtrl": ({}, lambda p, rule: autograd(p)),
    "snap": ({"n": 1000}, lambda p, rule: autograd(p)),
    "ostl": ({}, lambda p, rule: autograd(p)),
    "sk_rtrl": ({"rank": 1000}, lambda p, rule: autograd(p)),
    "three_factor": ({}, lambda p, rule: autograd(p, **no_hop())),
    "eprop_online": ({}, lambda p, rule: autograd(p, **no_hop())),
    "snap-1": ({"n": 1}, lambda p, rule: autograd(p, **no_hop())),
    "rflo": ({"seed": 3}, lambda p, rule: autograd(p, **no_hop(), **through(rule.feedback.weight))),
    "rflo_online": ({"seed": 3}, lambda p, rule: autograd(p, **no_hop(), **through(rule.feedback.weight))),
    "tbptt": ({"window": 3}, lambda p, rule: autograd(p, **in_blocks(3))),
    "sliding": ({"window": 3, "style": "sliding"}, lambda p, rule: sliding(p, 3)),
}


def rule_of(name: str, network: bpgen.Network) -> bpgen.rules.Rule:
    plain = {"sliding": "tbptt", "snap-1": "snap"}.get(name, name)
    return bpgen.load_rule(plain, **RULES[name][0]).bind(network)


def generic(neuron: str, **options):
    p = problem(NEURONS[neuron], **options)
    if p.network.neuron.spiking:
        with torch.no_grad():
            p.network.W_in.mul_(2.0)
    return p


@pytest.mark.parametrize("options", [{"when": "last", "loss": "cross_entropy", "learned": True}, {"masked": True}])
@every_neuron
@pytest.mark.parametrize("name", RULES)
def test_rule_equals_autograd_with_its_paths_cut(name, neuron, options):
    p = generic(neuron, **options)
    rule = rule_of(name, p.network)
    expected, got = RULES[name][1](p, rule), p.rule(rule).grads
    assert_equal(got, expected, ["alpha_logit"] if p.network.neuron.spiking else ALL, tol=1e-10)
    assert_equal(got, expected, [n for n in got if expected[n].norm() > 1e-6], tol=1e-10)
    assert_differ({"alpha_logit": -got["alpha_logit"]}, expected, ["alpha_logit"])


@pytest.mark.parametrize("kappa", [0.0, 0.6])
@pytest.mark.parametrize("neuron", ["potential", "alif, plain, attached"])
@pytest.mark.parametrize("name", ["rtrl", "snap", "snap-1", "sk_rtrl", "eprop_online", "rflo_online"])
def test_chunks_add_up_to_the_whole_sequence(name, neuron, kappa):
    """What came before a chunk meets the errors after it, by step and by block."""
    p = generic(neuron, kappa=kappa, T=9, masked=True)
    rule = rule_of(name, p.network)
    whole = asked(p.network, p.network.params(), p.x, p.target, Loss("mse", "all", p.mask), {"initial_state": p.s_0})[0]
    expected, carry = rule.gradients(whole).grads, None
    total = {n: torch.zeros_like(g) for n, g in expected.items()}
    alone = torch.zeros_like(expected["alpha_logit"])
    for first in (0, 4, 8):
        part = whole.steps(slice(first, first + 4))
        ends, share = first == 8, part.n_steps / 9
        carry, result = gradients_of_chunk(rule, part, carry, ends=ends, share=share)
        total = {n: total[n] + g for n, g in result.grads.items()}
        alone = alone + rule.gradients(part).grads["alpha_logit"]
    assert_equal(total, expected, ["alpha_logit", "W_in"], tol=1e-10)
    assert_differ({"alpha_logit": alone}, expected, ["alpha_logit"])  # control: nothing is carried


@pytest.mark.parametrize("neuron", SMOOTH)
def test_bptt_equals_differences_and_forward_mode(neuron):
    p = generic(neuron)
    got, theta = p.rule("bptt").grads["alpha_logit"], p.network.alpha_logit.detach()

    def loss(at):
        slow = run_slow(p, {**p.network.params(), "alpha_logit": at})
        return true_loss(slow.outputs, p.target, p.loss, p.when, p.mask)

    forward, slopes = torch.func.jacfwd(loss)(theta), []
    for i in range(len(theta)):
        by = torch.zeros_like(theta)
        by[i] = 1e-5
        slopes.append((loss(theta + by) - loss(theta - by)) / 2e-5)
    assert distance(got, forward) < 1e-12
    assert distance(got, torch.stack(slopes)) < 1e-6


@every_neuron
def test_all_else_is_that_of_the_same_alpha_given(neuron):
    p = generic(neuron)
    fixed = copy.deepcopy(p.network)
    fixed.neuron.learn_alpha = False
    fixed.neuron.set_each("alpha", p.network.alpha_logit.detach().sigmoid())
    del fixed.alpha_logit
    expected, got = replace(p, network=fixed).rule("bptt"), p.rule("bptt")
    assert set(got.grads) == {*expected.grads, "alpha_logit"}
    assert_equal(got.grads, expected.grads, [n for n, g in expected.grads.items() if g.any()])
    torch.testing.assert_close(got.outputs, expected.outputs, rtol=0, atol=1e-13)
    start = p.network.neuron.learned["alpha_logit"]  # the weights have been moved away from it
    torch.testing.assert_close(start.sigmoid(), p.network.neuron.alpha)
    assert not torch.allclose(start, p.network.alpha_logit)


def test_without_memory_nothing_is_learned_and_it_stays_within_its_range():
    """Limits: A, and with it the gradient of θ, goes to zero as α goes to 1 (no memory) or to 0 (no input)."""
    p = generic("potential")
    for far in (40.0, -40.0):
        with torch.no_grad():
            p.network.alpha_logit.fill_(far)
        assert p.rule("bptt").grads["alpha_logit"].abs().max() < 1e-12
        alpha = p.network.neuron.at(p.network.params()).alpha
        assert bool(((alpha >= 0) & (alpha <= 1)).all())


@pytest.mark.parametrize("neuron", ["potential", "lif, plain, attached"])
def test_uoro_is_right_on_average_over_all_its_signs(neuron):
    p = problem(NEURONS[neuron] if neuron == "potential" else LIF(0.4, drive="plain", **SPIKES), B=1, T=5, N=2)
    rule = bpgen.load_rule("uoro").bind(p.network)
    patterns = torch.tensor(list(product((-1.0, 1.0), repeat=10)), dtype=torch.float64)

    def mean_over(some):
        M = len(some)
        draws = {"signs": some.T.reshape(5, 1, 2, M).movedim(-1, 1), "initial_state": p.s_0.expand(M, -1, -1)}
        copies = p.x.expand(-1, M, -1), p.target.expand(-1, M, -1)
        return rule.gradients(*asked(p.network, p.network.params(), *copies, Loss("mse", "all"), draws)).grads

    assert_equal(mean_over(patterns), autograd(p), ["alpha_logit"], tol=1e-10)
    assert_differ(mean_over(patterns[:1]), autograd(p), ["alpha_logit"])


@pytest.mark.parametrize("kappa", [0.0, 0.4])
def test_both_forms_of_a_diffusing_signal_agree(kappa):
    p = problem(NEURONS["alif, plain, attached"], masked=True, kappa=kappa)
    online, offline = (p.rule(f"diffusive_eprop{form}", seed=3).grads for form in ("_online", ""))
    assert_equal(online, offline, ["alpha_logit", "W_rec", "W_in"])


@pytest.mark.parametrize("trace", ["own", "murray"])
@pytest.mark.parametrize("leak", ["potential", "inside"])
def test_both_forms_of_rflo_agree_on_either_trace(leak, trace):
    p = problem(Leaky(0.4, "tanh", leak, learn_alpha=True), masked=True)
    p = replace(p, s_0=torch.zeros_like(p.s_0))  # the published trace knows no initial state
    online, offline = (p.rule(name, seed=3, trace=trace).grads for name in ("rflo_online", "rflo"))
    assert_equal(online, offline, ["alpha_logit", "W_rec", "W_in"])


TRAINS = [n for n, p in plugins("rule").items() if p.class_path.startswith("bpgen_rules")]
WITHOUT = ("dni", "kernl", "kf_rtrl", "force", "hebbian", "ottt", "pp_prop", "readout_only", "rmhl", "sltt")


@pytest.mark.parametrize("name", TRAINS)
def test_every_built_in_rule_has_a_gradient_or_says_by_name_that_it_has_none(name):
    p = problem(NEURONS["potential"], when="all")
    rule = bpgen.load_rule(name)
    if name in WITHOUT:
        with pytest.raises(BpgenError, match=f"{type(rule).__name__} has no gradient for alpha_logit"):
            rule.bind(p.network)
    else:
        assert p.rule(rule).grads["alpha_logit"].norm() > 1e-6


def test_what_cannot_be_learned_is_refused():
    with pytest.raises(BpgenError, match="not for leak='rate'"):
        Leaky(0.4, leak="rate", learn_alpha=True)
    for alpha in (1.0, (0.2, 1.0), torch.tensor([0.5, 1.0])):
        with pytest.raises(BpgenError, match="start below 1"):
            Leaky(alpha, learn_alpha=True)


# Curvature


@pytest.mark.parametrize("block", ["alpha_logit", "all", "W_rec", ("alpha_logit", "W_in")])
@pytest.mark.parametrize("neuron", SMOOTH)
def test_hessian_of_any_block_is_the_dense_one(neuron, block):
    p = generic(neuron, N=3, T=5, loss="cross_entropy")
    net = p.network
    loss = Loss("cross_entropy", "all")
    whole = asked(net, net.params(), p.x, p.target, loss, {"initial_state": p.s_0})[0]
    H = HessianProducts(whole, block)
    assert H.by == ("roperator" if block == "W_rec" else "autograd")
    names = list(net.params()) if block == "all" else [block] if isinstance(block, str) else list(block)
    free = [n for n in net.params() if n in names]
    sizes = [net.params()[n].numel() for n in free]

    def value(theta):
        at = {n: part.view_as(net.params()[n]) for n, part in zip(free, theta.split(sizes), strict=True)}
        slow = run_slow(p, {**net.params(), **at})
        return true_loss(slow.outputs, p.target, p.loss, p.when, None)

    theta = torch.cat([net.params()[n].flatten() for n in free])
    dense = torch.func.hessian(value)(theta)
    acts = torch.cat(
        [(net.masks()[n] if n in net.masks() else torch.ones_like(net.params()[n])).flatten() for n in free]
    )
    dense = dense[acts > 0][:, acts > 0]
    got = H(torch.eye(H.size, dtype=torch.float64))
    assert dense.norm() > 1e-3
    torch.testing.assert_close(got, dense, rtol=0, atol=1e-10)
    assert "alpha_logit" not in free or bool((dense - dense.diag().diag()).abs().max() > 1e-4)
    if "alpha_logit" in free:
        with pytest.raises(BpgenError, match="R-operator knows no alpha_logit"):
            HessianProducts(whole, block, by="roperator")


def test_all_names_what_is_in_it_and_the_shares_of_neurons_count_it():
    p = generic("potential")
    found = bpgen.sharpness(p.network, p.x, p.target, "mse", "all", block="alpha_logit", tol=1e-10)
    share = bpgen.curvature.participation(p.network, found.vectors[0], "alpha_logit")
    torch.testing.assert_close(share.incoming, found.vectors[0].double().square())
    assert "alpha_logit" in bpgen.curvature.block.trained(p.network)


# Runs


def test_a_run_learns_it_saves_it_and_gives_it_back(tmp_path):
    options = {"task": "digits", "network": {"n_rec": 8}, "trainer": {"max_steps": 12}, "optimizer": {"lr": 0.5}}
    run = bpgen.fit(
        rule="eprop",
        neuron={"name": "leaky", "alpha": 0.4, "learn_alpha": True},
        out=str(tmp_path),
        quiet=True,
        **options,
    )
    assert run.status == "finished"
    alpha = run.network.neuron.at(run.weights).alpha
    assert alpha.shape == (8,)
    assert len(alpha.unique()) == 8
    assert (alpha - 0.4).abs().max() > 1e-4
    again = bpgen.load_run(run.folder.path)
    assert torch.equal(again.network.alpha_logit, run.network.alpha_logit)
    frozen = bpgen.fit(
        rule="eprop",
        neuron={"name": "lif", "alpha": 0.4, "learn_alpha": True},
        out=str(tmp_path),
        quiet=True,
        **{**options, "optimizer": {"lr": 0.1, "lr_scale": {"alpha_logit": 0.0}}},
    )
    torch.testing.assert_close(frozen.network.neuron.at(frozen.weights).alpha, torch.full((8,), 0.4))
