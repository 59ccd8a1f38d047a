"""What a stranger's neuron may count on: parameters per neuron, noise for all currents, and clear refusals."""

from __future__ import annotations

import pytest
import torch

import bpgen
from bpgen.conformance import checks
from bpgen.errors import BpgenError
from bpgen.neurons import Heterogeneous
from tests.neurons.strangers import Sine
from tests.oracles import RECURRENT, WEIGHTS, assert_differ, assert_equal, autograd, no_hop, problem

# torch.func.jvp compiles its decompositions with a deprecated part of torch itself, at its first use
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


class Gated(Heterogeneous):
    """Two currents, a drive and a gate, and a leak that may differ between neurons: f, g and one declared parameter."""

    n_currents = 2

    def __init__(self, leak: float | tuple[float, float] = (0.2, 0.8)) -> None:
        super().__init__()
        self.per_neuron("leak", leak, lambda a: (a > 0) & (a < 1), "in (0, 1)", "log")

    @property
    def noise_scale(self):
        return 1 / self.leak

    def f(self, s, I):
        drive, gate = I.unbind(-2)
        return (1 - self.leak) * s + self.leak * (torch.tanh(drive) * torch.sigmoid(gate)).unsqueeze(-2)

    def g(self, s):
        return s.squeeze(-2) + 0.1 * s.squeeze(-2) ** 2


def test_a_declared_parameter_is_drawn_per_neuron_and_every_rule_family_is_exact():
    p = problem(Gated(), N=6, kappa=0.3)
    leak = p.network.neuron.leak
    assert leak.shape == (6,)
    assert leak.std() > 0.05
    assert_equal(p.rule("bptt").grads, autograd(p), WEIGHTS)
    assert_equal(p.rule("rtrl").grads, autograd(p), WEIGHTS, tol=1e-10)
    assert_equal(p.rule("three_factor").grads, autograd(p, **no_hop()), WEIGHTS)
    assert_differ(problem(Gated(0.4), N=6, kappa=0.3).rule("bptt").grads, p.rule("bptt").grads, RECURRENT)


@pytest.mark.parametrize("check", checks(Gated), ids=str)
def test_it_conforms(check):
    check()


def test_noise_per_neuron_reaches_all_currents():
    network = bpgen.Network(Gated(), 3, 20, 2, sigma_rec=0.3, dtype=torch.float64)
    noise = network.draw_noise(2000, 5, torch.Generator().manual_seed(0)).unflatten(-1, (2, 20))
    expected = 0.3 / network.neuron.leak
    for k in range(2):
        assert ((noise[..., k, :].std((0, 1)) / expected - 1).abs() < 0.05).all()
    assert expected.std() > 0.1


class WithWeights(Sine):
    def __init__(self) -> None:
        super().__init__()
        self.tau = torch.nn.Parameter(torch.ones(1))


class Misshapen(Sine):
    def g(self, s):
        return s


class CountsWrong(Sine):
    n_states = 2


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        (WithWeights, "WithWeights holds the parameters tau: a neuron is fixed"),
        (Misshapen, r"Misshapen.g gives \[2, 1, 5\] of states .*expected \[2, 5\]"),
        (CountsWrong, r"CountsWrong.g gives \[2, 2, 5\]"),
    ],
)
def test_a_network_refuses_what_is_no_neuron(neuron, message):
    with pytest.raises(BpgenError, match=message):
        bpgen.Network(neuron(), 4, 5, 3)
