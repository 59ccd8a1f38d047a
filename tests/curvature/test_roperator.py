"""The R-operator against double backward and dense Hessians, for every neuron and loss, and who gets which."""

from __future__ import annotations

import pytest
import torch

import bpgen
from bpgen.curvature import HessianProducts, recursion
from bpgen.curvature.second_derivatives import SecondDerivatives
from bpgen.errors import BpgenError
from bpgen.losses import L2, Activity, Loss
from bpgen.neurons import ALIF, GRU, LIF, LSTM, Leaky
from bpgen.problem import Problem
from tests.curvature.dense import asked, dense_hessian, objective
from tests.neurons.strangers import Adaptive, Sine
from tests.oracles import Problem as Setting
from tests.oracles import distance, problem, randn

NEURONS = {
    **{f"{leak}, {phi}": (lambda leak=leak, phi=phi: Leaky(0.4, phi, leak))
       for leak in ("potential", "rate", "inside") for phi in ("relu", "tanh", "softplus", "retanh", "linear")},
    "memoryless": lambda: Leaky(1.0, "relu"),
    "LIF": lambda: LIF(0.4, 0.3, surrogate="gaussian"),
    "LIF, attached": lambda: LIF(0.4, 0.3, reset="attached", surrogate="fast_sigmoid"),
    "ALIF": lambda: ALIF(0.4, 0.3),
    "LSNN, each neuron its own": lambda: ALIF((0.3, 0.6), (0.2, 0.4), (0.2, 0.6), (0.6, 0.9), adaptive=0.7),
    "ALIF, attached": lambda: ALIF(0.4, 0.3, reset="attached"),
    "GRU": GRU,
    "LSTM": LSTM,
    "stranger, d = K = 1": Sine,
    "stranger, d = K = 2": Adaptive,
}  # fmt: skip
LOSSES = {
    "cross-entropy, last": Loss("cross_entropy", "last"),
    "cross-entropy, all": Loss("cross_entropy", "all"),
    "mse, last, L2": Loss("mse", "last", None, L2.of({"W_rec": 0.3, "b_out": 0.1})),
    "mse, masked": Loss("mse", "all", randn(5, 6, 4).abs()),
    "cross-entropy, masked, rates": Loss(
        "cross_entropy", "all", randn(5, 6, 4).abs(), None, Activity(2.0, "rate", 0.3)
    ),
    "mse, last, squares": Loss("mse", "last", None, L2.of(0.1), Activity(3.0, "square")),
}
every_neuron = pytest.mark.parametrize("neuron", NEURONS)
every_loss = pytest.mark.parametrize("loss", LOSSES)


def operators(p: Setting, loss: Loss, block="all", **options) -> dict[str, HessianProducts]:
    return {by: HessianProducts(asked(p, loss), block, by=by, **options) for by in ("autograd", "roperator")}


def setting(neuron: str, loss: Loss, **options) -> Setting:
    return problem(NEURONS[neuron](), T=6, B=4, N=3, I=2, O=3, loss=loss.kind, when=loss.when, **options)


@every_loss
@every_neuron
def test_products_and_both_parts_equal_double_backward(neuron, loss):
    given = LOSSES[loss]
    for options in [{"kappa": 0.3}] + [{"learned": True, "bias": "out"}] * (
        loss in ("mse, masked", "cross-entropy, last")
    ):
        p, got = setting(neuron, given, **options), {}
        for part in ("hessian", "gauss_newton", "residual"):
            by = operators(p, given, part=part)
            v = randn(1, 3, by["autograd"].size)
            expected, got[part] = by["autograd"](v), by["roperator"](v)
            assert distance(got[part], expected) < 1e-10
            assert distance(by["roperator"](v[1]), expected[1]) < 1e-10
            assert expected.norm() > 1e-4
        assert distance(got["gauss_newton"] + got["residual"], got["hessian"]) < 1e-12
        assert distance(got["gauss_newton"], got["hessian"]) > 1e-3, "the control does not tell the parts apart"


@pytest.mark.parametrize("chunk_size", [1, 3])
@pytest.mark.parametrize("by", ["roperator", "autograd"])
def test_chunks_are_the_whole_whoever_takes_them_and_whether_kept_or_not(by, chunk_size, monkeypatch):
    loss = LOSSES["cross-entropy, masked, rates"]
    p = setting("potential, tanh", loss, kappa=0.3)
    whole = operators(p, loss)[by]
    v = randn(0, 2, whole.size)
    chunked = operators(p, loss, chunk_size=chunk_size)[by]
    assert bool(chunked._rest) == (by == "autograd")
    assert distance(chunked(v), whole(v)) < 1e-13
    monkeypatch.setattr("bpgen.curvature.products._KEEP", -1)
    chunked = operators(p, loss, chunk_size=chunk_size)[by]
    assert not chunked._kept
    assert distance(chunked(v), whole(v)) < 1e-13


def test_vectors_are_taken_in_groups_where_memory_asks_for_it(monkeypatch):
    p = setting("potential, relu", LOSSES["mse, masked"])
    operator = operators(p, LOSSES["mse, masked"])["roperator"]
    v = randn(0, 5, operator.size)
    expected = operator(v)
    operator._width = 2
    assert distance(operator(v), expected) < 1e-14


@pytest.mark.parametrize("block", ["W_in", ["W_rec", "b_out"], ["W_out", "W_in", "b_rec"]])
def test_any_subset_of_the_weights_is_a_block_of_the_whole_hessian(block):
    p = problem(Leaky(0.4, "tanh"), kappa=0.3)
    H = dense_hessian(p, "all")
    names = list(p.network.params())
    sizes = [w.numel() - (p.network.n_rec if n == "W_rec" else 0) for n, w in p.network.named_parameters()]
    inside = torch.cat([torch.full((s,), n in ([block] if isinstance(block, str) else block))
                        for n, s in zip(names, sizes, strict=True)])  # fmt: skip
    for operator in operators(p, objective(p), block).values():
        got = operator(torch.eye(operator.size, dtype=torch.float64))
        assert distance(got, H[inside][:, inside]) < 1e-12


def test_strange_losses_and_networks_get_autograd_and_say_so():
    class OtherLoss(Loss):
        pass

    class OtherNetwork(bpgen.Network):
        pass

    p = problem(Leaky(0.4, "tanh"))
    assert HessianProducts(asked(p)).by == "roperator"
    assert HessianProducts(asked(p, OtherLoss("mse", "all"))).by == "autograd"
    other = OtherNetwork(Leaky(0.4, "tanh"), 4, 5, 3, dtype=torch.float64)
    assert bpgen.sharpness(other, p.x, p.target, "mse", "all").products_by == "autograd"
    assert bpgen.sharpness(p.network, p.x, p.target, "mse", "all").products_by == "roperator"


@pytest.mark.parametrize(
    "options", [{"density": 0.6}, {"autapses": True}, {"cell_types": {"E": 0.6, "I": 0.4}, "dale": True}, {"ring": 1}]
)
@pytest.mark.parametrize("leak", ["potential", "rate", "inside"])
def test_networks_with_structure_and_a_leak_for_each_neuron(leak, options):
    alpha = torch.tensor([0.2, 0.4, 0.6, 0.8, 1.0], dtype=torch.float64)
    p = problem(Leaky(alpha, "tanh", leak), kappa=0.3, **options)
    by = operators(p, objective(p), "all")
    v = randn(1, 2, by["autograd"].size)
    assert distance(by["roperator"](v), by["autograd"](v)) < 1e-12


def test_output_feedback_is_left_to_autograd():
    p = problem(Leaky(0.4, "tanh"), output_feedback=0.8)
    without = problem(Leaky(0.4, "tanh"))
    operator = HessianProducts(asked(p), "all")
    assert operator.by == "autograd"
    v = randn(1, operator.size)
    assert distance(operator(v), operators(without, objective(without))["roperator"](v)) > 0.01
    with pytest.raises(BpgenError, match="no output feedback"):
        operators(p, objective(p))


@pytest.mark.parametrize("lost", ["A", "C", "D"])
def test_an_entry_of_a_gain_that_is_lost_is_seen(lost, monkeypatch):
    """The control of all comparisons above, for neurons whose gains have several entries."""
    loss = LOSSES["cross-entropy, all"]
    p = setting("LSTM", loss)
    v, by = randn(0, HessianProducts(asked(p, loss), "all").size), operators(p, loss)
    assert distance(by["roperator"](v), by["autograd"](v)) < 1e-10
    whole = recursion._entries
    gains = iter("ACD" * 2)
    monkeypatch.setattr(recursion, "_entries", lambda *given: whole(*given)[next(gains) == lost :])
    wrong = HessianProducts(asked(p, loss), "all", by="roperator")
    assert distance(wrong(v), by["autograd"](v)) > 1e-4


def test_piecewise_linear_neurons_keep_no_second_derivatives_and_others_do():
    z, u = randn(0, 6, 4, 2, 3), randn(1, 6, 4, 1, 3)
    assert not SecondDerivatives(lambda z: torch.relu(z[..., :1, :] + 2 * z[..., 1:, :]), z, u)
    product = SecondDerivatives(lambda z: z[..., :1, :] * z[..., 1:, :], z, u)
    assert list(product.entries) == [(0, 1)]
    assert torch.equal(product.entries[0, 1], u[..., 0, :])


def test_single_precision_is_good_to_its_own_rounding_after_many_steps():
    network = bpgen.Network(Leaky(0.4), 5, 40, 3)
    x, target, loss = randn(0, 28, 16, 5).float(), torch.arange(16) % 3, Loss("cross_entropy", "last")
    problem = Problem(network, network.params(), x, target, loss)
    low, high = HessianProducts(problem), HessianProducts(problem.to(torch.float64), by="autograd")
    v = randn(0, low.size)
    assert distance(low(v), high(v)) < 3e-6


@pytest.mark.parametrize("silent", [1, 3, 6])
@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_steps_before_the_first_activity_cost_nothing_and_change_nothing(silent, alpha):
    network = bpgen.Network(Leaky(alpha, "tanh"), 3, 5, 2)
    x, target, loss = randn(0, 6, 4, 3), torch.arange(4) % 2, Loss("cross_entropy", "last")
    x[:silent] = 0
    params = {name: w.double() for name, w in network.params().items()}
    for block in ("W_rec", "W_out", ["W_in", "W_rec"], "all"):
        problem = Problem(network, params, x, target, loss)
        by = {b: HessianProducts(problem, block, by=b) for b in ("autograd", "roperator")}
        assert by["roperator"]._kept[0][0]._seen == silent + 2 - (silent == 6)
        for v in (randn(1, by["autograd"].size), randn(2, 3, by["autograd"].size)):
            expected = by["autograd"](v)
            assert (by["roperator"](v) - expected).norm() <= 1e-12 * max(expected.norm(), 1e-3)
            assert silent == 6 or expected.norm() > 1e-6
