"""Runs that version 0.1 made, kept as it wrote them: read, measured again, recognised, and continued."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import bpgen
from bpgen.cli import main
from bpgen.run.config import Config, as_begun, config_hash
from bpgen.run.fit import fit
from bpgen.run.folder import RunFolder
from bpgen.run.replay import evaluations, saved_steps
from bpgen.run.resume import resume
from bpgen.streams import generator
from bpgen.tasks.base import SPLITS

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
                if not column.startswith(("gap_noisy/beyond", "gap_robustness", "gap_generalization")):  # younger
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


DATA = {  # of version 0.1: SHA-256 of all splits and the noisy test set
    "adding": "c523cc940da3ca24",
    "context_decision": "79e5c3b112a996af",
    "copy_memory": "89008bc2f959c7c8",
    "cue_accumulation": "bbe63a16b2a3123e",
    "delayed_match_to_sample": "e36785d6aa4bc898",
    "delayed_recall": "66c60b39abeb4d60",
    "flip_flop": "5bfc8bc7024b85c9",
    "pattern_generation": "42a12ccd54fb8d5d",
    "perceptual_decision": "d1f369e6cda996b6",
    "romo": "adc953cec3ad792f",
    "digits": "d76a50cc6e66679c",
}


@pytest.mark.parametrize("name", DATA)
def test_the_data_that_runs_began_with_are_still_there(name):
    few = {} if name in ("digits", "delayed_recall", "pattern_generation") else dict(n_train=5, n_val=3, n_test=4)
    noise = {"noise_sd": 0.1} if name == "adding" else {}  # which configs of runs hold
    task = Config.of(as_begun({"task": {"name": name, **few, **noise}})).make_task()
    digest = hashlib.sha256()
    for split in map(task.split, SPLITS):
        for values in split:
            digest.update(b"" if values is None else values.contiguous().numpy().tobytes())
    noisy = task.perturb(task.split("test").x, generator(0, "test noise"))
    digest.update(noisy.contiguous().numpy().tobytes())
    assert digest.hexdigest()[:16] == DATA[name]


@pytest.mark.parametrize(("name", "option", "before"), [("copy_memory", "held_out", False)])
def test_a_run_of_a_task_that_changed_goes_on_with_its_own(tmp_path, name, option, before):
    plain = {
        "task": {"name": name, "n_train": 40, "n_val": 8, "n_test": 8, option: before},
        "network": {"n_rec": 4},
        "sharpness": {"samples": 0},
        "alignment": {"samples": 0},
        "trainer": {"max_epochs": 2},
        "out": str(tmp_path),
        "wandb": "off",
    }
    whole = fit(Config.of(plain), draw=False).folder
    task = bpgen.load_run(whole.path).task
    cut = RunFolder(shutil.copytree(whole.path, tmp_path / "cut"))
    text = (cut.path / "config.yaml").read_text()
    (cut.path / "config.yaml").write_text(text.replace(f"  {option}: {str(before).lower()}\n", ""))
    (cut.path / "summary.json").unlink()
    assert option not in cut.plain_config()["task"]
    assert torch.equal(bpgen.load_run(cut.path).task.split("test").x, task.split("test").x)
    assert resume(str(cut.path), draw=False).status == "finished"
    assert cut.metrics_file.read_text() == whole.metrics_file.read_text()


def test_its_edited_config_is_refused_by_the_hash_in_its_summary(interrupted, capsys):
    config = interrupted / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.05", "lr: 0.5"))
    assert main(["fit", "--resume", str(interrupted)]) == 2
    assert "was edited since the run began" in capsys.readouterr().err


def test_its_curvature_and_stability_are_measured_from_the_command_line(capsys):
    for command in ("sharpness", "stability"):
        assert main([command, str(OLD / "finished"), "--samples", "8", "--json"]) == 0
