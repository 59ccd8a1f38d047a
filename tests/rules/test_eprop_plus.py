"""E-prop+ against slow references, in the limits it names, over many steps at once, and with its mistakes planted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.func import vmap

import bpgen
from bpgen.conformance import plan
from bpgen.conformance.rules.blocks import StepByStep
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.neurons import ALIF, LIF, LSTM, Leaky
from bpgen.rules import Rule, gradients_of_chunk
from tests.oracles import RECURRENT, WEIGHTS, assert_differ, assert_equal, autograd, no_hop, problem, randn
from tests.rules.reference_eprop_plus import Options, dense, events
from tests.rules.test_online import mutant
from tests.rules.test_references import SPIKING, every_readout, spiking, tensors

every_neuron = pytest.mark.parametrize("name", SPIKING)
NEURONS = {
    "lif": lambda: LIF(0.3, threshold=0.5, dampening=0.9),
    "alif, attached": lambda: ALIF(0.3, threshold=0.5, dampening=0.9, beta=0.7, rho=0.8, reset="attached"),
    "rate": lambda: Leaky(0.4, "tanh", "rate"),
    "lstm": LSTM,
    "learned leak": lambda: Leaky(0.4, "tanh", learn_alpha=True),
}
RATE = {"rate_cost": 2.0, "rate_target": 0.1, "rate_decay": 0.7}
SETTINGS = {
    "plain": Options(),
    "cutoff": Options(cutoff=2),
    "rate": Options(cost=2.0),
    "both": Options(cutoff=2, cost=2.0),
}


def sparse(name: str, kappa: float):
    """`test_references.spiking` with inputs that come now and then, so that there is something to cut."""
    p, model = spiking(name, kappa)
    p = replace(p, x=3 * p.x * (randn(91, *p.x.shape) > 0.8))
    return p, replace(model, x=p.x.numpy())


def as_options(o: Options) -> dict:
    cutoff = None if o.cutoff == float("inf") else int(o.cutoff)
    return {"cutoff": cutoff, "rate_cost": o.cost, "rate_target": o.target, "rate_decay": o.keep}


def check(rule: Rule, name: str = "ALIF", kappa: float = 0.6, setting: str = "both") -> None:
    """The rule, built with the options of a setting, against every synapse's masked traces."""
    p, model = sparse(name, kappa)
    assert_equal(p.rule(rule).grads, tensors(dense(model, model.R, SETTINGS[setting])), RECURRENT)


# Against references


@every_readout
@every_neuron
@pytest.mark.parametrize("setting", SETTINGS)
def test_it_equals_its_traces_written_out(name, kappa, setting):
    options = as_options(SETTINGS[setting])
    check(bpgen.load_rule("eprop_plus", **options), name, kappa, setting)
    p, _ = sparse(name, kappa)
    assert 0.05 < p.network.run(p.network.params(), p.x, initial_state=p.s_0).h.mean() < 0.9
    got, bptt = p.rule("eprop_plus", **options).grads, p.rule("bptt").grads
    assert_equal(got, bptt, ["W_out", "b_out"])
    e_prop = p.rule("eprop").grads
    if options["cutoff"]:  # inputs are cut, and so are the spikes of quiet neurons; the bias is not
        assert_differ(got, e_prop, ["W_in"], by=0.01)
    if options["rate_cost"]:
        assert_differ(got, e_prop, RECURRENT, by=0.01)
    if setting == "cutoff":
        assert_equal(got, e_prop, ["b_rec"])


@every_readout
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ["LIF", "LIF, plain drive"])
def test_from_spike_to_spike_it_is_the_same_sum(name, kappa, setting):
    """As NEST has it, with random feedback: intervals cut short, and traces that decay from there on."""
    p, model = sparse(name, kappa)
    rule = bpgen.load_rule("eprop_plus", feedback="random", seed=3, **as_options(SETTINGS[setting])).bind(p.network)
    B = rule.feedback.weight.numpy()
    event_driven = events(model, B, SETTINGS[setting])
    assert_equal(tensors(event_driven), tensors(dense(model, B, SETTINGS[setting])), RECURRENT)
    assert_equal(p.rule(rule).grads, tensors(event_driven), RECURRENT)
    other = events(model, B, replace(SETTINGS[setting], cutoff=1))
    assert_differ(tensors(other), tensors(event_driven), ["W_rec", "W_in"])


# Limits


@every_readout
@pytest.mark.parametrize("neuron", NEURONS)
def test_without_cutoff_and_cost_it_is_e_prop(neuron, kappa):
    """Online at once and step by step, and offline; and with a cutoff longer than the sequence."""
    p = problem(NEURONS[neuron](), T=9, kappa=kappa, learned=True)
    online, offline = p.rule("eprop_online").grads, p.rule("eprop").grads
    by_step = bpgen.load_rule("eprop_plus")
    by_step.at_once = False
    for rule in (bpgen.load_rule("eprop_plus"), by_step, bpgen.load_rule("eprop_plus", cutoff=9)):
        got = p.rule(rule).grads
        assert_equal(got, online, tol=1e-12)
        assert_equal(got, offline)
    assert_differ(p.rule("eprop_plus", **RATE).grads, online, RECURRENT, by=0.01)


def test_a_cutoff_longer_than_every_interval_cuts_nothing():
    p, _ = sparse("LIF", 0.5)
    h = p.network.run(p.network.params(), p.x, initial_state=p.s_0).h
    spikes = torch.cat([h[:-1], p.x], dim=-1) != 0
    ages, longest = torch.full(spikes.shape[1:], -1), 0
    for now in spikes:  # the oldest spike that is still the last one, of sources that have had any
        ages = torch.where(now, 0, torch.where(ages >= 0, ages + 1, -1))
        longest = max(longest, int(ages.max()))
    assert 1 < longest < 9
    e_prop = p.rule("eprop_online").grads
    assert_equal(p.rule("eprop_plus", cutoff=longest + 1).grads, e_prop, tol=1e-12)
    assert_differ(p.rule("eprop_plus", cutoff=2).grads, e_prop, ["W_rec", "W_in"])


@every_readout
@pytest.mark.parametrize("neuron", NEURONS)
def test_the_cost_of_rates_is_a_loss_along_own_paths(neuron, kappa):
    """Autograd of L + c/(2B) Σ_t Σ_j (f_t - f*)² with the recurrent paths cut; the readout learns from L alone."""
    p = problem(NEURONS[neuron](), T=9, kappa=kappa, learned=True)
    expected = autograd(p, rate_cost, **no_hop())
    got = p.rule("eprop_plus", **RATE).grads
    assert_equal(got, expected)
    assert_differ(got, autograd(p, **no_hop()), RECURRENT, by=1e-3)


def rate_cost(h):
    """E of the module's docstring for the numbers of RATE."""
    rate, total = torch.zeros_like(h[0]), 0.0
    for now in h[1:]:
        rate = 0.7 * rate + 0.3 * now
        total = total + (rate - 0.1).square().sum()
    return 2.0 / 2 / h[0].shape[0] * total


# Many steps, chunks, lengths, seeds


@every_readout
@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("when", ["all", "last"])
def test_rates_over_many_steps_at_once_are_those_of_step_after_step(neuron, kappa, when):
    p = problem(NEURONS[neuron](), T=9, kappa=kappa, learned=True, when=when)
    rule = bpgen.load_rule("eprop_plus", **RATE).bind(p.network)
    assert rule.at_once
    asked = bpgen.problem.Problem(p.network, p.network.params(), p.x, p.target, Loss("mse", when))
    fast, slow = rule.gradients(asked).grads, StepByStep(rule).gradients(asked).grads
    assert_equal(fast, slow, tol=1e-12)


@pytest.mark.parametrize("options", [{"cutoff": 2}, RATE, {"cutoff": 2, **RATE}])
def test_chunks_carried_across_are_the_whole_sequence(options):
    p, _ = sparse("ALIF", 0.6)
    rule = bpgen.load_rule("eprop_plus", **options).bind(p.network)
    asked = bpgen.problem.Problem(p.network, p.network.params(), p.x, p.target, Loss("mse", "all"), p.s_0)
    whole, carry, total = rule.gradients(asked).grads, None, dict.fromkeys(WEIGHTS, 0)
    for part in (slice(0, 2), slice(2, 3), slice(3, 9)):
        length = part.stop - part.start
        carry, found = gradients_of_chunk(rule, asked.steps(part), carry, ends=part.stop == 9, share=length / 9)
        total = {n: total[n] + found.grads[n] for n in WEIGHTS}
    assert_equal(total, whole)


@pytest.mark.parametrize("at_once", [True, False])
def test_rates_behind_the_end_of_a_sequence_cost_nothing(at_once):
    """A batch of different lengths is the mean of its sequences alone; where padding counted, it would not be."""
    p = problem(NEURONS["lif"](), T=9, kappa=0.5)
    lengths = torch.tensor([9, 4, 6])
    rule = bpgen.load_rule("eprop_plus", **RATE)
    rule.at_once = at_once

    def grads(samples, length, lengths=None):
        x, target = p.x[:length, samples], p.target[:length, samples]
        return bpgen.gradients(rule, p.network, x, target, "mse", "all", lengths=lengths).grads

    batch, alone = grads(slice(None), 9, lengths), [grads([b], int(lengths[b])) for b in range(3)]
    mean = {n: sum(one[n] for one in alone) / 3 for n in WEIGHTS}
    assert_equal(batch, mean)
    assert_differ(grads(slice(None), 9), mean, RECURRENT)


def test_seeds_side_by_side_are_seeds_alone():
    p, _ = sparse("LIF", 0.6)
    rule = bpgen.load_rule("eprop_plus", cutoff=2, **RATE).bind(p.network)
    params = {n: torch.stack([w, 0.8 * w]) for n, w in p.network.params().items()}

    def one(params):
        return rule.gradients(bpgen.problem.Problem(p.network, params, p.x, p.target, Loss("mse", "all"), p.s_0)).grads

    both = vmap(one)(params)
    for i in range(2):
        assert_equal({n: g[i] for n, g in both.items()}, one({n: w[i] for n, w in params.items()}))


# Options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cutoff": 0}, "cutoff must be at least 1 step"),
        ({"cutoff": 2.5}, "cutoff must be a whole number or none"),
        ({"rate_cost": -1.0}, "rate_cost must be a number >= 0"),
        ({"rate_cost": float("nan")}, "rate_cost must be"),
        ({"rate_target": -0.1}, "rate_target must be activity per step"),
        ({"rate_decay": 1.0}, r"rate_decay must be in \[0, 1\)"),
    ],
)
def test_an_option_out_of_range_is_refused(options, says):
    with pytest.raises(BpgenError, match=says):
        bpgen.load_rule("eprop_plus", **options)


class AsUsed(type(bpgen.load_rule("eprop_plus"))):
    """With a cutoff and a cost by default, for the suite, which takes defaults."""

    def __init__(self, cutoff=3, rate_cost=0.5, rate_target=0.1, rate_decay=0.7, **feedback):
        super().__init__(cutoff, rate_cost, rate_target, rate_decay, **feedback)


def test_it_passes_the_suite_as_it_is_used_too():
    found = [check.run() for check in plan(AsUsed)]
    assert not [outcome for outcome in found if outcome.status == "fail"]
    assert sum(outcome.status == "pass" for outcome in found) > 25


# Mutants: likely mistakes, and that the checks above see them. Each is planted in `step`.

MUTANTS = {
    "traces are not cut": ("eprop_plus", "e = e if m is None else e * m", "e = e"),
    "synapses listen on behind the cutoff": ("eprop_plus", "own if m is None else own * m", "own"),
    "the cutoff is a step late": ("eprop_plus", "since < self.cutoff", "since <= self.cutoff"),
    "a spike does not count from anew": (
        "eprop_plus",
        "torch.where(moment.pre != 0, 0.0,",
        "torch.where(moment.pre > 1e9, 0.0,",
    ),
    "rates are filtered as the readout is": ("eprop_plus", "keep = self.rate_decay", "keep = moment.kappa"),
    "rates meet the readout's trace": (
        "eprop_plus",
        '.unsqueeze(-1) * after["rate_trace"]',
        '.unsqueeze(-1) * after["trace"]',
    ),
    "the rate is the spike of the moment": ("eprop_plus", 'keep * state["rate"] + (1 - keep) * moment.h', "moment.h"),
    "no target": ("eprop_plus", "(rate - self.rate_target)", "rate"),
    "a sum over the batch": ("eprop_plus", "self.rate_cost / rate.shape[-2]", "self.rate_cost"),
}


@pytest.mark.parametrize("row", MUTANTS)
def test_mutant_is_killed(row):
    options = as_options(SETTINGS["both"])
    check(bpgen.load_rule("eprop_plus", **options))
    wrong = mutant(*MUTANTS[row])
    with pytest.raises(AssertionError):
        check(wrong(**options))


@pytest.mark.parametrize(
    "planted",
    [
        ("filtered_back(off, self.rate_decay, T)", "off"),
        ("filtered(run.h[1:], self.rate_decay)", "run.h[1:]"),
        ("if credit.initial is None", "if True"),
    ],
)
def test_mutant_of_many_steps_is_killed(planted):
    rule = "eprop_plus"
    test_rates_over_many_steps_at_once_are_those_of_step_after_step("rate", 0.6, "all")
    p = problem(NEURONS["rate"](), T=9, kappa=0.6, learned=True)
    with pytest.raises(AssertionError):
        assert_equal(p.rule(mutant(rule, *planted)(**RATE)).grads, p.rule(rule, **RATE).grads)
