"""A regulariser of the activity under every rule: told to each neuron at all steps, along the rule's own paths."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import bpgen
from bpgen.errors import BpgenError
from bpgen.losses import Activity, Loss
from bpgen.neurons import ALIF, Leaky
from bpgen.registry import plugins
from bpgen.rules import learning_signal, weight_gradients
from bpgen.rules.chunks import gradients_of_chunk
from tests.oracles import (
    RECURRENT,
    WEIGHTS,
    activity_cost,
    asked,
    assert_differ,
    assert_equal,
    autograd,
    in_blocks,
    no_hop,
    problem,
    randn,
    sliding,
    through,
)

T = 7
COSTS = {"rate": Activity(3.0, "rate", 0.2), "square": Activity(40.0, "square")}
every_form = pytest.mark.parametrize("form", COSTS)
every_leak = pytest.mark.parametrize("leak", ["potential", "rate", "inside"])
OPEN = {
    "bptt": ({}, lambda p, rule, cost: autograd(p, cost)),
    "three_factor": ({}, lambda p, rule, cost: autograd(p, cost, **no_hop())),
    "rflo": ({"seed": 3}, lambda p, rule, cost: autograd(p, cost, **no_hop(), **through(rule.feedback.weight))),
    "tbptt": ({"window": 3}, lambda p, rule, cost: autograd(p, cost, **in_blocks(3))),
    "sliding": ({"window": 3, "style": "sliding"}, lambda p, rule, cost: sliding(p, 3, cost)),
}


def both(form, p, name, options):
    """The rule's gradients with and without the cost, and the cost as the oracle takes it."""
    activity = COSTS[form]
    rule = bpgen.load_rule("tbptt" if name == "sliding" else name, **options).bind(p.network)
    args = (rule, p.network, p.x, p.target, p.loss, p.when, p.mask, p.s_0)

    def cost(h):
        return activity_cost(h, activity.coefficient, form, activity.target)

    return rule, bpgen.gradients(*args, activity=activity), bpgen.gradients(*args), cost


@every_form
@every_leak
@pytest.mark.parametrize("when", ["last", "all"])
@pytest.mark.parametrize("name", OPEN)
def test_rule_equals_autograd_with_its_paths_cut(name, when, leak, form):
    options, expected = OPEN[name]
    p = problem(Leaky(0.4, "tanh", leak), T=T, when=when, learned=True, kappa=0.3 if when == "last" else 0.0)
    rule, got, bare, cost = both(form, p, name, options)
    oracle = expected(p, rule, cost)
    assert_equal(got.grads, oracle, {*WEIGHTS, "initial_state"})
    assert_differ(bare.grads, oracle, RECURRENT)
    torch.testing.assert_close(got.grads["W_out"], bare.grads["W_out"], rtol=0, atol=0)
    run = p.network.run(p.network.params(), p.x, when=when)
    torch.testing.assert_close(got.loss - bare.loss, cost(list(run.h)))


@every_form
def test_readout_only_reports_the_cost_and_learns_nothing_from_it(form):
    p = problem(T=T)
    _, got, bare, cost = both(form, p, "readout_only", {})
    run = p.network.run(p.network.params(), p.x, initial_state=p.s_0)
    torch.testing.assert_close(got.loss - bare.loss, cost(list(run.h)))
    assert all(torch.equal(got.grads[n], g) for n, g in bare.grads.items())


@every_form
def test_a_strangers_rule_learns_from_the_cost_without_knowing_of_it(form):
    """The README's rule calls `propagate` and nothing else."""

    class SignFeedback(bpgen.rules.OfflineRule):
        def credit(self, trajectory, error):
            return bpgen.rules.propagate(trajectory, error @ trajectory.params["W_out"].sign())

    p = problem(T=T)
    args = (SignFeedback(), p.network, p.x, p.target, p.loss, p.when, p.mask, p.s_0)
    got = bpgen.gradients(*args, activity=COSTS[form]).grads
    a = COSTS[form]
    expected = autograd(
        p, lambda h: activity_cost(h, a.coefficient, form, a.target), **no_hop(), **through(p.network.W_out.sign())
    )
    assert_equal(got, expected, WEIGHTS)


@every_leak
def test_the_published_trace_of_rflo_carries_the_cost_as_well(leak):
    p = problem(Leaky(0.4, "tanh", leak), T=T)
    rule, got, bare, _ = both("rate", p, "rflo", {"seed": 3, "trace": "murray"})
    run = p.network.run(p.network.params(), p.x, when="all", initial_state=p.s_0)
    q = COSTS["rate"].gradient(run.h)
    run = replace(run, activity=COSTS["rate"])
    silent = torch.zeros(T, 3, 3, dtype=torch.float64)
    alone = weight_gradients(run, rule.credit(run, silent), silent)
    assert_equal({n: got.grads[n] - bare.grads[n] for n in RECURRENT}, alone, RECURRENT)
    assert torch.equal(learning_signal(run, torch.zeros_like(q)), q)
    if leak == "rate":
        own = both("rate", p, "rflo", {"seed": 3})[1].grads
        assert_equal(got.grads, own, RECURRENT)


@every_form
def test_split_batches_add_up(form):
    p = problem(T=T)
    whole, one, two = (
        both(form, part, "three_factor", {})[1] for part in (p, p.part(slice(0, 1)), p.part(slice(1, 3)))
    )
    torch.testing.assert_close((one.loss + 2 * two.loss) / 3, whole.loss)
    added = {n: (one.grads[n] + 2 * two.grads[n]) / 3 for n in WEIGHTS}
    assert_equal(added, whole.grads, WEIGHTS)


def test_spiking_rates_are_pulled_to_their_target():
    """e-prop with the cost alone: silent neurons start to fire at about the target rate (Bellec 2020)."""
    p = problem(ALIF(0.3, reset="detached"), T=20, B=4, N=8, when="last")
    target, params = 0.2, p.network.params()
    params["W_out"].zero_()
    params["b_rec"].fill_(-0.5)
    loss = Loss("mse", "last", None, None, Activity(1.0, "rate", target))
    rule = bpgen.load_rule("eprop").bind(p.network)
    goal = torch.zeros(4, 3, dtype=torch.float64)
    rates = []
    for _ in range(50):
        grads = rule.gradients(*asked(p.network, params, randn(8, 20, 4, 4), goal, loss, {})).grads
        rates.append(p.network.run(params, randn(8, 20, 4, 4)).h[1:].mean((0, 1)))
        params["b_rec"] -= 8.0 * grads["b_rec"]
    off = [(rate - target).abs().mean().item() for rate in rates]
    assert off[-1] < 0.5 * off[0]


def test_what_runs_forward_in_time_refuses_the_cost():
    """Its mean over the sequence is not known before the end; ignoring it silently would be another objective."""
    p, loss = problem(T=T), Loss("mse", "all", None, None, COSTS["rate"])
    for name in ("rtrl", "eprop_online"):
        with pytest.raises(BpgenError, match=r"runs forward in time here.*set loss.activity to 0"):
            bpgen.gradients(name, p.network, p.x, p.target, "mse", "all", activity=COSTS["rate"])
    rule = bpgen.load_rule("eprop").bind(p.network)
    args = (p.network, p.network.params(), p.x[:3], p.target[:3])
    ends = {"ends": False, "share": 0.5}
    with pytest.raises(BpgenError, match="ThreeFactor runs forward in time here"):
        gradients_of_chunk(rule, asked(*args, loss)[0], None, **ends)
    assert gradients_of_chunk(rule, asked(*args, loss.without_regulariser())[0], None, **ends)[1].grads["W_rec"].any()


@pytest.mark.parametrize("name", [n for n, p in plugins("rule").items() if p.class_path.startswith("bpgen_rules")])
def test_every_built_in_rule_reports_the_cost_or_refuses_it(name):
    p = problem(T=4)
    rule = bpgen.load_rule(name)
    args = (rule, p.network, p.x, p.target, p.loss, p.when, p.mask, p.s_0)
    try:
        with_cost = bpgen.gradients(*args, activity=Activity(50.0, "rate", 0.2)).loss
    except BpgenError as error:
        assert "cost of the activity" in str(error)  # noqa: PT017
    else:
        assert with_cost - bpgen.gradients(*args).loss > 1
