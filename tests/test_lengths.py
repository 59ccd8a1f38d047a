"""Sequences of different lengths in one batch are the sequences one by one, to 1e-10; each with a negative control."""

import numpy as np
import pytest
import torch

import bpgen
from bpgen import Network, gradients, sharpness
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.neurons import Leaky
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


def network(**options):
    return Network(Leaky(0.4, "tanh"), I, N, O, bias="both", seed=1, dtype=torch.float64, **options)


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


def test_numpy_lengths_and_what_cannot_be_had():
    x, target = batch("mse", "last")
    one = gradients("bptt", network(), x, target, "mse", lengths=LENGTHS.numpy().astype(np.uint8))
    assert close(one.grads, gradients("bptt", network(), x, target, "mse", lengths=LENGTHS).grads)
    with pytest.raises(BpgenError, match="counts all steps, padding too"):
        gradients("bptt", network(), x, target, "mse", lengths=LENGTHS, activity=0.1)
    x[0, 2] = float("nan")
    with pytest.raises(BpgenError, match="nan or infinite"):  # before the last step of sequence 2
        gradients("bptt", network(), x, target, "mse", lengths=LENGTHS)
    with pytest.raises(BpgenError, match="target must be"):
        gradients("bptt", network(), x, target[:3], "mse", lengths=LENGTHS)
