"""Curvature in the coordinates of an optimizer: against dense matrices, and its bounds against steps that blow up."""

import math

import lightning.pytorch as pl
import pytest
import torch

from bpgen import Network
from bpgen.callbacks import Measurement, Preconditioned, Sharpness
from bpgen.curvature import Scaled
from bpgen.errors import BpgenError
from bpgen.losses import L2, Loss
from bpgen.neurons import LIF, Leaky
from bpgen.training.data import TaskData
from bpgen.training.module import RuleTraining
from bpgen.training.options import Optimizer
from tests.callbacks.test_measurements import Toy


class Dense(Measurement):
    """The eigenvalue by double backward and a full matrix, from what torch's optimizer says of itself."""

    name = "dense"

    def measure(self, evaluation):
        net, split = evaluation.network, evaluation.splits.task.split("train")
        weights = {name: p.detach().double() for name, p in net.named_parameters()}
        mask = {name: torch.ones_like(p, dtype=torch.bool) for name, p in weights.items()}
        mask |= {name: m.bool() for name, m in net.masks().items()}
        names = [name for name in weights if name in evaluation.module.trained]

        def value(theta):
            parts = theta.split([int(mask[name].sum()) for name in names])
            moved = {n: weights[n].masked_scatter(mask[n], part) for n, part in zip(names, parts, strict=True)}
            out = torch.func.functional_call(net, weights | moved, (split.x.double(),))
            fit = torch.nn.functional.cross_entropy(out, split.target)
            return fit + 0.05 * sum(moved.get(n, weights[n]).square().sum() for n in ("W_in", "W_rec", "W_out"))

        H = torch.autograd.functional.hessian(value, torch.cat([weights[n][mask[n]] for n in names]))
        inverse = self.inverse(evaluation, names, mask)
        if inverse is None:
            return {"dense/lambda_max": math.nan}
        root = inverse.sqrt()
        return {"dense/lambda_max": torch.linalg.eigvalsh(root[:, None] * H * root)[-1].item()}

    def inverse(self, evaluation, names, mask):
        """How far a step goes per unit of a constant gradient's running mean, over the learning rate."""
        optimizer = evaluation.module.optimizers(use_pl_optimizer=False)
        named, rows = dict(evaluation.network.named_parameters()), []
        for name in names:
            rate = next(g["lr"] for g in optimizer.param_groups if any(p is named[name] for p in g["params"]))
            size = torch.full_like(named[name], rate / evaluation.lr)
            if isinstance(optimizer, torch.optim.Adam):
                if named[name] not in optimizer.state:
                    return None
                state = optimizer.state[named[name]]
                t = state["step"].item()
                size /= (1 - 0.9**t) * ((state["exp_avg_sq"] / (1 - 0.999**t)).sqrt() + 1e-8)
            rows.append(size[mask[name]])
        return torch.cat(rows).detach().double()


def run(optimizer, rule="rflo", neuron=None, *further):
    loss = Loss("cross_entropy", "last", None, L2.of(0.1))
    module = RuleTraining(Network(neuron or Leaky(0.5, "tanh"), 3, 5, 4, seed=1), rule, loss, optimizer)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(further),
    )  # fmt: skip
    trainer.fit(module, TaskData(Toy(), loss, 8))


@pytest.mark.parametrize(
    "optimizer",
    [
        Optimizer("adam", 0.01),
        Optimizer("adam", 0.01, lr_scale={"W_out": 0.3, "W_in": 0}),
        Optimizer("sgd", 0.1, 0.9, {"W_out": 0.3}),
    ],
    ids=["adam", "adam, rates by weight", "momentum"],
)
def test_it_is_the_eigenvalue_of_the_full_matrix(optimizer):
    measured, dense = Preconditioned(samples=40, tol=1e-5), Dense()
    run(optimizer, "rflo", None, measured, dense)
    assert len(measured.rows) == 3
    for k, (row, exact) in enumerate(zip(measured.rows, dense.rows, strict=True)):
        assert row["preconditioned/lambda_max"] == pytest.approx(exact["dense/lambda_max"], rel=1e-4, nan_ok=True)
        assert math.isnan(row["preconditioned/lambda_max"]) == (k == 0 and optimizer.name == "adam")
        assert not row["preconditioned/residual"] > 1e-4 * row["preconditioned/lambda_max"]


def test_of_plain_descent_it_is_the_sharpness_of_all_weights():
    ours, plain = Preconditioned(samples=40, tol=1e-5), Sharpness(samples=40, block="all", tol=1e-5)
    run(Optimizer("sgd", 0.1), "bptt", None, ours, plain)
    for one, other in zip(ours.rows, plain.rows, strict=True):
        assert one["preconditioned/lambda_max"] == pytest.approx(other["sharpness/lambda_max"], rel=1e-4)
        assert one["preconditioned/bound"] == pytest.approx(20)


def blows_up(optimizer, curvature):
    """Whether a step of the training's own optimizer, on ½ h θ², goes out further and further."""
    theta = torch.nn.Parameter(torch.full((1,), 1e-9, dtype=torch.float64))
    torch_optimizer = optimizer.build([("W_rec", theta)])
    for group in torch_optimizer.param_groups:
        if optimizer.name == "adam":  # v stays near 0 and ε is 1, so that P = 1
            group.update(betas=(group["betas"][0], 1 - 1e-16), eps=1.0)
            torch_optimizer.state[theta] = {
                "step": torch.tensor(1e18), "exp_avg": torch.zeros(1, dtype=torch.float64),
                "exp_avg_sq": torch.zeros(1, dtype=torch.float64),
            }  # fmt: skip
    sizes = []
    for _ in range(1000):
        theta.grad = curvature * theta.detach()
        torch_optimizer.step()
        sizes.append(abs(theta.item()))
    return max(sizes) > 1e-6


@pytest.mark.parametrize("optimizer", [Optimizer("sgd", 0.1), Optimizer("sgd", 0.1, 0.9), Optimizer("adam", 0.1)])
def test_above_its_bound_steps_blow_up_and_below_they_do_not(optimizer):
    measured = Preconditioned(samples=8)
    run(optimizer, "bptt", None, measured)
    bound = measured.rows[-1]["preconditioned/bound"]
    assert blows_up(optimizer, 1.01 * bound)
    assert not blows_up(optimizer, 0.99 * bound)


def test_spiking_networks_have_that_of_their_surrogate():
    measured = Preconditioned(samples=8)
    run(Optimizer("adam", 0.01), "eprop", LIF(), measured)
    assert all(key.startswith("preconditioned/surrogate/") or "/" not in key for key in measured.rows[-1])


@pytest.mark.parametrize("options", [{"samples": -1}, {"tol": 1.5}, {"max_products": 1}])
def test_options_out_of_range(options):
    assert not Preconditioned().enabled
    with pytest.raises(BpgenError, match=r"preconditioned\."):
        Preconditioned(**options)


def test_a_scale_has_to_fit():
    class Two:
        size, precision = 2, 1e-16

        def __call__(self, v):
            return torch.tensor([3.0, 1.0], dtype=torch.float64) * v

    scaled = Scaled(Two(), torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert scaled(torch.ones(2, dtype=torch.float64)).tolist() == [3, 4]
    assert scaled(torch.eye(2, dtype=torch.float64)).tolist() == [[3, 0], [0, 4]]
    for wrong in ([1.0], [1.0, 0.0], [1.0, math.inf]):
        with pytest.raises(BpgenError, match="scale"):
            Scaled(Two(), torch.tensor(wrong, dtype=torch.float64))
