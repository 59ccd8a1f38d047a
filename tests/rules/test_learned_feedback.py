"""The worked example of `learn`: feedback that follows the readout aligns with it, and a wrong sign is noticed."""

from __future__ import annotations

import pytest
import torch

import bpgen
from bpgen.conformance import plan
from bpgen.neurons import Leaky
from bpgen.registry import find
from bpgen.rules import OfflineRule, Traits, propagate
from tests.rules.test_conformance import documented


@pytest.fixture(scope="module")
def rule():
    """KolenPollack of `help(bpgen.rules)`."""
    return documented()["KolenPollack"]


def wrong_sign(rule):
    class WrongSign(rule):
        def learn(self, aux):
            super().learn({"readout": -aux["readout"]})

    return WrongSign


def cosine(rule, network):
    B, W = rule.feedback.weight.flatten(), network.W_out.detach().flatten()
    return float(torch.cosine_similarity(B, W, dim=0))


def trained(cls, steps=400, lr=0.1, decay=0.1):
    """Cosines of feedback with W_out before and after training by plain gradient descent with L2."""
    torch.manual_seed(0)
    x, target = torch.randn(8, 64, 3), torch.randint(2, (64,))
    network = bpgen.Network(Leaky(0.4, "tanh"), 3, 40, 2, seed=0)
    rule = cls(lr, decay).bind(network, seed=1)
    before = cosine(rule, network)
    for _ in range(steps):
        result = bpgen.gradients(rule, network, x, target, regulariser=decay)
        with torch.no_grad():
            for name, p in network.named_parameters():
                p -= lr * result.grads[name]
        rule.learn(result.aux)
    return before, cosine(rule, network)


def test_feedback_comes_to_point_along_the_readout(rule):
    before, after = trained(rule)
    assert abs(before) < 0.3
    assert after > 0.95


def test_with_the_wrong_sign_it_does_not(rule):
    assert trained(wrong_sign(rule))[1] < 0


def test_what_it_learns_from_is_the_gradient_of_the_readout(rule):
    network = bpgen.Network(Leaky(0.4, "tanh"), 3, 10, 2, kappa=0.6, seed=0)
    x, target = torch.randn(8, 5, 3), torch.randint(2, (8, 5))
    result = bpgen.gradients(rule(), network, x, target, when="all")
    torch.testing.assert_close(result.aux["readout"], result.grads["W_out"])


def report(cls):
    checks = plan(cls)
    outcomes = {check.name: check.run() for check in checks}
    return outcomes, checks[0].case.remarks(outcomes)


def test_the_report_says_what_is_learned_and_where_it_points(rule):
    outcomes, remarks = report(rule)
    assert [o.message for o in outcomes.values() if o.status == "fail"] == []
    assert outcomes["what it learns is declared"].status == "pass"
    assert "It learns feedback.weight, which three batches moved by" in remarks[0]
    assert "what it learned against what W_out learned: 1.000" in remarks[1]
    assert not any("SUSPICIOUS" in line for line in remarks)


def test_the_report_notices_a_wrong_sign(rule):
    _, remarks = report(wrong_sign(rule))
    assert "what it learned against what W_out learned: -1.000" in remarks[1]
    assert "SUSPICIOUS: feedback.weight learns AWAY from W_out" in remarks[2]


@pytest.mark.parametrize("transposed", [False, True])
def test_the_report_notices_a_wrong_sign_in_a_buffer_of_ones_own(transposed):
    """Feedback need not be a `Feedback`."""

    class OwnBuffer(OfflineRule):
        traits = Traits(signal_origin="random feedback", signal_scope="broadcast", learns=("B",))
        sign = -1.0

        def bind(self, network, seed=0):
            B = torch.randn(network.n_out, network.n_rec, generator=torch.Generator().manual_seed(seed))
            self.register_buffer("B", (B.T if transposed else B).to(network.W_out))
            super().bind(network, seed)  # nothing is returned, which must not matter

        def credit(self, trajectory, error):
            credit = propagate(trajectory, error @ (self.B.T if transposed else self.B))
            readout = torch.einsum("tbo,tbn->on", error, trajectory.h[-len(error) :])
            return credit._replace(aux={"readout": readout.T if transposed else readout})

        def learn(self, aux):
            self.B = self.B + self.sign * 0.1 * aux["readout"]

    class WrongSign(OwnBuffer):
        sign = 1.0

    assert not any("SUSPICIOUS" in line for line in report(OwnBuffer)[1])
    assert any("SUSPICIOUS: B learns AWAY from W_out" in line for line in report(WrongSign)[1])


def test_the_report_says_what_else_is_learned_without_a_check():
    remarks = report(find("rule", "force").load())[1]
    assert any(line == "NOT CHECKED: whether `learn` moves P the right way." for line in remarks)
