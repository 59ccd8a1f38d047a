"""Runs that version 0.1 made, kept as it wrote them: read, measured again, recognised, and continued."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import bpgen
from bpgen.cli import main
from bpgen.run.config import config_hash
from bpgen.run.folder import RunFolder
from bpgen.run.replay import evaluations, saved_steps

OLD = Path(__file__).with_name("runs_of_0.1")


@pytest.fixture
def interrupted(tmp_path):
    run = shutil.copytree(OLD / "interrupted", tmp_path / "run")
    (run / "figures").mkdir()  # git keeps no empty folder
    return run


def test_it_is_read_at_every_evaluation():
    for step in RunFolder(OLD / "finished").weights():
        network, rule, task, config = bpgen.load_run(OLD / "finished", step)
        saved = torch.load(OLD / "finished" / "weights" / f"step{step:08d}.pt")
        assert all(torch.equal(w, saved["network"][name]) for name, w in network.params().items())
        assert torch.equal(rule.feedback.weight, saved["rule"]["feedback.weight"])
        assert (task.n_in, config["rule"]["name"]) == (network.n_in, "rflo")


@pytest.mark.parametrize("name", ["finished", "interrupted"])
def test_it_keeps_its_name(name):
    folder = RunFolder(OLD / name)
    known = folder.summary()["config_hash"]
    assert config_hash(folder.plain_config()) == folder.config().hash == known


def test_it_is_measured_again_as_it_was():
    rows = {row["step"]: row for row in RunFolder(OLD / "finished").rows()}
    for evaluation in evaluations(saved_steps(OLD / "finished", "all")):
        row = rows[evaluation.step]
        assert (evaluation.epoch, evaluation.lr) == (row["epoch"], row["lr"])
        for name, options in (("Sharpness", {"samples": 8}), ("Alignment", {"samples": 8}), ("GeneralizationGap", {})):
            for column, value in getattr(bpgen.callbacks, name)(**options).measure(evaluation).items():
                assert value == pytest.approx(row[column], rel=1e-4, abs=1e-6, nan_ok=True), column


def test_it_is_continued_as_if_it_had_not_been_interrupted(interrupted):
    assert main(["fit", "--resume", str(interrupted)]) == 0
    mine, whole = (pd.read_csv(run / "metrics.csv") for run in (interrupted, OLD / "finished"))
    assert list(mine) == list(whole)
    np.testing.assert_allclose(mine, whole, rtol=1e-4, atol=1e-6)  # another machine rounds otherwise
    for step, file in RunFolder(OLD / "finished").weights().items():
        a, b = torch.load(file)["network"], torch.load(RunFolder(interrupted).weights()[step])["network"]
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-7)
    assert RunFolder(interrupted).summary()["config_hash"] == RunFolder(OLD / "finished").summary()["config_hash"]


def test_its_edited_config_is_refused_by_the_hash_in_its_summary(interrupted, capsys):
    config = interrupted / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.05", "lr: 0.5"))
    assert main(["fit", "--resume", str(interrupted)]) == 2
    assert "was edited since the run began" in capsys.readouterr().err


def test_its_curvature_and_stability_are_measured_from_the_command_line(capsys):
    for command in ("sharpness", "stability"):
        assert main([command, str(OLD / "finished"), "--samples", "8", "--json"]) == 0
