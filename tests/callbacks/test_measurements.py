"""The measuring callbacks: each number against an independent computation, at the right steps, leaving no trace."""

import random
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bpgen import Network, gradients, load_rule, sharpness
from bpgen.callbacks import (
    Alignment,
    Evaluation,
    EvaluationClock,
    GeneralizationGap,
    Measurement,
    Sharpness,
    performance,
)
from bpgen.errors import BpgenError
from bpgen.losses import L2, Activity, Loss
from bpgen.neurons import ALIF, GRU, LSTM, Leaky
from bpgen.problem import Problem
from bpgen.run.progress import ProgressBar
from bpgen.stability.alignment import alignment
from bpgen.tasks import Split, Task
from bpgen.training.data import TaskData
from bpgen.training.module import RuleTraining
from bpgen.training.options import Optimizer
from bpgen.training.splits import TaskSplits


class Toy(Task):
    n_in, n_out, n_steps = 3, 4, 5
    input_range = (0.0, 1.0)

    def load(self):
        source = torch.Generator().manual_seed(0)
        splits = {}
        for name, n in (("train", 40), ("val", 20), ("test", 20)):
            x = torch.rand(5, n, 3, generator=source)
            splits[name] = Split(x, torch.randint(0, 4, (n,), generator=source))
        return splits


def evaluation(rule="rflo", kind="cross_entropy", seed=0, when="last"):
    network = Network(Leaky(0.5), 3, 8, 4, seed=1)
    module = RuleTraining(network, load_rule(rule), Loss(kind, when, None, L2.of(0.1)), seed=seed)
    return Evaluation(module, TaskSplits(Toy(noise_sd=0.3), module.loss), 0.0, 0, 0.1)


def test_gap_against_its_definition():
    at = evaluation()
    row = GeneralizationGap().measure(at)
    net, task = at.module.network, at.splits.task
    for name in ("train", "val", "test"):
        split = task.split(name)
        outputs = net(split.x)
        assert row[f"{name}/loss"] == pytest.approx(F.cross_entropy(outputs, split.target).item(), rel=1e-5)
        assert row[f"{name}/accuracy"] == pytest.approx((outputs.argmax(1) == split.target).float().mean().item())
    penalty = 0.05 * sum(getattr(net, n).square().sum().item() for n in ("W_rec", "W_in", "W_out"))
    assert row["train/objective"] == pytest.approx(row["train/loss"] + penalty, rel=1e-5)
    assert row["gap/loss"] == row["test/loss"] - row["train/loss"]
    assert row["gap/accuracy"] == row["train/accuracy"] - row["test/accuracy"]
    assert row["gap_noisy/loss"] == row["test_noisy/loss"] - row["train/loss"]
    assert row["test_noisy/loss"] != row["test/loss"]


class Known(Toy):
    """Its ideal observer is right at every third sequence without noise, at every fifth with it."""

    clean_gap = "its test is its training"

    def ideal_answer(self, x, noise_sd):
        name = {40: "train", 20: "test"}[x.shape[1]]
        right = torch.arange(x.shape[1]) % (5 if noise_sd else 3) == 0
        return torch.where(right, self.split(name).target, (self.split(name).target + 1) % 4)


@pytest.mark.parametrize(("kind", "when"), [("cross_entropy", "last"), ("cross_entropy", "all"), ("mse", "last")])
def test_what_an_ideal_observer_loses_is_taken_off(kind, when):
    at = evaluation(kind=kind, when=when)
    known = replace(at, splits=TaskSplits(Known(noise_sd=0.3), at.module.loss))
    row, other = GeneralizationGap().measure(known), GeneralizationGap().measure(at)
    assert row["gap_noisy/beyond_ideal"] == pytest.approx(row["gap_noisy/accuracy"] - (14 / 40 - 4 / 20))
    assert "gap_noisy/beyond_ideal" not in other
    said = GeneralizationGap().describe(known)
    assert "an ideal observer is right on 35.0% of training, 20.0% of the noisy test" in said
    assert "ideal" not in GeneralizationGap().describe(at)


def test_a_clean_gap_that_is_not_defined_is_not_measured():
    at = evaluation()
    known = replace(at, splits=TaskSplits(Known(noise_sd=0.3), at.module.loss))
    row, other = GeneralizationGap().measure(known), GeneralizationGap().measure(at)
    assert np.isnan([row["gap/loss"], row["gap/accuracy"]]).all()
    assert row["gap_noisy/accuracy"] == other["gap_noisy/accuracy"]
    assert row["test/accuracy"] == other["test/accuracy"]
    assert "clean gap not defined: its test is its training" in GeneralizationGap().describe(known)
    assert "not defined" not in GeneralizationGap().describe(at)


def test_samples_count_equally_whatever_the_chunks(monkeypatch):
    whole = GeneralizationGap().measure(evaluation())
    monkeypatch.setattr(performance, "_CHUNK", 7)  # the last chunk is smaller
    parts = GeneralizationGap().measure(evaluation())
    assert parts == pytest.approx(whole, abs=1e-6)


def test_memory_bounds_how_many_sequences_run_at_once(monkeypatch):
    """T·B·N·(d+K) numbers: 5 steps, 8 neurons with one state and one current each."""
    seen, at = [], evaluation()
    run = Problem.run
    monkeypatch.setattr(Problem, "run", lambda self, *args, **options: seen.append(self.batch) or run(self, *args))
    whole = GeneralizationGap().measure(at)
    assert max(seen) == 40
    seen.clear()
    monkeypatch.setattr(performance, "_NUMBERS", 5 * 8 * 2 * 6)
    parts = GeneralizationGap().measure(at)
    assert max(seen) == 6
    assert parts == pytest.approx(whole, abs=1e-6)
    monkeypatch.setattr(performance, "_NUMBERS", 1)
    assert GeneralizationGap().measure(at) == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("kind", ["cross_entropy", "mse"])
def test_outputs_that_are_no_numbers_have_no_accuracy(kind):
    at = evaluation(kind=kind)
    before = GeneralizationGap().measure(at)
    with torch.no_grad():
        at.network.W_out.fill_(float("nan"))
    row = GeneralizationGap().measure(at)
    for name, value in row.items():
        assert not np.isnan(before[name])
        assert np.isnan(value), name


@pytest.mark.parametrize("kind", ["cross_entropy", "mse", "binary_cross_entropy"])
@pytest.mark.parametrize("when", ["last", "all"])
@pytest.mark.parametrize("weight", ["W_out", "b_out", "W_rec", "W_in"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e38])
def test_after_divergence_nothing_is_right_or_wrong(kind, when, weight, number):
    """Any weight that left the finite numbers: accuracies, and every gap in them, are no numbers either."""
    at = evaluation(kind=kind, when=when)
    before = GeneralizationGap().measure(at)
    with torch.no_grad():
        at.network.get_parameter(weight).fill_(number)
        broken = not bool(at.network(at.splits.task.split("train").x, when).isfinite().all())
    row = GeneralizationGap().measure(at)
    accuracies = [name for name in row if name.endswith("accuracy")]
    assert len(accuracies) >= 5
    for name in accuracies:
        assert not np.isnan(before[name])
        assert np.isnan(row[name]) == broken, name
    assert broken or number == 1e38


@pytest.mark.parametrize("neuron", [Leaky(0.5), ALIF(), GRU(), LSTM()], ids=lambda neuron: type(neuron).__name__)
@pytest.mark.parametrize("N", [8, 64, 512])
@pytest.mark.parametrize("T", [5, 784, 10_000])
def test_an_evaluation_never_keeps_more_than_its_bound(neuron, N, T):
    """1,024 sequences at most, and a run of 2^26 numbers (256 MiB in float32) wherever one sequence has fewer."""
    network = Network(neuron, 3, N, 4)
    many = torch.zeros(1, 1, 3).expand(T, 1, 3)
    problem = Problem(network, {}, many, torch.zeros(1).long(), Loss())
    each = T * N * (neuron.n_states + neuron.n_currents)
    n = performance._sequences(problem)
    assert 1 <= n <= 1024
    assert n == 1 or n * each <= 2**26
    assert n == 1024 or (n + 1) * each > 2**26  # and no fewer than that


def test_noise_has_its_size_and_is_clipped_and_fixed():
    at, gap = evaluation(), GeneralizationGap()
    first = gap.measure(at)["test_noisy/loss"]
    assert gap.measure(at)["test_noisy/loss"] == first
    assert GeneralizationGap().measure(evaluation("bptt"))["test_noisy/loss"] == first  # the same under every rule
    assert GeneralizationGap().measure(evaluation(seed=1))["test_noisy/loss"] != first
    noisy, clean = at.noisy("test", None).x, at.splits.task.split("test").x
    assert noisy.min() == 0
    assert noisy.max() == 1
    inside = (noisy > 0) & (noisy < 1) & (clean > 0.45) & (clean < 0.55)
    assert (noisy - clean)[inside].std().item() == pytest.approx(0.3, rel=0.5)


def test_accuracy_of_squared_error_is_that_of_the_largest_output():
    at = evaluation(kind="mse")
    row = GeneralizationGap().measure(at)
    split = at.splits.task.split("test")
    outputs = at.module.network(split.x)
    assert row["test/accuracy"] == pytest.approx((outputs.argmax(1) == split.target).float().mean().item())
    squared = 0.5 * (outputs - F.one_hot(split.target, 4)).square().sum(1).mean()
    assert row["test/loss"] == pytest.approx(squared.item(), rel=1e-5)


def test_a_regulariser_of_the_activity_is_in_the_objective_and_the_hessian_and_in_nothing_else():
    at, bare = evaluation(), evaluation()
    activity = Activity(5.0, "rate", 0.3)
    at.module.loss = replace(at.module.loss, activity=activity)
    row, without = GeneralizationGap().measure(at), GeneralizationGap().measure(bare)
    split = at.splits.task.split("train")
    cost = activity.value(at.module.network.run(at.module.network.params(), split.x).h)
    assert row["train/objective"] - without["train/objective"] == pytest.approx(cost.item(), rel=1e-4)
    assert row["train/loss"] == without["train/loss"]
    assert Alignment(samples=16).measure(at) == Alignment(samples=16).measure(bare)
    direct = sharpness(at.module.network, split.x, split.target, regulariser=0.1, activity=activity)
    measured = Sharpness(samples=40).measure(at)["sharpness/lambda_max"]
    assert measured == pytest.approx(direct.eigenvalues[0].item(), rel=1e-3)
    assert abs(measured - Sharpness(samples=40).measure(bare)["sharpness/lambda_max"]) > 0.01
    left_out = [Sharpness(samples=40, regulariser=False).measure(m)["sharpness/lambda_max"] for m in (at, bare)]
    assert left_out[0] == pytest.approx(left_out[1], rel=1e-6)


def test_a_loss_at_all_steps_is_measured_at_all_steps():
    at = evaluation(when="all")
    split = at.splits.task.split("test")
    outputs = at.module.network(split.x, when="all")
    hits = (outputs.argmax(2) == split.target).float().mean().item()
    assert GeneralizationGap().measure(at)["test/accuracy"] == pytest.approx(hits)


def test_sharpness_is_that_of_the_true_loss_on_the_named_subset():
    at = evaluation()
    row = Sharpness(samples=40).measure(at)
    split = at.splits.task.split("train")
    net = at.module.network
    direct = sharpness(net, split.x, split.target, regulariser=0.1)
    assert row["sharpness/lambda_max"] == pytest.approx(direct.eigenvalues[0].item(), rel=1e-3)
    without = Sharpness(samples=40, regulariser=False).measure(at)["sharpness/lambda_max"]
    assert row["sharpness/lambda_max"] - without == pytest.approx(0.1, abs=2e-3)
    under_bptt = Sharpness(samples=40).measure(evaluation("bptt"))["sharpness/lambda_max"]
    assert under_bptt == pytest.approx(row["sharpness/lambda_max"], rel=1e-6)  # the rule is never seen
    every = Sharpness(samples=40, block="all").measure(at)["sharpness/lambda_max"]
    assert every > row["sharpness/lambda_max"] * 1.01
    assert "sharpness/released" in Sharpness(samples=8, released=True).measure(at)


def test_alignment_of_bptt_is_perfect_and_of_a_local_rule_is_not():
    row = Alignment(samples=16).measure(evaluation("bptt"))
    assert row["alignment/rho"] == pytest.approx(1, abs=1e-5)
    assert row["alignment/cosine"] == pytest.approx(1, abs=1e-5)
    assert row["alignment/orthogonal"] == pytest.approx(0, abs=1e-4)
    local = Alignment(samples=16).measure(evaluation("rflo"))
    assert local["alignment/cosine"] < 0.99
    assert local["alignment/cosine/W_out"] == pytest.approx(1, abs=1e-5)  # the readout has its exact gradient


def test_alignment_is_that_of_the_gradients_without_regulariser():
    at = evaluation("rflo")
    measurement = Alignment(samples=40)
    row = measurement.measure(at)
    split = at.splits.task.split("train")
    estimate = gradients(at.module.rule, at.module.network, split.x, split.target).grads["W_rec"].double()
    true = gradients("bptt", at.module.network, split.x, split.target).grads["W_rec"].double()
    rho = (estimate * true).sum() / true.square().sum()
    assert row["alignment/rho/W_rec"] == pytest.approx(rho.item(), rel=1e-4)
    remainder = (estimate - rho * true).norm() / true.norm()
    assert row["alignment/orthogonal/W_rec"] == pytest.approx(remainder.item(), rel=1e-4)


def test_alignment_by_hand():
    row = alignment(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 0.0]))
    assert row == {"rho": 1.5, "cosine": pytest.approx(0.6), "orthogonal": 2.0}
    assert all(np.isnan(v) for v in alignment(torch.ones(2), torch.zeros(2)).values())


@pytest.mark.parametrize("measurement", [GeneralizationGap(), Sharpness(samples=8, released=True), Alignment(8)])
@pytest.mark.parametrize("training", [True, False])
def test_a_measurement_leaves_no_trace(measurement, training):
    at = evaluation()
    module = at.module.train(training)
    for p in module.parameters():
        p.grad = torch.full_like(p, 7.0)
    weights = {n: p.detach().clone() for n, p in module.named_parameters()}
    grads = [p.grad for p in module.parameters()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    with at.undisturbed():
        measurement.measure(at)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # noqa: NPY002
    assert module.training is training
    assert all(p.grad is g and (g == 7).all() for p, g in zip(module.parameters(), grads, strict=True))
    assert all(torch.equal(p, weights[n]) for n, p in module.named_parameters())


def test_undisturbed_repairs_what_a_careless_measurement_does():
    at = evaluation()
    module = at.module.train()
    before = torch.get_rng_state()
    with at.undisturbed():
        torch.rand(3)
        random.random()
        module.eval()
        module.network.W_rec.grad = torch.ones_like(module.network.W_rec)
    assert torch.equal(torch.get_rng_state(), before)
    assert module.training
    assert module.network.training
    assert module.network.W_rec.grad is None


class Steps(Measurement):
    name = "steps"

    def __init__(self):
        self.seen = []

    def measure(self, evaluation):
        self.seen.append((evaluation.step, evaluation.epoch))
        return {}


@pytest.mark.parametrize(
    ("options", "trainer", "steps"),
    [
        ({}, {"max_epochs": 3}, [0, 5, 10, 15]),
        ({"every": 4}, {"max_steps": 10}, [0, 4, 8, 10]),
        ({"every": 5}, {"max_epochs": 2}, [0, 5, 10]),
        ({"every": 2}, {"max_epochs": 2, "accumulate_grad_batches": 2}, [0, 2, 4, 6]),
        ({"every": "log", "points": 4}, {"max_steps": 27}, [0, 1, 3, 9, 27]),
    ],
)
def test_the_clock(options, trainer, steps):
    at, counted = evaluation(), Steps()
    module = RuleTraining(at.module.network, at.module.rule, at.module.loss, Optimizer(lr=0.01))
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    fitted = pl.Trainer(**quiet, **trainer, accelerator="cpu", callbacks=[EvaluationClock(**options), counted])
    fitted.fit(module, datamodule=TaskData(at.splits.task, at.module.loss, 8, 0))
    assert [step for step, _ in counted.seen] == steps
    epochs = [epoch for _, epoch in counted.seen]
    assert epochs == sorted(epochs)
    if "accumulate_grad_batches" not in trainer:
        assert epochs == pytest.approx([step / 5 for step in steps])


@pytest.mark.parametrize(
    "make",
    [
        lambda: EvaluationClock("hour"),
        lambda: EvaluationClock(0),
        lambda: EvaluationClock("log", points=0),
        lambda: Sharpness(samples=-1),
        lambda: Alignment(samples=-1),
        lambda: GeneralizationGap(train_samples=-1),
    ],
)
def test_bad_options(make):
    with pytest.raises(BpgenError):
        make()


def test_zero_samples_switch_a_measurement_off():
    assert not Sharpness(samples=0).enabled
    assert not Alignment(samples=0).enabled


def test_the_progress_bar_follows_the_run(monkeypatch):
    at, bar = evaluation(), ProgressBar(Sharpness.columns)
    seen = []
    monkeypatch.setattr(bar._progress, "update", lambda task, **fields: seen.append(fields))
    module = RuleTraining(at.module.network, at.module.rule, at.module.loss, Optimizer(lr=0.01))
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    callbacks = [EvaluationClock().attach(Sharpness(samples=8)), bar]
    pl.Trainer(**quiet, max_epochs=2, accelerator="cpu", callbacks=callbacks).fit(
        module, datamodule=TaskData(at.splits.task, at.module.loss, 8, 0)
    )
    assert [fields["total"] for fields in seen if "total" in fields] == [10]
    assert seen[-1]["completed"] == 10
    assert ", loss " not in seen[0]["now"]  # there was no step yet
    assert seen[-1]["now"].startswith(", loss ")
    assert "sharpness" in seen[-1]["now"]
    assert not bar._progress.live.is_started


def test_the_noisy_gap_is_what_noise_costs_in_training_and_what_is_lost_from_there_to_the_test():
    at = evaluation()
    row = GeneralizationGap().measure(at)
    train = at.splits.task.split("train")
    noisy = at.noisy("train", None)
    assert (noisy.x != train.x).any()
    assert torch.equal(noisy.target, train.target)
    clean_loss, noisy_loss = (F.cross_entropy(at.module.network(x), train.target).item() for x in (train.x, noisy.x))
    assert row["gap_robustness/loss"] == pytest.approx(noisy_loss - clean_loss, rel=1e-4)
    assert row["gap_robustness/loss"] != pytest.approx(row["gap_noisy/loss"], rel=1e-2)
    for of in ("loss", "accuracy"):
        parts = row[f"gap_robustness/{of}"] + row[f"gap_generalization/{of}"]
        assert parts == pytest.approx(row[f"gap_noisy/{of}"], abs=1e-6)
