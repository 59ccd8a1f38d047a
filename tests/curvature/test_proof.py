"""Who is given the R-operator: neurons that say or show that their derivatives agree, whoever wrote them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from bpgen.curvature import HessianProducts, proof
from bpgen.errors import BpgenError
from bpgen.neurons import Leaky, Neuron
from bpgen.neurons.gain import Local, Slope
from tests.curvature.dense import asked, dense_hessian
from tests.curvature.test_roperator import NEURONS
from tests.neurons.strangers import Adaptive, Sine
from tests.oracles import Problem, distance, problem, randn


class Copied(Leaky):
    """A built-in neuron under another name."""


class Bare(Neuron):
    """The same dynamics as Leaky(0.4, "tanh"), written by a stranger."""

    def f(self, s: Tensor, I: Tensor) -> Tensor:
        return 0.6 * s + 0.4 * I

    def g(self, s: Tensor) -> Tensor:
        return torch.tanh(s.squeeze(-2))


class OtherDynamics(Leaky):
    """It overrides f and inherits derivatives that are not those of f."""

    def f(self, s: Tensor, I: Tensor) -> Tensor:
        return 0.5 * s + torch.sin(I)


class OtherDerivative(Leaky):
    """Its `local` is the pseudo-derivative of another activation, which autograd knows nothing of."""

    def local(self, path) -> Local:
        found = super().local(path)
        return Local(found.A, found.C, Slope(self._phi, 0.5 * path.h))


class Straightened(Bare):
    """It claims that it has no second derivatives."""

    piecewise_linear = True


class Refusing(Bare):
    derivatives_agree = False


class Silent(Bare):
    """Nothing it does can be compared: no activity, no gradient."""

    def g(self, s: Tensor) -> Tensor:
        return 0 * s.squeeze(-2)


def by(p: Problem) -> str:
    return HessianProducts(asked(p)).by


@pytest.mark.parametrize(
    ("neuron", "expected"),
    [
        (lambda: Leaky(0.4, "tanh"), "roperator"),
        (lambda: Copied(0.4, "tanh"), "roperator"),
        (Bare, "roperator"),
        (Sine, "roperator"),
        (Adaptive, "roperator"),
        (lambda: OtherDynamics(0.4, "tanh"), "autograd"),
        (lambda: OtherDerivative(0.4, "tanh"), "autograd"),
        (Straightened, "autograd"),
        (Refusing, "autograd"),
        (Silent, "autograd"),
    ],
)
def test_products_are_right_whoever_wrote_the_neuron(neuron, expected):
    p = problem(neuron())
    operator = HessianProducts(asked(p), "all")
    assert operator.by == expected
    H = dense_hessian(p, "all")
    v = randn(1, 3, operator.size)
    assert distance(operator(v), v @ H) < 1e-12


def test_the_controls_would_be_wrong_by_the_r_operator():
    for neuron in (OtherDynamics(0.4, "tanh"), OtherDerivative(0.4, "tanh"), Straightened()):
        p = problem(neuron)
        operator = HessianProducts(asked(p), "all", by="roperator")
        v = randn(1, operator.size)
        assert distance(operator(v), dense_hessian(p, "all") @ v) > 1e-3


def test_the_same_dynamics_give_the_same_products_and_only_the_stranger_is_tried(monkeypatch):
    tried = []
    trial = proof._trial
    monkeypatch.setattr(proof, "_trial", lambda p: tried.append(p.network.neuron) or trial(p))
    own, theirs = problem(Leaky(0.4, "tanh")), problem(Bare())
    v = randn(0, HessianProducts(asked(own)).size)
    assert not tried
    assert distance(HessianProducts(asked(theirs))(v), HessianProducts(asked(own))(v)) < 1e-13
    assert len(tried) == len(proof._SCALES)
    HessianProducts(asked(theirs), "all")
    assert len(tried) == len(proof._SCALES), "once for each instance"


@pytest.mark.parametrize("name", NEURONS)
def test_what_built_in_neurons_say_of_themselves_is_found_by_trial(name, monkeypatch):
    neuron = NEURONS[name]()
    p = problem(neuron, T=6, B=4, N=3, I=2, O=3)
    said = proof.derivatives_agree(p.network)
    monkeypatch.setattr(type(neuron), "derivatives_agree", None)
    assert proof.derivatives_agree(p.network) is said is True


def test_a_class_speaks_for_itself_alone():
    assert Copied(0.4).derivatives_agree is True  # inherited, and not believed
    p = problem(OtherDynamics(0.4, "tanh"))
    assert proof.derivatives_agree(p.network) is False


def test_trials_leave_the_network_and_the_global_random_state_alone():
    p = problem(Bare())
    weights, state = copy.deepcopy(p.network.state_dict()), torch.get_rng_state()
    with torch.inference_mode():
        assert by(p) == "roperator"
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(w, weights[n]) for n, w in p.network.state_dict().items())
    assert all(w.grad is None for w in p.network.parameters())


class _OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, s):
        ctx.save_for_backward(s)
        return s.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, above):
        return above * ctx.saved_tensors[0].cos()


class Once(Bare):
    def g(self, s: Tensor) -> Tensor:
        return _OnceOnly.apply(s.squeeze(-2))


def test_a_neuron_without_a_second_derivative_is_named():
    with pytest.raises(BpgenError, match=r"curvature of a network of Once cannot be taken.*once_differentiable"):
        by(problem(Once()))


def test_piecewise_linear_is_said_by_the_neuron():
    assert Leaky(0.4, "relu").piecewise_linear
    assert Leaky(0.4, "linear", "inside").piecewise_linear
    assert not Leaky(0.4, "tanh").piecewise_linear
    assert not Bare().piecewise_linear
