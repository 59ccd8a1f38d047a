"""Several labels at once: the loss and its derivatives against torch's own, everywhere it goes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import bpgen
from bpgen import Network, gradients, sharpness
from bpgen.callbacks import Evaluation, GeneralizationGap
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.neurons import Leaky
from bpgen.streams import generator
from bpgen.tasks.npz import Npz
from bpgen.training.module import RuleTraining
from bpgen.training.splits import TaskSplits

T, B, I, N, O = 6, 5, 3, 4, 3
KIND = "binary_cross_entropy"


def batch(when):
    random = generator(5, "labels")
    steps = (B,) if when == "last" else (T, B)
    x = torch.randn(T, B, I, generator=random, dtype=torch.float64)
    return x, torch.rand(*steps, O, generator=random, dtype=torch.float64).round()


def network():
    return Network(Leaky(0.4, "tanh"), I, N, O, bias="both", autapses=True, seed=1, dtype=torch.float64)


def reference(net, x, target, when, mask=None):
    """By torch's own loss and autograd."""
    outputs = net(x, when=when)
    each = F.binary_cross_entropy_with_logits(outputs, target, reduction="none").sum(-1)
    if mask is None:
        return each.mean()
    return (each * mask).sum() / B


@pytest.mark.parametrize(("when", "weighted"), [("last", False), ("all", False), ("all", True)])
def test_value_and_gradient(when, weighted):
    net, (x, target) = network(), batch(when)
    mask = torch.rand(T, B, dtype=torch.float64, generator=generator(6, "labels")) if weighted else None
    value = reference(net, x, target, when, mask)
    grads = torch.autograd.grad(value, list(net.parameters()))
    found = gradients("bptt", net, x, target, KIND, when, mask)
    assert float(found.loss) == pytest.approx(value.item(), abs=1e-12)
    for (name, _), expected in zip(net.named_parameters(), grads, strict=True):
        assert expected.norm() > 0
        torch.testing.assert_close(found.grads[name], expected, rtol=0, atol=1e-12)
    other = gradients("bptt", net, x, target, "mse", when, mask)
    assert not torch.allclose(other.grads["W_rec"], found.grads["W_rec"], atol=1e-4)


@pytest.mark.parametrize("when", ["last", "all"])
def test_curvature(when):
    net, (x, target) = network(), batch(when)
    params = {name: p.detach() for name, p in net.named_parameters()}

    def value(w):
        outputs = torch.func.functional_call(net, {**params, "W_rec": w.view(N, N)}, (x, when))
        return F.binary_cross_entropy_with_logits(outputs, target, reduction="none").sum(-1).mean()

    dense = torch.linalg.eigvalsh(torch.func.hessian(value)(params["W_rec"].flatten()))
    found = sharpness(net, x, target, KIND, when, tol=1e-12)
    assert float(found.eigenvalues[0]) == pytest.approx(float(dense[-1]), abs=1e-10)


@pytest.mark.parametrize("when", ["last", "all"])
def test_split_batches_chunks_and_lengths_add_up(when):
    net, (x, target) = network(), batch(when)
    whole = gradients("bptt", net, x, target, KIND, when)
    axis = int(when == "all")
    parts = [
        gradients("bptt", net, x[:, part], target.narrow(axis, part.start, 1), KIND, when)
        for part in (slice(b, b + 1) for b in range(B))
    ]
    for name, grad in whole.grads.items():
        torch.testing.assert_close(sum(part.grads[name] for part in parts) / B, grad, rtol=0, atol=1e-12)
    lengths = gradients("bptt", net, x, target, KIND, when, lengths=[T] * B)
    torch.testing.assert_close(lengths.grads["W_rec"], whole.grads["W_rec"], rtol=0, atol=1e-12)
    chunk, loss = Loss(KIND, when).of_chunk(x, target)
    assert loss.data(net(x, when="all"), chunk).item() == pytest.approx(float(whole.loss), abs=1e-12)


def test_far_outputs_stay_finite():
    loss = Loss(KIND)
    outputs = torch.tensor([[1e4, -1e4]])
    assert float(loss.data(outputs, torch.tensor([[1.0, 0.0]]))) == 0
    assert float(loss.data(outputs, torch.tensor([[0.0, 1.0]]))) == 2e4


def test_targets_that_are_no_labels():
    x, target = batch("last")
    with pytest.raises(BpgenError, match="numbers from 0 to 1"):
        gradients("bptt", network(), x, 2 * target + 0.1, KIND)
    with pytest.raises(BpgenError, match=r"target must be \[5, 3\]"):
        gradients("bptt", network(), x, target[:, :2], KIND)


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint8])
def test_own_data(tmp_path, timed, dtype):
    random = np.random.default_rng(0)
    x = random.normal(size=(T, 30, I))
    y = (random.random((T, 30, O) if timed else (30, O)) < [0.2, 0.5, 0.9]).astype(dtype)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    task = Npz(str(tmp_path / "data.npz"))
    assert (task.loss, task.when, task.n_out) == (KIND, "all" if timed else "last", O)
    first, chance = task.describe().splitlines()[:2]
    assert "O = 3 outputs (3 labels" in first
    train, test = task.split("train").target.flatten(0, -2), task.split("test").target.flatten(0, -2)
    share = ((train.mean(0) > 0.5) == (test > 0.5)).double().mean()
    assert f"is right for {float(share):.1%} of the test labels" in chance
    net = Network(Leaky(0.5), I, 8, O, seed=1)
    module = RuleTraining(net, bpgen.load_rule("bptt"), Loss(task.loss, task.when))
    row = GeneralizationGap().measure(Evaluation(module, TaskSplits(task, module.loss)))
    with torch.no_grad():
        outputs = net(task.split("test").x, when=task.when).flatten(0, -2)
    assert row["test/accuracy"] == pytest.approx(float(((outputs > 0) == (test > 0.5)).double().mean()))
    assert "test/r2" not in row
