"""What may change in a run while it goes on: its learning rate and its length; recorded, and as from the beginning."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import bpgen
from bpgen.cli import main
from bpgen.errors import BpgenError
from bpgen.run.changes import history
from bpgen.run.folder import RunFolder

TINY = [
    *("--network.n_rec", "8", "--evaluation.every", "2", "--wandb", "off", "--trainer.max_steps", "4"),
    *("--sharpness.samples", "0", "--alignment.samples", "0", "--gap.train_samples", "8", "--gap.test_samples", "8"),
]


def fit(out, *options):
    assert main(["fit", *TINY, "--out", str(out), *options]) == 0
    return next(out.iterdir())


def go_on(run, *changes, code=0):
    assert main(["fit", "--resume", str(run), *(part for change in changes for part in ("--set", change))]) == code


def weights(run):
    return {s: torch.load(file)["network"] for s, file in RunFolder(run).weights().items()}


def same(a, b):
    assert (a / "metrics.csv").read_bytes() == (b / "metrics.csv").read_bytes()
    a, b = weights(a), weights(b)
    assert list(a) == list(b)
    for step in a:
        for name in a[step]:
            assert torch.equal(a[step][name], b[step][name]), (step, name)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--optimizer.name", "adam", "--optimizer.lr", "0.01"),
        ("--rule", "rtrl", "--trainer.chunk", "3"),
        ("--schedule.name", "exponential", "--schedule.every", "3", "--optimizer.lr_scale", '{"W_out": 0.1}'),
        ("--trainer.accumulate", "2"),
    ],
    ids=["sgd", "adam", "chunks", "schedule", "accumulate"],
)
def test_a_finished_run_goes_on_as_if_it_had_been_longer_all_along(options, tmp_path, capsys):
    run, whole = fit(tmp_path / "a", *options), fit(tmp_path / "b", *options, "--trainer.max_steps", "10")
    go_on(run, "trainer.max_steps=10")
    assert "from step 4 on: trainer.max_steps 10 (before: 4)" in capsys.readouterr().out
    same(run, whole)
    summaries = [json.loads((r / "summary.json").read_text()) for r in (run, whole)]
    assert summaries[0]["config_hash"] == summaries[1]["config_hash"]
    assert (history(run)[0]["step"], history(run)[0]["changed"]) == (4, {"trainer.max_steps": [4, 10]})


def test_a_run_of_epochs_goes_on_for_more_of_them(tmp_path):
    epochs = ("--trainer.max_steps", "null", "--trainer.batch_size", "512", "--evaluation.every", "epoch")
    run = fit(tmp_path / "a", *epochs, "--trainer.max_epochs", "2")
    whole = fit(tmp_path / "b", *epochs, "--trainer.max_epochs", "4")
    go_on(run, "trainer.max_epochs=4")
    same(run, whole)


def test_a_schedule_over_epochs_is_stretched(tmp_path):
    epochs = ("--trainer.max_steps", "null", "--trainer.batch_size", "512", "--evaluation.every", "epoch")
    run = fit(tmp_path, *epochs, "--trainer.max_epochs", "2", "--schedule.name", "cosine")
    go_on(run, "trainer.max_epochs=4")
    table = pd.read_csv(run / "metrics.csv")
    assert table["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert table["lr"].iloc[3] == pytest.approx(0.02 * 0.5 * (1 + np.cos(np.pi * 9 / 12)), abs=1e-9)


def test_another_learning_rate_from_a_step_on(tmp_path):
    run = fit(tmp_path)
    go_on(run, "trainer.max_steps=8", "optimizer.lr=0.5")
    assert pd.read_csv(run / "metrics.csv")["lr"].tolist() == [0.02, 0.02, 0.02, 0.5, 0.5]
    assert bpgen.load_run(run).config["optimizer"]["lr"] == 0.5
    entry = history(run)[0]["changed"]
    assert entry == {"trainer.max_steps": [4, 8], "optimizer.lr": [0.02, 0.5]}
    go_on(run, "trainer.max_steps=10", "schedule.name=cosine")
    lr = pd.read_csv(run / "metrics.csv")["lr"].iloc[-1]
    assert lr == pytest.approx(0.5 * 0.5 * (1 + np.cos(np.pi * 10 / 10)), abs=1e-9)
    assert len(history(run)) == 2


def test_a_killed_run_goes_on_with_what_was_changed(tmp_path):
    run = fit(tmp_path)
    copy = shutil.copytree(run, tmp_path / "copy")
    go_on(run, "trainer.max_steps=8", "optimizer.lr=0.5")
    last = RunFolder(copy)  # as a run that was killed after the change, before its next checkpoint
    for name in ("config.yaml", "changes.json"):
        shutil.copy(run / name, copy / name)
    (copy / "summary.json").unlink()
    assert main(["fit", "--resume", str(copy)]) == 0
    assert last.rows() == RunFolder(run).rows()
    text = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(text.replace("lr: 0.5", "lr: 0.6"))  # not recorded
    go_on(copy, "trainer.max_steps=12", code=2)


def test_an_extended_run_that_is_stopped_before_its_first_step_goes_on(tmp_path, monkeypatch):
    run = fit(tmp_path)

    def stopped(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bpgen.run.resume.carry_out", stopped)
        go_on(run, "trainer.max_steps=6", code=130)
    go_on(run)
    assert [row["step"] for row in RunFolder(run).rows()] == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("network.n_rec=9", "unknown option to change in a run 'network.n_rec'"),
        ("optimizer.rl=1", "Did you mean 'optimizer.lr'"),
        ("optimizer.lr=-1", "optimizer.lr must be > 0"),
        ("optimizer.lr=fast", "lr must be a number"),
        ("trainer.max_steps=4", "nothing changes"),
        ("trainer.max_steps=3", "is finished at step 4"),
        ("optimizer.lr", "--set KEY=VALUE"),
    ],
)
def test_what_cannot_change_is_refused_and_nothing_is_written(change, said, tmp_path, capsys):
    run = fit(tmp_path)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    go_on(run, change, code=2)
    assert said in capsys.readouterr().err
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


# data of a user's own


@pytest.fixture
def ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _data(1)
    return fit(tmp_path / "runs", "--task", "npz", "--task.file", "data.npz")


def _data(seed, n=60):
    random = np.random.default_rng(seed)
    np.savez("data.npz", x=random.normal(size=(5, n, 3)), y=np.arange(n) % 2)


def test_data_that_changed_are_refused_wherever_they_are_measured(ours, capsys):
    assert main(["sharpness", str(ours), "--samples", "8"]) == 0
    _data(2)
    capsys.readouterr()
    assert main(["sharpness", str(ours), "--samples", "8"]) == 2
    assert "of the same shapes, other values" in capsys.readouterr().err
    go_on(ours, "trainer.max_steps=8", code=2)
    with pytest.warns(UserWarning, match="are not those that"):
        bpgen.load_run(ours)
    _data(1)
    go_on(ours, "trainer.max_steps=8")


def test_data_are_found_from_wherever_a_run_is_read(ours, tmp_path, monkeypatch):
    facts = json.loads((ours / "data.json").read_text())
    assert facts["places"] == {"file": str(tmp_path / "data.npz")}
    assert facts["splits"]["train"]["x"][::2] == [5, 3]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["sharpness", str(ours), "--samples", "8"]) == 0
    go_on(ours, "trainer.max_steps=6")
    go_on(ours, "trainer.max_steps=8")
    assert "file: data.npz" in (ours / "config.yaml").read_text()


def test_tasks_that_draw_their_data_have_nothing_to_remember(tmp_path):
    assert not (fit(tmp_path) / "data.json").exists()


def test_a_damaged_history_is_named(tmp_path):
    run = fit(tmp_path)
    (run / "changes.json").write_text("[1]")
    with pytest.raises(BpgenError, match=r"changes.json is damaged"):
        history(run)
    go_on(run, "trainer.max_steps=8", code=2)
