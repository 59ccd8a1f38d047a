"""The best evaluation, and training that ends when none better comes: also when the run was stopped and continued."""

import json
import math

import lightning.pytorch as pl
import pytest

import bpgen
from bpgen.callbacks import EarlyStopping, EvaluationClock
from bpgen.callbacks.best import best_of
from bpgen.cli import main
from bpgen.errors import BpgenError
from bpgen.run.replay import saved_steps

QUICK = ["--sharpness.samples", "0", "--alignment.samples", "0", "--wandb", "off", "--threads", "1"]
RUN = ["fit", "--rule", "three_factor", "--optimizer.lr", "0.5", "--evaluation.every", "3", *QUICK]


def rows(values, by="val/loss"):
    return [{"step": 10 * i, by: v} for i, v in enumerate(values)]


@pytest.mark.parametrize(
    ("by", "values", "step"),
    [
        ("val/loss", [3, 1, 2, 1], 10),
        ("val/accuracy", [0.1, math.nan, 0.4, 0.4], 20),
        ("alignment/cosine", [0.5, 0.9, 0.1], 10),
        ("gap/loss", [math.nan, math.inf], None),
    ],
)
def test_the_best_is_the_first_of_the_smallest_or_of_accuracies_the_largest(by, values, step):
    best = best_of(rows(values, by), by)
    assert (None if best is None else best.step) == step


class Fake:
    should_stop = False


@pytest.mark.parametrize(
    ("patience", "values", "stops_at"), [(2, [3, 2, 2.5, 2.1, 1], 3), (1, [1, 1], 1), (3, [3, 2, 1], None)]
)
def test_it_stops_when_the_best_is_so_many_evaluations_old(patience, values, stops_at):
    trainer, stopping = Fake(), EarlyStopping("val/loss", patience)
    for i, row in enumerate(rows(values)):
        stopping.on_evaluation(trainer, None, row)
        assert trainer.should_stop == (stops_at is not None and i >= stops_at)
        if trainer.should_stop:
            break
    other, continued = EarlyStopping("val/loss", patience), Fake()
    other.load_state_dict(stopping.state_dict())
    other.on_train_start(continued, None)
    assert continued.should_stop == trainer.should_stop


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"step": 0, "val/los": 1.0}, "Did you mean 'val/los'"),
        ({"step": 0, "val/loss": math.nan}, "no number at step 0"),
    ],
)
def test_a_column_without_numbers_is_refused_at_once(row, message):
    with pytest.raises(BpgenError, match=message):
        EarlyStopping().on_evaluation(Fake(), None, row)


def test_a_run_stops_early_and_names_its_best_network(tmp_path):
    assert main([*RUN, "--trainer.patience", "2", "--trainer.best_by", "gap/loss", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "digits-three_factor-seed0"
    summary, steps = json.loads((folder / "summary.json").read_text()), saved_steps(folder, "all").steps
    assert summary["status"] == "finished"
    assert summary["best"]["step"] == steps[-3] == saved_steps(folder, "best").steps[0]
    assert steps[-1] < 100  # thirty epochs are 2,250
    found, last = bpgen.load_run(folder, "best"), bpgen.load_run(folder)
    assert not found.network.W_rec.equal(last.network.W_rec)
    assert found.network.W_rec.equal(bpgen.load_run(folder, steps[-3]).network.W_rec)


def test_without_patience_nothing_about_a_run_changes(tmp_path):
    assert main([*RUN, "--trainer.max_steps", "12", "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "digits-three_factor-seed0" / "summary.json").read_text())
    assert summary["best"]["column"] == "val/loss"
    assert summary["last"]["step"] == 12


def test_it_works_in_a_script_of_ones_own():
    from bpgen.callbacks import GeneralizationGap
    from bpgen.training.module import RuleTraining
    from bpgen.training.options import Optimizer
    from tests.callbacks.test_own_script import loader, network

    stopping = EarlyStopping("train/loss", 1)
    trainer = pl.Trainer(
        max_epochs=50, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, logger=False,
        accelerator="cpu", callbacks=[EvaluationClock(), GeneralizationGap(), stopping],
    )  # fmt: skip
    trainer.fit(RuleTraining(network(), "bptt", optimizer=Optimizer(lr=5.0)), loader(16, shuffle=False))
    assert trainer.current_epoch < 50
    assert len(stopping.seen) == trainer.current_epoch + 1
