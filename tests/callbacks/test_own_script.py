"""Measurements in a user's own script, without the command line: Lightning's trainer, a list of callbacks, any data."""

import math

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import bpgen
from bpgen import Network, sharpness
from bpgen.callbacks import (
    Alignment,
    EvaluationClock,
    GeneralizationGap,
    Measurement,
    Preconditioned,
    Sharpness,
    Spectrum,
    Stability,
)
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.neurons import LIF, Leaky
from bpgen.training.data import TaskData
from bpgen.training.module import RuleTraining
from bpgen.training.options import Optimizer
from tests.callbacks.test_measurements import Toy

T, I, O = 5, 3, 4
QUIET = dict.fromkeys(("enable_progress_bar", "enable_model_summary"), False)


def network(neuron=None):
    return Network(neuron or Leaky(0.5), I, 8, O, seed=1)


def trainer(*callbacks, logger=False, **options):
    given = {"max_epochs": 2, "enable_checkpointing": False, "accelerator": "cpu", **options}
    return pl.Trainer(**QUIET, **given, logger=logger, callbacks=list(callbacks))


def time_first(items):
    xs, ys = zip(*items, strict=True)
    return torch.stack(xs, 1), torch.stack(ys)


def loader(n, seed=0, shuffle=True, **options):
    random = torch.Generator().manual_seed(seed)
    data = TensorDataset(torch.rand(n, T, I, generator=random), torch.randint(O, (n,), generator=random))
    return DataLoader(data, batch_size=8, shuffle=shuffle, collate_fn=time_first, **options)


class Batches:
    """The barest loader there is."""

    def __init__(self, batches):
        self.batches = list(batches)

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


class OwnData(pl.LightningDataModule):
    def train_dataloader(self):
        return loader(40)

    def val_dataloader(self):
        return loader(16, 1, shuffle=False)

    def setup(self, stage):
        if stage == "test":
            self.test = loader(24, 2, shuffle=False)

    def test_dataloader(self):
        return self.test


MEASUREMENTS = {
    "gap": lambda: GeneralizationGap(),
    "sharpness": lambda: Sharpness(samples=16, released=True),
    "alignment": lambda: Alignment(samples=16),
    "stability": lambda: Stability(samples=8, top=1, probes=1),
    "spectrum": lambda: Spectrum(samples=8, top=1, trace_products=0, density_probes=2),
    "preconditioned": lambda: Preconditioned(samples=8),
}
DATA = {
    "a task": lambda: {"datamodule": TaskData(Toy(), Loss(), 8)},
    "a data module": lambda: {"datamodule": OwnData()},
    "a loader": lambda: {"train_dataloaders": loader(40)},
    "batches": lambda: {"train_dataloaders": Batches(loader(40))},
    "batches as the items of a loader": lambda: {"train_dataloaders": DataLoader(list(loader(40)), batch_size=None)},
    "batches with a mask": lambda: {"train_dataloaders": Batches((x, y, None) for x, y in loader(40))},
}


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("name", MEASUREMENTS)
def test_each_alone_on_any_data(name, data):
    measurement = MEASUREMENTS[name]()
    fitted = trainer(measurement)
    fitted.fit(RuleTraining(network(), "rflo"), **DATA[data]())
    assert [row["step"] for row in measurement.rows] == [0, 5, 10]
    assert [row["epoch"] for row in measurement.rows] == [0, 1, 2]
    own = [column.name for column in measurement.columns if not column.optional]
    for row in measurement.rows:
        assert set(own) <= set(row)
        for key, value in row.items():
            missing = data not in ("a task", "a data module") and key.startswith(
                ("val", "test", "gap", "sharpness/rel")
            )
            noise = data == "a data module" and "noisy" in key
            assert math.isnan(value) == (missing or noise) or name == "stability", key
    assert fitted.callback_metrics[list(measurement.rows[-1])[-1]] == pytest.approx(
        list(measurement.rows[-1].values())[-1], nan_ok=True
    )


def test_several_share_one_clock_and_a_row_is_complete(tmp_path):
    gap, sharp, aligned = GeneralizationGap(), Sharpness(samples=16), Alignment(samples=16)
    fitted = trainer(gap, sharp, aligned, logger=CSVLogger(tmp_path, name="", version=""))
    fitted.fit(RuleTraining(network(), "rflo"), datamodule=TaskData(Toy(), Loss(), 8))
    clocks = [callback for callback in fitted.callbacks if isinstance(callback, EvaluationClock)]
    assert len(clocks) == 1
    assert clocks[0].seconds.keys() == {"gap", "sharpness", "alignment"}
    table = pd.DataFrame(clocks[0].rows)
    assert table["step"].tolist() == [0, 5, 10]
    columns = [c.name for m in (gap, sharp, aligned) for c in m.columns if not c.optional]
    assert table[columns].notna().all(axis=None)
    logged = pd.read_csv(tmp_path / "metrics.csv")
    assert logged["step"].tolist() == [0, 5, 10]
    for name in columns:
        assert logged[name].tolist() == pytest.approx(table[name].tolist(), rel=1e-6)


@pytest.mark.parametrize("before", [True, False])
def test_an_explicit_clock_wins(before):
    clock, gap = EvaluationClock(every=3), GeneralizationGap()
    fitted = trainer(*((clock, gap) if before else (gap, clock)), max_epochs=-1, max_steps=7)
    fitted.fit(RuleTraining(network(), "rflo"), datamodule=TaskData(Toy(), Loss(), 8))
    assert [row["step"] for row in gap.rows] == [row["step"] for row in clock.rows] == [0, 3, 6, 7]
    assert sum(isinstance(callback, EvaluationClock) for callback in fitted.callbacks) == 1


def test_the_numbers_are_those_of_the_functions():
    data, net, sharp = OwnData(), network(), Sharpness(samples=40)
    gap = GeneralizationGap()
    trainer(sharp, gap).fit(RuleTraining(net, "bptt", optimizer=Optimizer(lr=0.1)), datamodule=data)
    x, y = (
        torch.cat(parts, axis) for parts, axis in zip(zip(*loader(40, shuffle=False), strict=True), (1, 0), strict=True)
    )
    assert sharp.rows[-1]["sharpness/lambda_max"] == pytest.approx(sharpness(net, x, y).eigenvalues[0].item(), rel=1e-3)
    for split, batches in (("train", [(x, y)]), ("val", data.val_dataloader()), ("test", data.test_dataloader())):
        hits = torch.cat([net(x).argmax(-1) == y for x, y in batches])
        assert gap.rows[-1][f"{split}/accuracy"] == pytest.approx(hits.float().mean().item())
    assert gap.rows[-1]["train/loss"] < gap.rows[0]["train/loss"]


def test_the_subset_of_a_shuffling_loader_is_fixed_and_training_is_not_disturbed():
    def run(*callbacks):
        torch.manual_seed(3)
        net = network()
        trainer(*callbacks).fit(RuleTraining(net, "bptt", optimizer=Optimizer(lr=0.1)), loader(40))
        return net

    alone, first, second = run(), Sharpness(samples=12), Sharpness(samples=12)
    measured = run(first, GeneralizationGap(train_samples=7))
    run(second)
    assert first.rows == second.rows
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), measured.parameters(), strict=True))


def test_other_callbacks_monitor_any_column(tmp_path):
    best = ModelCheckpoint(tmp_path, monitor="val/loss", filename="{step}", save_on_train_epoch_end=True)
    stop = EarlyStopping("train/loss", min_delta=1e9, patience=1, check_on_train_epoch_end=True)
    gap = GeneralizationGap()
    fitted = trainer(stop, best, gap, max_epochs=50, enable_checkpointing=True)
    fitted.fit(RuleTraining(network(), "bptt"), datamodule=TaskData(Toy(), Loss(), 8))
    assert gap.rows[-1]["step"] == 10  # the first epoch sets the mark, the second does not pass it
    assert best.best_model_score == pytest.approx(min(row["val/loss"] for row in gap.rows[1:]))


class Norm(Measurement):
    name = "norm"

    def measure(self, evaluation):
        return self.prefixed({"W_rec": evaluation.network.W_rec.norm().item()})


def test_a_measurement_of_ones_own_and_the_same_one_twice():
    norm, again = Norm(), Norm().named("again")
    fitted = trainer(norm, again)
    fitted.fit(RuleTraining(network(), "rflo"), loader(40))
    assert [row["norm/W_rec"] for row in norm.rows] == [row["again/W_rec"] for row in again.rows]
    assert fitted.callback_metrics["again/W_rec"] == pytest.approx(norm.rows[-1]["norm/W_rec"])
    with pytest.raises(BpgenError, match=r"two measurements give norm/W_rec.*named"):
        trainer(Norm(), Norm()).fit(RuleTraining(network(), "rflo"), loader(40))


def test_both_blocks_side_by_side():
    recurrent, every = Sharpness(samples=16), Sharpness(samples=16, block="all").named("sharpness_all")
    trainer(recurrent, every).fit(RuleTraining(network(), "bptt"), loader(40))
    for a, b in zip(recurrent.rows, every.rows, strict=True):
        assert b["sharpness_all/lambda_max"] > a["sharpness/lambda_max"]


def test_spiking_neurons_have_their_own_names():
    sharp = Sharpness(samples=8)
    trainer(sharp).fit(RuleTraining(network(LIF()), "rflo"), loader(40))
    names = {column.name for column in sharp.columns}
    assert {name for name in sharp.rows[0] if name not in ("epoch", "step")} <= names
    assert all("surrogate" in name for name in sharp.rows[0] if name not in ("epoch", "step"))


def test_rule_and_loss_by_name_and_values_as_targets():
    random = torch.Generator().manual_seed(0)
    batches = [(torch.rand(T, 8, I, generator=random), torch.rand(8, O, generator=random)) for _ in range(5)]
    gap = GeneralizationGap()
    trainer(gap).fit(RuleTraining(network(), "rflo", "mse", Optimizer(lr=0.05)), Batches(batches), Batches(batches))
    assert gap.rows[-1]["train/loss"] < gap.rows[0]["train/loss"]
    assert gap.rows[-1]["val/loss"] == pytest.approx(gap.rows[-1]["train/loss"])
    assert math.isnan(gap.rows[-1]["train/accuracy"])  # values without a tolerance


@pytest.mark.parametrize(
    ("batches", "says"),
    [
        ([{"x": torch.zeros(T, 2, I)}], "a batch must be .*got a dict"),
        ([(torch.zeros(T, 2, I),)], "a batch must be .*got a tuple of 1"),
        ([([1.0, 2.0], [1])], r"x of a batch must be \[T,B,I\] \(time first\), got \[2\]"),
        ([(torch.zeros(T, 2, I), ["a", "b"])], "the target of a batch must be numbers"),
        ([(torch.full((T, 2, I), math.nan), torch.tensor([1, 2]))], "x of a batch holds 30 nan or infinite values"),
        ([(torch.zeros(T, 2, I), torch.zeros(T, 2).long(), -torch.ones(T, 2))], "finite numbers >= 0"),
        ([(torch.zeros(2, T, 7), torch.zeros(2, dtype=torch.int64))], r"x must be \[T,B,I\] with I=3"),
        ([(torch.zeros(T, 2, I), torch.tensor([1, 9]))], r"classes 0\.\.3"),
        ([(torch.zeros(T, 2, I, dtype=torch.float64), torch.tensor([1, 2]))], "float64, the network is torch.float32"),
    ],
)
def test_batches_that_do_not_fit_are_named(batches, says):
    with pytest.raises(BpgenError, match=says):
        trainer().fit(RuleTraining(network(), "rflo"), Batches(batches))


def of_arrays(x, target, mask):
    """The gradient that training takes of one batch."""
    module = RuleTraining(network(), "bptt", Loss("cross_entropy", "all"))
    trainer(max_steps=1).fit(module, Batches([(x, target, mask)]))
    return module.network.W_rec.detach()


def test_arrays_lists_and_padding_are_the_tensors_they_mean():
    random = torch.Generator().manual_seed(0)
    x, target = torch.rand(T, 2, I, generator=random), torch.randint(O, (T, 2), generator=random)
    mask = torch.ones(T, 2)
    mask[3:, 1] = 0
    expected = of_arrays(x, target, mask)
    assert not torch.equal(of_arrays(x, target, torch.ones(T, 2)), expected)
    for give in (Tensor.numpy, Tensor.tolist, lambda t: t.to(torch.int32) if not t.is_floating_point() else t):
        x_given = x.numpy() if give is Tensor.tolist else give(x)  # a list of floats is of double precision
        assert torch.equal(of_arrays(x_given, give(target), give(mask)), expected)
    off = mask == 0
    padded = x.masked_fill(off.unsqueeze(-1), math.nan), target.masked_fill(off, -100), mask
    assert torch.equal(of_arrays(*padded), expected)


def test_a_checkpoint_is_loaded_with_what_its_weights_belong_to(tmp_path):
    first = RuleTraining(network(), "rflo", seed=3)
    there = trainer(max_epochs=1)
    there.fit(first, loader(40))
    there.save_checkpoint(file := tmp_path / "own.ckpt")
    with pytest.raises(BpgenError, match=r"not the network and the rule they belong to.*bpgen.load_run"):
        RuleTraining.load_from_checkpoint(file)
    again = RuleTraining.load_from_checkpoint(file, network=network(), rule="rflo", optimizer=Optimizer(lr=0.05))
    assert all(torch.equal(w, again.state_dict()[name]) for name, w in first.state_dict().items())
    assert "rule.feedback.weight" in first.state_dict()
    assert again.optimizer.lr == 0.05
    run = bpgen.fit(rule="rflo", task="digits", network={"n_rec": 6}, trainer={"max_steps": 2}, out=str(tmp_path))
    of_run = RuleTraining.load_from_checkpoint(run.folder.checkpoint, network=run.network, rule=run.rule)
    assert of_run.loss.kind == "cross_entropy"


def test_what_cannot_be_measured_is_said_before_the_first_step():
    with pytest.raises(BpgenError, match=r"needs --optimizer.name sgd"):
        trainer(Stability(samples=8)).fit(RuleTraining(network(), "rflo", optimizer=Optimizer("adam")), loader(40))
    with pytest.raises(BpgenError, match="has no length"):
        trainer(GeneralizationGap(train_samples=None), max_steps=2).fit(
            RuleTraining(network(), "rflo"), (b for b in loader(40))
        )
    with pytest.raises(BpgenError, match="RuleTraining"):
        trainer(Norm()).fit(BoringModel())
