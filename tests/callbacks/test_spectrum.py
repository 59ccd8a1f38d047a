"""The spectrum callback against dense eigenvalues."""

import math

import pytest
import torch

from bpgen import Network, load_rule
from bpgen.callbacks import Evaluation, Spectrum
from bpgen.errors import BpgenError
from bpgen.losses import L2, Loss
from bpgen.neurons import LIF, Leaky
from bpgen.training.module import RuleTraining
from bpgen.training.splits import TaskSplits
from tests.callbacks.test_measurements import Toy


def evaluation(neuron=None, l2=0.1):
    network = Network(neuron or Leaky(0.5, "tanh"), 3, 5, 4, seed=1)
    loss = Loss("cross_entropy", "last", None, L2.of(l2))
    return Evaluation(RuleTraining(network, load_rule("rflo"), loss), TaskSplits(Toy(), loss), lr=0.05)


def dense(at, l2):
    """The Hessian of the loss over the 20 recurrent weights that act, by double backward."""
    net, split = at.module.network.double(), at.splits.task.split("train")
    fixed = {n: p.detach() for n, p in net.named_parameters()}
    free = ~torch.eye(5, dtype=torch.bool)

    def value(theta):
        W = fixed["W_rec"].masked_scatter(free, theta)
        out = torch.func.functional_call(net, {**fixed, "W_rec": W}, (split.x.double(),))
        return torch.nn.functional.cross_entropy(out, split.target) + 0.5 * l2 * theta.square().sum()

    return torch.autograd.functional.hessian(value, fixed["W_rec"][free])


def test_it_is_the_spectrum_of_the_true_loss():
    at = evaluation()
    row = Spectrum(samples=40, top=3, tol=1e-6, density_probes=200).measure(at)
    bare = Spectrum(samples=40, top=3, regulariser=False, trace_products=0, density_probes=0).measure(at)
    H = dense(at, 0.1)
    values = torch.linalg.eigvalsh(H).flip(0)
    assert [row[f"spectrum/lambda_{i}"] for i in (1, 2, 3)] == pytest.approx(values[:3].tolist(), rel=1e-4)
    assert row["spectrum/residual"] < 1e-4 * values[0]
    assert row["spectrum/trace"] == pytest.approx(H.trace().item(), rel=1e-4)  # 20 products find all of it
    assert row["spectrum/trace_low"] <= row["spectrum/trace"] <= row["spectrum/trace_high"]
    assert row["spectrum/top_mass"] == pytest.approx((values[:3].sum() / H.trace()).item(), rel=1e-4)
    true = (values < 0).double().mean().item()
    assert abs(row["spectrum/negative"] - true) < 4 * row["spectrum/negative_error"] + 1e-9
    assert row["spectrum/lambda_1"] - bare["spectrum/lambda_1"] == pytest.approx(0.1, abs=1e-3)
    assert set(bare) == {
        f"spectrum/{n}" for n in ("lambda_1", "lambda_2", "lambda_3", "residual", "neurons", "products")
    }
    assert bare["spectrum/products"] < row["spectrum/products"]
    v = torch.linalg.eigh(H)[1][:, -1]
    shares = torch.zeros(5, 5, dtype=torch.float64).masked_scatter(~torch.eye(5, dtype=torch.bool), v**2).sum(1)
    assert row["spectrum/neurons"] == pytest.approx(1 / shares.square().sum().item(), rel=1e-3)


def test_without_regulariser_some_of_it_is_negative():
    at = evaluation()
    row = Spectrum(samples=40, top=1, regulariser=False, trace_products=0, density_probes=100).measure(at)
    true = (torch.linalg.eigvalsh(dense(at, 0.0)) < 0).double().mean().item()
    assert true > 0.1
    assert abs(row["spectrum/negative"] - true) < 4 * row["spectrum/negative_error"] + 0.1
    assert not math.isnan(row["spectrum/negative_error"])


def test_names_and_switch():
    assert not Spectrum().enabled
    row = Spectrum(samples=8, density_probes=0).measure(evaluation(LIF()))
    assert all(name.startswith("spectrum/surrogate/") for name in row)
    at, measurement = evaluation(), Spectrum(samples=8)
    assert "block W_rec, 8 of 40 train samples, regularisers inside" in measurement.describe(at)
    assert "8 of 40 train samples, no regularisers" in measurement.describe(evaluation(l2=0.0))
    assert "regularisers left out" in Spectrum(samples=8, regulariser=False).describe(at)
    assert "surrogate network" in measurement.describe(evaluation(LIF()))


@pytest.mark.parametrize(
    "options",
    [{"samples": -1}, {"top": 0}, {"tol": 0}, {"max_products": 9}, {"trace_products": 5}, {"density_probes": -1}],
)
def test_bad_options(options):
    with pytest.raises(BpgenError, match=r"spectrum\."):
        Spectrum(**options)
