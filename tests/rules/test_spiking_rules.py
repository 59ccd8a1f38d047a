"""Rules made for spiking networks, against slow references of their papers and in the limits they name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bpgen
from bpgen.errors import BpgenError
from bpgen.neurons import ALIF, LIF, Leaky
from bpgen.rules import Rule
from tests.oracles import RECURRENT, assert_differ, assert_equal, distance, problem
from tests.rules import reference_spiking_rules
from tests.rules.test_online import mutant
from tests.rules.test_references import SPIKING, every_readout, spiking, tensors

SYNAPSES = ("W_rec", "W_in")
every_neuron = pytest.mark.parametrize("name", SPIKING)


def near_threshold(**options):
    return LIF(0.3, threshold=0.5, dampening=0.9, **options)


def check_ottt(rule: Rule, decay: float | None = None, name: str = "LIF", kappa: float = 0.6, **options) -> None:
    """The rule against traces written out, at its own λ or a given one."""
    p, model = spiking(name, kappa, **options)
    expected = reference_spiking_rules.ottt(model, model.R, 1 - model.alpha if decay is None else decay)
    assert_equal(p.rule(rule).grads, tensors(expected), RECURRENT)


# OTTT and SLTT


@every_readout
@every_neuron
@pytest.mark.parametrize("reset", ["detached", "attached"])
def test_ottt_and_sltt_equal_their_traces(name, kappa, reset):
    """Neither sees the reset or the adaptation; the reference does not know that there is a choice."""
    check_ottt(bpgen.load_rule("ottt"), None, name, kappa, reset=reset)
    check_ottt(bpgen.load_rule("ottt", trace_decay=0.9), 0.9, name, kappa, reset=reset)
    check_ottt(bpgen.load_rule("sltt"), 0.0, name, kappa, reset=reset)
    p, _ = spiking(name, kappa)
    assert 0.1 < p.network.run(p.network.params(), p.x, initial_state=p.s_0).h.mean() < 0.9
    assert_differ(p.rule("ottt").grads, p.rule("sltt").grads, SYNAPSES, by=0.1)
    assert_equal(p.rule("ottt").grads, p.rule("sltt").grads, ["b_rec", "W_out", "b_out"])


def test_ottt_with_random_feedback_and_leaks_of_their_own():
    p, model = spiking("LIF", 0.0)
    leaks = np.linspace(0.2, 0.8, 5)
    neuron = LIF(torch.from_numpy(leaks), threshold=0.5, dampening=0.9)
    p.network.neuron = neuron.populate(5, torch.Generator(), torch.float64)
    model.alpha = model.gain = leaks
    rule = bpgen.load_rule("ottt", feedback="random", seed=3).bind(p.network)
    B = rule.feedback.weight.numpy()
    assert_equal(p.rule(rule).grads, tensors(reference_spiking_rules.ottt(model, B, 1 - leaks)), RECURRENT)
    assert_differ(p.rule("ottt").grads, p.rule(rule).grads, RECURRENT)


OUTSIDE = {"LIF": near_threshold(), "LIF, plain": near_threshold(drive="plain"), "potential": Leaky(0.4, "tanh")}
INSIDE = {
    "ALIF": ALIF(0.3, threshold=0.5, dampening=0.9, beta=0.7, rho=0.8),
    "reset attached": near_threshold(reset="attached"),
    "rate": Leaky(0.4, "tanh", "rate"),
    "inside": Leaky(0.4, "tanh", "inside"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_ottt_is_e_prop_where_the_slope_stands_outside_a_filter_of_the_leak_alone(name):
    p = problem(OUTSIDE[name], T=9)
    e_prop = p.rule("eprop").grads
    assert_equal(p.rule("ottt").grads, e_prop, SYNAPSES)
    assert_differ(p.rule("ottt").grads, e_prop, ["b_rec"])  # it has no trace
    assert_differ(p.rule("bptt").grads, e_prop, SYNAPSES)
    p = problem(OUTSIDE[name], T=9, kappa=0.5)
    assert_differ(p.rule("ottt").grads, p.rule("eprop").grads, SYNAPSES)


@pytest.mark.parametrize("name", INSIDE)
def test_ottt_is_not_e_prop_elsewhere(name):
    p = problem(INSIDE[name], T=9)
    assert_differ(p.rule("ottt").grads, p.rule("eprop").grads, SYNAPSES, by=0.01)


@pytest.mark.parametrize("make", [near_threshold, lambda: Leaky(0.4, "tanh")])
def test_sltt_is_ottt_without_a_trace_and_e_prop_of_neurons_without_memory(make):
    p = problem(make(), T=9)
    assert_equal(p.rule("sltt").grads, p.rule("ottt", trace_decay=0.0).grads, ["W_rec", "W_in", "b_rec", "W_out"])
    assert_differ(p.rule("sltt").grads, p.rule("eprop").grads, SYNAPSES)
    p = problem(LIF(1.0, dampening=0.9), T=9)
    assert_equal(p.rule("sltt").grads, p.rule("eprop").grads, RECURRENT)
    assert distance(p.rule("bptt").grads["W_rec"], p.rule("sltt").grads["W_rec"]) > 0.01


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_trace_that_does_not_decay_is_refused(decay):
    with pytest.raises(BpgenError, match=r"trace_decay must be in \[0, 1\)"):
        bpgen.load_rule("ottt", trace_decay=decay)


# Mutants: the likely mistake of each rule, and that the checks above see it. The last word: what is planted in `step`.

MUTANTS = {
    "ottt forgets its trace": ("ottt", 'decay * state["trace"] + moment', "moment", check_ottt),
    "ottt gives the bias a trace": ("ottt", 'if "b_rec" in grads else grads', "if False else grads", check_ottt),
    "ottt tells all of a filtered readout": ("ottt", "(1 - moment.kappa) * self", "self", check_ottt),
    "ottt leaves out the drive": (
        "ottt",
        "moment.C, moment.tell",
        "moment.C / moment.C, moment.tell",
        check_ottt,
    ),
    "ottt keeps what leaks": ("ottt", "1 - network.neuron.alpha if", "network.neuron.alpha if", check_ottt),
    "sltt keeps a trace": ("sltt", "trace_decay=0.0", "trace_decay=0.1", lambda rule: check_ottt(rule, 0.0)),
}


@pytest.mark.parametrize("row", MUTANTS)
def test_mutant_is_killed(row):
    name, old, new, check = MUTANTS[row]
    check(bpgen.load_rule(name))
    wrong = mutant(name, old, new)
    if name in ("ottt", "sltt"):
        wrong.at_once = False  # what is planted is in `step`; `block` is held to it by the conformance suite
    with pytest.raises(AssertionError):
        check(wrong())
