"""block="all" is all that is trained: frozen weights count in no curvature, stability or spectrum."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

import bpgen
from bpgen.callbacks import Evaluation, Sharpness, Spectrum, Stability
from bpgen.curvature import HessianProducts, Search, density, participation, trace, trained
from bpgen.curvature.block import BlockProblem
from bpgen.curvature.survey import survey
from bpgen.errors import BpgenError
from bpgen.losses import L2, Loss
from bpgen.neurons import Leaky
from bpgen.stability import RuleJacobian, analyse, stability
from bpgen.training.data import TaskData
from bpgen.training.module import RuleTraining
from bpgen.training.options import Optimizer
from bpgen.training.splits import TaskSplits
from tests.callbacks.test_measurements import Toy
from tests.curvature.dense import asked, dense_hessian, free_entries, objective
from tests.oracles import Problem, distance, problem, randn

FROZEN = [("W_in",), ("W_rec", "b_out"), ("W_in", "b_rec", "W_out", "b_out")]
every_freeze = pytest.mark.parametrize("frozen", FROZEN, ids="+".join)


def partly_frozen(frozen: tuple[str, ...], **options) -> tuple[Problem, Tensor]:
    """A problem, and the Hessian over what is left free."""
    p = problem(Leaky(0.4, "tanh"), **options)
    H = dense_hessian(p, "all", l2=0.1)
    entries = free_entries(p, "all")
    inside = torch.cat([torch.full((int(e.sum()),), name not in frozen) for name, e in entries.items()])
    for name in frozen:
        p.network.get_parameter(name).requires_grad_(False)
    return p, H[inside][:, inside]


@every_freeze
@pytest.mark.parametrize("by", ["roperator", "autograd"])
def test_products_are_those_of_the_dense_hessian_of_the_free_weights(frozen, by):
    p, H = partly_frozen(frozen)
    operator = HessianProducts(asked(p, objective(p, 0.1)), "all", by=by)
    assert distance(operator(torch.eye(operator.size, dtype=torch.float64)), H) < 1e-10
    assert trained(p.network) == tuple(name for name in p.network.params() if name not in frozen)
    named = HessianProducts(asked(p, objective(p, 0.1)), trained(p.network), by=by)
    v = randn(0, operator.size)
    assert torch.equal(named(v), operator(v))


@every_freeze
@pytest.mark.parametrize("backend", ["lanczos", "pyhessian"])
def test_eigenvalues_of_what_is_trained(frozen, backend):
    p, H = partly_frozen(frozen)
    options = {"regulariser": 0.1, "block": "all", "tol": 1e-8, "backend": backend, "max_products": 3000}
    arguments = (p.network, p.x, p.target, p.loss, p.when, p.mask, p.s_0)
    found = bpgen.sharpness(*arguments, **options)
    exact = torch.linalg.eigvalsh(H)[-1].item()
    assert found.eigenvalues.item() == pytest.approx(exact, rel=1e-10 if backend == "lanczos" else 1e-4)
    assert found.free == len(H)
    p.network.requires_grad_(True)
    whole = bpgen.sharpness(*arguments, **options)
    assert abs(whole.eigenvalues.item() / exact - 1) > 1e-3, "the control does not tell them apart"


@every_freeze
def test_whatever_else_is_measured_is_of_what_is_trained(frozen):
    p, H = partly_frozen(frozen)
    question = asked(p, objective(p, 0.1))
    at, operator = BlockProblem(question, "all"), HessianProducts(question, "all")
    assert len(at.theta) == len(H)
    assert trace(operator, 3 * len(H)).value == pytest.approx(H.trace().item(), rel=1e-10)
    assert density(operator, 2, len(H)).free == len(H)
    found = survey(question, "all", Search(tol=1e-8), measures=True)
    scaled = at.theta.abs().diag() @ H @ at.theta.abs().diag()
    assert found.measures["adaptive"] == pytest.approx(torch.linalg.eigvalsh(scaled)[-1].item(), rel=1e-8)
    shares = participation(p.network, found.sharp.vectors[0], "all")
    silent = {"W_rec", "W_in", "b_rec"} <= set(frozen)
    assert shares.incoming.sum() == 0 if silent else shares.incoming.sum() > 0


@every_freeze
def test_stability_is_of_what_is_trained(frozen):
    p, H = partly_frozen(frozen)
    found = stability(
        "bptt", p.network, p.x, p.target, p.loss, p.when, p.mask, p.s_0, 0.1, lr=0.05, tol=1e-10, probes=len(H)
    )
    exact = torch.linalg.eigvalsh(H)
    assert found.lambda_max == pytest.approx(exact[-1].item(), rel=1e-10)
    assert found.mu[0].abs().item() == pytest.approx(exact.abs().max().item(), rel=1e-9)
    assert found.parameters == len(H)
    assert found.asymmetry_fraction < 1e-10


def test_names_leave_weights_out_that_no_flag_freezes():
    """As a training module decides, whose learning rates or whose rule leave weights where they are."""
    p, H = partly_frozen(())
    names = ("W_rec", "W_out")
    part = RuleJacobian(bpgen.load_rule("rflo").bind(p.network), asked(p, objective(p, 0.1)), {}, names)
    whole = RuleJacobian(bpgen.load_rule("rflo").bind(p.network), asked(p, objective(p, 0.1)), {})
    inside = torch.cat([torch.full((int(e.sum()),), n in names) for n, e in free_entries(p, "all").items()])
    D = torch.stack([whole(v) for v in torch.eye(whole.size, dtype=torch.float64)], dim=1)
    got = torch.stack([part(v) for v in torch.eye(part.size, dtype=torch.float64)], dim=1)
    assert distance(got, D[inside][:, inside]) < 1e-12
    found = analyse(part, Search(2, 1e-8), lr=0.1)
    assert found.lambda_max == pytest.approx(torch.linalg.eigvalsh(H[inside][:, inside])[-1].item(), rel=1e-10)


def frozen_by(way: str) -> tuple[RuleTraining, tuple[str, ...]]:
    """A training in which some weights stay as they are, and those that do not."""
    network = bpgen.Network(Leaky(0.5, "tanh"), 3, 5, 4, seed=1)
    loss, optimizer, rule = Loss("mse", "last", None, L2.of({"W_out": 0.1})), Optimizer(), "rflo"
    if way == "readout_only":
        return RuleTraining(network, way, loss), ("W_out", "b_out")
    if way == "lr_scale":
        optimizer = Optimizer(lr_scale={"W_in": 0.0, "W_rec": 1.0})
    else:
        network.W_in.requires_grad_(False)
    return RuleTraining(network, rule, loss, optimizer), ("W_rec", "W_out", "b_out")


@pytest.mark.parametrize("way", ["requires_grad", "lr_scale", "readout_only"])
def test_callbacks_measure_what_training_changes(way):
    module, names = frozen_by(way)
    assert set(module.trained) == set(names)
    network, evaluation = module.network, Evaluation(module, TaskSplits(Toy(), module.loss), lr=0.05)
    split = evaluation.training(40)
    options = {"regulariser": {"W_out": 0.1}, "tol": 1e-6}
    by_name = bpgen.sharpness(network, split.x, split.target, "mse", block=names, **options)
    whole = bpgen.sharpness(network, split.x, split.target, "mse", block=tuple(network.params()), **options)
    assert abs(whole.eigenvalues.item() / by_name.eigenvalues.item() - 1) > 1e-3
    for measurement, column in (
        (Sharpness(40, "all", tol=1e-6), "sharpness/lambda_max"),
        (Spectrum(40, "all", tol=1e-6), "spectrum/lambda_1"),
        (Stability(40, tol=1e-6), "stability/lambda_max"),
    ):
        measurement.check(evaluation)
        assert measurement.measure(evaluation)[column] == pytest.approx(by_name.eigenvalues.item(), rel=1e-5)


@pytest.mark.parametrize("way", ["requires_grad", "lr_scale", "readout_only"])
def test_what_is_called_trained_is_what_moves(way):
    module, names = frozen_by(way)
    before = {name: w.clone() for name, w in module.network.params().items()}
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    pl.Trainer(**quiet, max_steps=3, accelerator="cpu").fit(module, datamodule=TaskData(Toy(), module.loss, 8))
    moved = {name for name, w in module.network.params().items() if not torch.equal(w, before[name])}
    assert moved == set(names)


def test_a_regulariser_trains_what_the_rule_leaves_alone():
    network = bpgen.Network(Leaky(0.5, "tanh"), 3, 5, 4, seed=1)
    module = RuleTraining(network, "readout_only", Loss(regulariser=L2.of({"W_rec": 0.1})))
    assert module.trained == ("W_rec", "W_out", "b_out")


def test_frozen_weights_may_be_asked_for_by_name_and_nothing_trained_is_said():
    p, _ = partly_frozen(("W_rec",))
    H = dense_hessian(p, "W_rec")
    operator = HessianProducts(asked(p))
    assert distance(operator(torch.eye(operator.size, dtype=torch.float64)), H) < 1e-12
    p.network.requires_grad_(False)
    with pytest.raises(BpgenError, match=r"block 'all' has no free entry.*every weight is frozen: name those"):
        HessianProducts(asked(p), "all")
