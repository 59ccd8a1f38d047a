"""The inside of a neuron: closed-form derivatives against forward mode, in-place steps against f and g."""

from __future__ import annotations

import math

import pytest
import torch

from bpgen.errors import BpgenError
from bpgen.neurons import Leaky, Neuron
from bpgen.neurons.activation import ACTIVATIONS
from tests.neurons.strangers import Adaptive, Sine
from tests.oracles import (
    RECURRENT,
    WEIGHTS,
    assert_differ,
    assert_equal,
    autograd,
    distance,
    no_hop,
    problem,
    randn,
)

# torch.func.jvp compiles its decompositions with a deprecated part of torch itself, at its first use
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

LEAKS = ("potential", "rate", "inside")
PHI = {
    "relu": lambda v: v.clamp(min=0),
    "tanh": lambda v: 1 - 2 / (1 + (2 * v).exp()),
    "softplus": lambda v: (1 + v.exp()).log(),
    "retanh": lambda v: (1 - 2 / (1 + (2 * v).exp())).clamp(min=0),
    "linear": lambda v: v,
}
every_leak = pytest.mark.parametrize("leak", LEAKS)
every_activation = pytest.mark.parametrize("activation", PHI)


def test_table_covers_every_activation():
    assert set(PHI) == set(ACTIVATIONS)


@every_leak
@every_activation
def test_dynamics_are_the_published_equations(leak, activation):
    a, phi, s, I = 0.3, PHI[activation], randn(0, 2, 1, 6), randn(1, 2, 1, 6)
    neuron = Leaky(a, activation, leak)
    next_state, h = {
        "potential": ((1 - a) * s + a * I, phi(s)),
        "rate": ((1 - a) * s + a * phi(I), s),
        "inside": (phi((1 - a) * s + a * I), s),
    }[leak]
    torch.testing.assert_close(neuron.f(s, I), next_state)
    torch.testing.assert_close(neuron.g(s), h.squeeze(-2))


@pytest.mark.parametrize("alpha", [0.4, 1.0])
@every_leak
@every_activation
def test_closed_forms_equal_forward_mode(leak, activation, alpha):
    p = problem(Leaky(alpha, activation, leak), N=40)
    path = p.network.run(p.network.params(), p.x, initial_state=p.s_0, in_place=False)
    closed, default = p.network.neuron.local(path), Neuron.local(p.network.neuron, path)
    u, T = randn(7, 8, 3, 1, 40), 7
    for name, first in (("A", 1), ("C", 1), ("D", 0)):
        gain, expected, times = getattr(closed, name), getattr(default, name), slice(first, T + 1)
        pulled = expected.pull(u[times], times)
        torch.testing.assert_close(gain.pull(u[times], times), pulled)
        torch.testing.assert_close(gain.pull(u[3], 3), expected.pull(u[3], 3))
        for g in (gain, expected):
            overwritten = u[times].squeeze(-2).clone()
            g.pull_into(overwritten, times)
            torch.testing.assert_close(overwritten, pulled.squeeze(-2))
        if not (name == "A" and alpha == 1):
            assert pulled.norm() > 0
            assert distance(gain.pull(2 * u[times], times), pulled) > 0.5
        assert gain.is_zero == (name == "A" and alpha == 1)


def test_control_each_leak_has_its_own_gains():
    p = problem(Leaky(0.4, "tanh", "potential"))
    path = p.network.run(p.network.params(), p.x, initial_state=p.s_0, in_place=False)
    C = {leak: Leaky(0.4, "tanh", leak).local(path).C.pull(randn(0, 3, 1, 5), 4) for leak in LEAKS}
    assert distance(C["rate"], C["potential"]) > 0.05
    assert distance(C["inside"], C["rate"]) > 0.05
    assert distance(C["potential"], C["inside"]) > 0.05


@pytest.mark.parametrize("alpha", [0.4, 1.0])
@every_leak
@every_activation
def test_in_place_step_equals_f_and_g(leak, activation, alpha):
    neuron, before, I = Leaky(alpha, activation, leak), randn(0, 3, 5), randn(1, 3, 5)
    s_expected = neuron.f(before.unsqueeze(-2), I.unsqueeze(-2))
    drive, h = torch.stack([before, I]), torch.full((2, 3, 5), torch.nan, dtype=torch.float64)
    states = neuron.state_buffer(drive, h)
    states[0] = before
    neuron.advance_into(drive[1], states[0], states[1], h[1])
    torch.testing.assert_close(states[1], s_expected.squeeze(-2))
    torch.testing.assert_close(h[1], neuron.g(s_expected))
    assert distance(h[1], neuron.g(before.unsqueeze(-2))) > 0.01


@pytest.mark.parametrize(
    ("options", "alpha"),
    [
        ({}, 1 - math.exp(-2 / 20)),
        ({"discretisation": "euler"}, 0.1),
        ({"discretisation": "exp", "activation": "tanh", "leak": "rate"}, 1 - math.exp(-2 / 20)),
    ],
)
def test_from_tau(options, alpha):
    neuron = Leaky.from_tau(tau=20.0, dt=2.0, **options)
    assert neuron.alpha == pytest.approx(alpha, rel=1e-14)
    assert neuron.leak == options.get("leak", "potential")


def test_from_tau_of_a_vanishing_tau_is_memoryless():
    assert Leaky.from_tau(tau=0.01).alpha == 1.0  # the released code of Liu 2022: exp(-100)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Leaky(0.0), r"alpha must be in \(0, 1\].*got 0"),
        (lambda: Leaky(1.5), r"alpha must be in \(0, 1\]"),
        (lambda: Leaky(math.nan), "alpha"),
        (lambda: Leaky(0.5, "rleu"), "unknown activation 'rleu'.*Did you mean 'relu'"),
        (lambda: Leaky(0.5, leak="potentail"), "unknown leak 'potentail'.*Did you mean 'potential'"),
        (lambda: Leaky.from_tau(0.0), "tau and dt must be positive"),
        (lambda: Leaky.from_tau(10, dt=-1.0), "tau and dt must be positive"),
        (lambda: Leaky.from_tau(1.0, dt=2.0, discretisation="euler"), "alpha"),
    ],
)
def test_bad_options_name_what_was_expected(build, message):
    with pytest.raises(BpgenError, match=message):
        build()


@pytest.mark.parametrize("neuron", [Adaptive, Sine])
@pytest.mark.parametrize("options", [{}, {"kappa": 0.6}, {"autapses": True}, {"learned": True}])
def test_foreign_neuron_needs_f_and_g_alone(neuron, options):
    p = problem(neuron(), **options)
    names = (*WEIGHTS, *(["initial_state"] if "learned" in options else []))
    bptt, three_factor = p.rule("bptt").grads, p.rule("three_factor").grads
    assert_equal(bptt, autograd(p), names)
    assert_equal(three_factor, autograd(p, **no_hop()), names)
    assert_differ(three_factor, bptt, RECURRENT)


def test_foreign_neuron_in_place_equals_general_path():
    p = problem(Sine())
    fast, general = (
        p.network.run(p.network.params(), p.x, when="all", initial_state=p.s_0, in_place=i) for i in (True, False)
    )
    for name in ("h", "states", "outputs", "currents"):
        torch.testing.assert_close(getattr(fast, name), getattr(general, name))
    assert (fast.in_place, general.in_place) == (True, False)
    assert distance(fast.h[-1], fast.h[-2]) > 0.01
