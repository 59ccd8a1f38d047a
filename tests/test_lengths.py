"""Sequences of different lengths in one batch are the sequences one by one, to 1e-10; each with a negative control."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import bpgen
from bpgen import Network, gradients, sharpness
from bpgen.curvature.autograd import NetworkByAutograd
from bpgen.curvature.roperator import ROperator
from bpgen.errors import BpgenError
from bpgen.given import problem_of
from bpgen.losses import Activity, Loss
from bpgen.neurons import GRU, Leaky
from bpgen.problem import Problem
from bpgen.streams import generator

T, B, I, N, O = 9, 5, 3, 4, 3
LENGTHS = torch.tensor([9, 2, 6, 1, 4])
CASES = [(loss, when) for loss in ("cross_entropy", "mse") for when in ("last", "all")]
RULES = [
    *("bptt", "three_factor", "rflo", "mdgl", "modprop", "readout_only", "eprop_online", "rflo_online", "rtrl", "snap"),
    "tbptt",
]
OPTIONS = {"tbptt": {"window": 3, "style": "sliding"}, "snap": {"n": 1}}


def network(neuron=None, **options):
    return Network(neuron or Leaky(0.4, "tanh"), I, N, O, bias="both", seed=1, dtype=torch.float64, **options)


def batch(loss, when):
    random = generator(3, "lengths")
    x = torch.randn(T, B, I, generator=random, dtype=torch.float64)
    steps = (B,) if when == "last" else (T, B)
    if loss == "cross_entropy":
        return x, torch.randint(O, steps, generator=random)
    return x, torch.randn(*steps, O, generator=random, dtype=torch.float64)


def padded(x, target, when):
    """The same with NaN, and classes that do not exist, where there is nothing."""
    beyond = torch.arange(T).unsqueeze(1) >= LENGTHS
    x = x.masked_fill(beyond.unsqueeze(-1), float("nan"))
    if when == "all":
        target = (
            target.masked_fill(beyond, -100)
            if target.ndim == 2
            else target.masked_fill(beyond.unsqueeze(-1), float("nan"))
        )
    return x, target


def alone(x, target, when, b):
    length = int(LENGTHS[b])
    return x[:length, b : b + 1], target[b : b + 1] if when == "last" else target[:length, b : b + 1]


def close(a, b):
    return all(torch.allclose(a[name], b[name], rtol=0, atol=1e-10) for name in a)


@pytest.mark.parametrize(("loss", "when"), CASES)
@pytest.mark.parametrize("name", RULES)
def test_a_gradient_is_the_mean_of_those_of_the_sequences_alone(name, loss, when):
    net, (x, target) = network(), batch(loss, when)
    rule = bpgen.load_rule(name, **OPTIONS.get(name, {}))
    found = gradients(rule, net, *padded(x, target, when), loss, when, lengths=LENGTHS)
    each = [gradients(rule, net, *alone(x, target, when, b), loss, when) for b in range(B)]
    mean = {p: sum(one.grads[p] for one in each) / B for p in found.grads}
    assert all(mean[p].norm() > 0 for p in (["W_out"] if name == "readout_only" else ["W_rec", "W_in", "W_out"]))
    assert close(found.grads, mean)
    assert float(found.loss) == pytest.approx(float(sum(one.loss for one in each)) / B, abs=1e-10)
    for b, one in enumerate(each):
        mine = found.outputs[LENGTHS[b] - 1 if when == "last" else slice(0, LENGTHS[b]), b]
        torch.testing.assert_close(mine, one.outputs[0] if when == "last" else one.outputs[:, 0])
    without = gradients(rule, net, x, target, loss, when)
    assert not close(without.grads, mean)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_weights_of_the_steps_are_kept(loss):
    net, (x, target) = network(), batch(loss, "all")
    mask = torch.rand(T, B, generator=generator(4, "lengths"), dtype=torch.float64)
    found = gradients("bptt", net, x, target, loss, "all", mask, lengths=LENGTHS)
    each = [
        gradients("bptt", net, *alone(x, target, "all", b), loss, "all", mask[: LENGTHS[b], b : b + 1])
        for b in range(B)
    ]
    assert close(found.grads, {p: sum(one.grads[p] for one in each) / B for p in found.grads})


@pytest.mark.parametrize(("loss", "when"), CASES)
def test_curvature_is_that_of_the_sequences_alone(loss, when):
    """Against a dense Hessian that autograd gives of the mean over sequences run one by one."""
    net, (x, target) = network(autapses=True), batch(loss, when)
    params = {name: p.detach() for name, p in net.named_parameters()}

    def value(w):
        weights, total = {**params, "W_rec": w.view(N, N)}, 0
        for b in range(B):
            xb, yb = alone(x, target, when, b)
            total = total + Problem(net, weights, xb, yb, Loss(loss, when)).value()
        return total / B

    dense = torch.linalg.eigvalsh(torch.func.hessian(value)(params["W_rec"].flatten()))
    found = sharpness(net, *padded(x, target, when), loss, when, lengths=LENGTHS, tol=1e-12)
    assert float(found.eigenvalues[0]) == pytest.approx(float(dense[-1]), abs=1e-10)
    assert float(sharpness(net, x, target, loss, when, tol=1e-12).eigenvalues[0]) != pytest.approx(
        float(dense[-1]), abs=1e-6
    )


@pytest.mark.parametrize(
    ("lengths", "says"),
    [
        ([9, 2, 6, 1], r"whole numbers \[B\] = \[5\] from 1 to T = 9"),
        ([9, 2, 6, 1, 0], "from 1 to T"),
        ([9, 2, 6, 1, 10], "from 1 to T"),
        ([9.0, 2, 6, 1, 4], "from 1 to T"),
        ([True] * 5, "from 1 to T"),
        ("abc", "lengths must be"),
    ],
)
def test_bad_lengths(lengths, says):
    with pytest.raises(BpgenError, match=says):
        gradients("bptt", network(), *batch("mse", "last"), "mse", lengths=lengths)


OFFLINE = [name for name in RULES if not bpgen.load_rule(name, **OPTIONS.get(name, {})).traits.online]
COSTS = [Activity(3.0, "rate", 0.2), Activity(40.0, "square")]


@pytest.mark.parametrize("cost", COSTS, ids=lambda cost: cost.form)
@pytest.mark.parametrize(("loss", "when"), CASES)
@pytest.mark.parametrize("name", OFFLINE)
def test_a_cost_of_the_activity_ends_with_each_sequence(name, loss, when, cost):
    net, (x, target) = network(), batch(loss, when)
    rule = bpgen.load_rule(name, **OPTIONS.get(name, {}))
    found = gradients(rule, net, *padded(x, target, when), loss, when, lengths=LENGTHS, activity=cost)
    each = [gradients(rule, net, *alone(x, target, when, b), loss, when, activity=cost) for b in range(B)]
    mean = {p: sum(one.grads[p] for one in each) / B for p in found.grads}
    assert close(found.grads, mean)
    assert float(found.loss) == pytest.approx(float(sum(one.loss for one in each)) / B, abs=1e-10)
    bare = gradients(rule, net, x, target, loss, when, lengths=LENGTHS)
    over_all = {p: g - bare.grads[p] for p, g in padding_counts(rule, net, x, target, loss, when, cost).items()}
    its_own = {p: g - bare.grads[p] for p, g in found.grads.items()}
    assert name == "readout_only" or not close(over_all, its_own)  # the negative control: what version 0.1 did


def padding_counts(rule, net, x, target, loss, when, cost):
    """Gradients where the cost is a mean over all steps, padding too."""
    problem = problem_of(net, x, target, Loss.of(loss, when), lengths=LENGTHS)
    return rule.gradients(replace(problem, loss=_WholeCost(**{**vars(problem.loss), "activity": cost}))).grads


class _WholeCost(Loss):
    cost = property(lambda self: self.activity)


@pytest.mark.parametrize("block", ["W_rec", "W_in", "W_out", "b_rec"])
@pytest.mark.parametrize("neuron", [Leaky(0.4, "tanh"), Leaky(0.4, "relu"), Leaky(0.3, "softplus", "rate"), GRU()])
@pytest.mark.parametrize("cost", COSTS, ids=lambda cost: cost.form)
@pytest.mark.parametrize("way", [ROperator, lambda p: NetworkByAutograd(p, tuple(p.params))])
def test_its_hessian_is_that_of_the_sequences_alone(way, cost, neuron, block):
    """Products with all columns of a block, against the mean over sequences run one by one."""
    net, (x, target) = network(neuron, autapses=True), batch("cross_entropy", "last")
    whole = problem_of(net, *padded(x, target, "last"), Loss.of("cross_entropy", activity=cost), lengths=LENGTHS)
    eye = torch.eye(whole.params[block].numel(), dtype=torch.float64).view(-1, *whole.params[block].shape)
    directions = {n: eye if n == block else torch.zeros(len(eye), *w.shape).to(w) for n, w in whole.params.items()}

    def value(w):
        at = {**whole.params, block: w.view_as(whole.params[block])}
        apart = [alone(x, target, "last", b) for b in range(B)]
        return sum(Problem(net, at, *one, Loss.of("cross_entropy", activity=cost)).value() for one in apart) / B

    dense = torch.func.hessian(value)(whole.params[block].flatten())
    directions = net.masked(directions)  # a GRU has weights that cannot act
    found = net.masked(way(whole)(directions))[block].flatten(1)
    assert block == "W_out" or dense.norm() > 1e-3
    torch.testing.assert_close(found, dense, rtol=0, atol=1e-10)
    control = way(replace(whole, loss=_WholeCost(**vars(whole.loss))))(directions)[block].flatten(1)
    assert block == "W_out" or not torch.allclose(control, dense, rtol=0, atol=1e-6)


def test_a_pause_within_a_sequence_is_no_padding():
    """Weight 0 before the last step that counts: nothing is asked there, and the activity has its cost all the same."""
    net, (x, target) = network(), batch("mse", "all")
    mask = torch.ones(T, B, dtype=torch.float64)
    mask[2:5] = 0
    cost = COSTS[0]
    with_pause = gradients("bptt", net, x, target, "mse", "all", mask, activity=cost).loss
    without_cost = gradients("bptt", net, x, target, "mse", "all", mask).loss
    h = net.run(net.params(), x).h
    assert float(with_pause - without_cost) == pytest.approx(float(cost.value(h)), abs=1e-12)
    mask[:, 1] = 0  # a sequence that only fills the batch costs nothing
    filled = gradients("bptt", net, x, target, "mse", "all", mask, activity=cost).loss
    others = [0, 2, 3, 4]
    rest = gradients("bptt", net, x[:, others], target[:, others], "mse", "all", mask[:, others], activity=cost).loss
    assert float(filled) == pytest.approx(float(rest) * 4 / 5, abs=1e-12)


def test_numpy_lengths_and_what_cannot_be_had():
    x, target = batch("mse", "last")
    one = gradients("bptt", network(), x, target, "mse", lengths=LENGTHS.numpy().astype(np.uint8))
    assert close(one.grads, gradients("bptt", network(), x, target, "mse", lengths=LENGTHS).grads)
    x[0, 2] = float("nan")
    with pytest.raises(BpgenError, match="nan or infinite"):  # before the last step of sequence 2
        gradients("bptt", network(), x, target, "mse", lengths=LENGTHS)
    with pytest.raises(BpgenError, match="target must be"):
        gradients("bptt", network(), x, target[:3], "mse", lengths=LENGTHS)
