"""The rules against slow forward-in-time references that know nothing of bpgen (`reference.py`)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bpgen
from bpgen.neurons import ALIF, LIF, Leaky
from tests.oracles import RECURRENT, assert_differ, assert_equal, leaves, problem, run_slow, true_loss
from tests.rules import reference, reference_spiking

LEAKS = ("potential", "rate", "inside")
every_leak = pytest.mark.parametrize("leak", LEAKS)
every_readout = pytest.mark.parametrize("kappa", [0.0, 0.6])


def both(leak, kappa=0.0, phi="tanh", alpha=0.4):
    """The same problem for bpgen and, as bare arrays, for the references."""
    p = problem(Leaky(alpha, phi, leak), T=6, kappa=kappa)
    W, U, b, R, c = (p.network.params()[n].numpy(force=True) for n in ("W_rec", "W_in", "b_rec", "W_out", "b_out"))
    model = reference.Model(W, U, b, R, c, p.x.numpy(), p.target.numpy(), p.s_0[:, 0].numpy(), alpha, leak, phi, kappa)
    return p, model


def tensors(grads):
    return {name: torch.from_numpy(np.ascontiguousarray(g)) for name, g in grads.items()}


def random_feedback(p):
    rule = bpgen.load_rule("rflo", seed=3, scale=2.0).bind(p.network)
    return rule, rule.feedback.weight.numpy()


@every_leak
@every_readout
@pytest.mark.parametrize("phi", ["tanh", "relu", "softplus"])
def test_bptt_equals_rtrl(leak, kappa, phi):
    p, model = both(leak, kappa, phi)
    expected = tensors(reference.rtrl(model))
    assert_equal(p.rule("bptt").grads, expected)
    assert_differ(p.rule("three_factor").grads, expected, RECURRENT)


@every_leak
@every_readout
def test_three_factor_equals_the_trace_form_of_e_prop(leak, kappa):
    p, model = both(leak, kappa)
    expected = tensors(reference.e_prop(model, reference.learning_signal(model, model.R)))
    assert_equal(p.rule("three_factor").grads, expected)
    assert_differ(p.rule("bptt").grads, expected, RECURRENT)


@every_leak
@every_readout
def test_rflo_along_its_own_path_equals_e_prop_with_random_feedback(leak, kappa):
    p, model = both(leak, kappa)
    rule, B = random_feedback(p)
    expected = tensors(reference.e_prop(model, reference.learning_signal(model, B)))
    got = p.rule(rule).grads
    assert_equal(got, expected)
    assert_differ(p.rule("three_factor").grads, got, RECURRENT, by=0.1)


@every_leak
@every_readout
def test_rflo_with_the_published_trace_equals_murray(leak, kappa):
    p, model = both(leak, kappa)
    own, B = random_feedback(p)
    expected = tensors(reference.rflo(model, reference.learning_signal(model, B)))
    got = p.rule("rflo", seed=3, scale=2.0, trace="murray").grads
    assert_equal(got, expected)
    if leak == "rate":  # there, and only there, Murray's trace is the neuron's own path
        assert_equal(p.rule(own).grads, expected)
    else:
        assert_differ(p.rule(own).grads, got, RECURRENT)


def test_rflo_with_true_feedback_is_rtrl_whose_jacobian_is_the_leak():
    p, model = both("rate")
    expected = tensors(reference.rtrl(model, leak_only=True))
    rule = bpgen.load_rule("rflo")
    rule.feedback.weight = p.network.params()["W_out"]
    assert_equal(p.rule(rule).grads, expected)
    assert_differ(p.rule("bptt").grads, expected, RECURRENT)
    p, model = both("inside")  # control: the identity belongs to the rate leak
    assert_differ(p.rule("rflo", feedback="symmetric").grads, tensors(reference.rtrl(model, True)), RECURRENT)


@every_leak
@every_readout
def test_trace_times_total_learning_signal_is_bptt(leak, kappa):
    """Bellec 2020, eq. 1: only the partial derivative in place of the total makes e-prop an approximation."""
    p, model = both(leak, kappa)
    params = leaves(p)
    slow = run_slow(p, params)
    value = true_loss(slow.outputs, p.target, p.loss, p.when, p.mask)
    # The total derivative at fixed s_t: h_t is read off the state, which carries the own path by itself.
    total = torch.stack(torch.autograd.grad(value, slow.h[1:])).numpy()
    unfiltered = reference.Model(**{**vars(model), "kappa": 0.0})  # autograd has already filtered through r
    got = tensors(reference.e_prop(unfiltered, total))
    bptt = p.rule("bptt").grads
    assert_equal(got, bptt, RECURRENT)
    partial = tensors(reference.e_prop(model, reference.learning_signal(model, model.R)))
    assert_differ(partial, bptt, RECURRENT)


SPIKING = {
    "LIF": (LIF, {}),
    "LIF, plain drive": (LIF, {"drive": "plain"}),
    "ALIF": (ALIF, {"beta": 0.7, "rho": 0.8}),
    "ALIF, plain drive": (ALIF, {"beta": 0.7, "rho": 0.8, "drive": "plain"}),
}


def spiking(name, kappa, reset="detached"):
    """A network of spiking neurons near threshold, and the same as bare arrays."""
    cls, options = SPIKING[name]
    neuron = cls(0.3, threshold=0.5, dampening=0.9, reset=reset, **options)
    p = problem(neuron, T=9, kappa=kappa)
    W, U, b, R, c = (p.network.params()[n].numpy(force=True) for n in ("W_rec", "W_in", "b_rec", "W_out", "b_out"))
    v0 = p.s_0[:, 0].numpy()
    adapts = isinstance(neuron, ALIF)
    a0, beta, rho = (p.s_0[:, 1].numpy(), neuron.beta, neuron.rho) if adapts else (0 * v0, 0.0, 0.0)
    constants = (0.3, neuron.gain, 0.5, beta, rho, 0.9, kappa)
    return p, reference_spiking.Spiking(W, U, b, R, c, p.x.numpy(), p.target.numpy(), v0, a0, *constants)


@every_readout
@pytest.mark.parametrize("name", SPIKING)
def test_e_prop_of_spiking_neurons_equals_its_filtered_traces(name, kappa):
    """Bellec 2020: LIF and ALIF eligibility vectors, the trace filtered by κ and met by the error of the moment."""
    p, model = spiking(name, kappa)
    h = p.network.run(p.network.params(), p.x, initial_state=p.s_0).h
    assert 0.1 < h.mean() < 0.9  # it spikes, and not always
    expected = tensors(reference_spiking.e_prop(model, model.R))
    assert_equal(p.rule("eprop").grads, expected)
    random, B = random_feedback(p)
    assert_equal(p.rule(random).grads, tensors(reference_spiking.e_prop(model, B)))
    assert_differ(p.rule("bptt").grads, expected, RECURRENT)
    assert_differ(spiking(name, kappa, reset="attached")[0].rule("eprop").grads, expected, RECURRENT)
    if name.startswith("ALIF"):  # the mutant: a trace that forgets the adaptation
        assert_differ(tensors(reference_spiking.e_prop(model, model.R, adaptation=False)), expected, RECURRENT)
    unfiltered = reference_spiking.Spiking(**{**vars(model), "kappa": 0.0})
    if kappa:  # the control: the same error without the filter
        assert_differ(tensors(reference_spiking.e_prop(unfiltered, model.R)), expected, RECURRENT)
