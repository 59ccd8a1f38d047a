"""Online rules over many steps at once: an error planted in any of these fast paths is caught by conformance."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from bpgen.conformance import plan
from bpgen.conformance.rules.blocks import StepByStep
from bpgen.losses import Loss
from bpgen.network import Network
from bpgen.neurons import ALIF, Leaky
from bpgen.neurons.gain import Scale
from bpgen.problem import Problem
from bpgen.rules import Steps, online, own_path
from bpgen.streams import generator
from tests.oracles import assert_equal, problem
from tests.rules.test_online import ONLINE, kappa_for, lively, mutant

CHECK, CHUNKS = "many steps at once equal step after step", "chunks carried across equal the whole sequence"
PLANTED = {
    "rtrl forgets what came in": ("rtrl", "(P @ S.flatten(3).flatten(1, 2)).view(S.shape) + added", "added"),
    "rtrl credits its start with nothing": (
        "rtrl",
        "block_gradients(run, credit, met)",
        "block_gradients(run, credit, None)",
    ),
    "rtrl's products in the wrong order": ("rtrl", "P = P @ Moment.of(steps, t).J", "P = Moment.of(steps, t).J @ P"),
    "uoro's norm without the cross term": ("uoro", "(w * products[t])", "(0 * products[t])"),
    "uoro's coefficients grow": ("uoro", "torch.addcdiv(new[t], w, rho_0)", "torch.addcmul(new[t], w, rho_0)"),
    "uoro hears each error a step late": (
        "uoro",
        "D = steps.run.network.kappa, steps.D[1:]",
        "D = steps.run.network.kappa, steps.D[:-1]",
    ),
    "kf_rtrl forgets a sign": ("kf_rtrl", "second = two * torch", "second = torch"),
    "kf_rtrl reads one step late": ("kf_rtrl", "if t >= silent:", "if t > silent:"),
    "kernl's traces are a step too old": ("kernl", "keep**ages", "keep ** (ages + 1)"),
    "kernl's kicks are not kept": (
        "kernl",
        "by_decay = keep * by_decay - omega\n        omega",
        "by_decay = keep * by_decay\n        omega",
    ),
    "dni guesses beyond the end": ("dni", "if steps.ends:", "if False:"),
    "dni compares with the wrong guess": ("dni", "torch.cat([state[name].unsqueeze(0), now[:-1]])", "now"),
    "eprop_online forgets what came in": (
        "eprop_online",
        "traces_met(run, q, vector)",
        "traces_met(run, q, 0 * vector)",
    ),
}


@cache
def outcome(rule, name=CHECK):
    return next(check for check in plan(rule) if check.name == name).run()


@pytest.mark.parametrize("row", PLANTED)
def test_an_error_planted_in_a_fast_path_is_caught(row):
    name, old, new = PLANTED[row]
    assert outcome(name).status == "pass"
    found = outcome(mutant(name, old, new))
    assert found.status == "fail"
    assert "at once" in found.message


@pytest.mark.parametrize("neuron", ["presynaptic", "any"])
def test_an_error_planted_in_what_these_rules_share_is_caught(neuron, monkeypatch):
    if neuron == "presynaptic":
        right = own_path._filter
        monkeypatch.setattr(own_path, "_filter", lambda *given: right(*given) * (1 + 1e-9))
    else:
        right = own_path.trace_end
        monkeypatch.setattr("bpgen_rules.eprop_online.trace_end", lambda *given: right(*given) * (1 + 1e-9))
    assert outcome.__wrapped__("eprop_online").status == "fail"


@pytest.mark.parametrize("numbers", [True, False])
def test_an_error_planted_in_what_a_jacobian_carries_is_caught(numbers, monkeypatch):
    right = Steps.carried

    def planted(steps, s, k):
        return right(steps, s, k) * (1 + 1e-9 * (isinstance(steps.run.local.A, Scale) == numbers))

    monkeypatch.setattr(Steps, "carried", planted)
    assert outcome.__wrapped__("uoro").status == "fail"


def test_another_activity_to_go_on_from_is_caught(monkeypatch):
    assert outcome("eprop_online", CHUNKS).status == "pass"
    right = Network.run

    def planted(*given, h_0=None, **options):
        return right(*given, h_0=None if h_0 is None else h_0 * (1 + 1e-6), **options)

    monkeypatch.setattr(Network, "run", planted)
    assert outcome.__wrapped__("eprop_online", CHUNKS).status == "fail"


@pytest.mark.parametrize("rule", ONLINE)
def test_blocks_far_from_any_loss_and_between_blocks(rule, monkeypatch):
    """A loss at the last step alone, in blocks of three: the first two are told nothing, and the state goes on."""
    neurons = (Leaky(0.4, "tanh"),) if rule == "kernl" else (Leaky(0.4, "tanh"), ALIF(reset="attached"))
    for neuron in neurons:
        p = problem(neuron, kappa=kappa_for(rule), learned=True)
        bound = lively(rule, p)
        asked = Problem(p.network, p.network.params(), p.x, p.target[-1], Loss("mse"))
        draws = bound.draw(p.network, p.x, generator(0, "draws"))
        monkeypatch.setattr(online, "BLOCK", 3)
        fast = bound.gradients(asked, draws)
        monkeypatch.setattr(online, "BLOCK", 256)
        slow = StepByStep(bound).gradients(asked, draws)
        expected = {**slow.grads, **slow.aux}
        assert_equal({**fast.grads, **fast.aux}, expected, [n for n, g in expected.items() if g.any()], tol=1e-12)


@pytest.mark.parametrize("rule", ONLINE)
def test_blocks_change_nothing_that_they_were_handed(rule):
    p = problem(kappa=kappa_for(rule))
    bound, asked = lively(rule, p), Problem(p.network, p.network.params(), p.x, p.target, Loss("mse", "all"))
    draws = bound.draw(p.network, p.x, generator(0, "draws"))
    carry = bound.advance(asked, bound.begin(asked), draws, ends=False)[0]
    before = {name: value.clone() for name, value in carry.state.items()}
    bound.advance(replace(asked, x=asked.x.flip(0)), carry, draws, ends=False)
    assert all(torch.equal(carry.state[name], value) for name, value in before.items())
