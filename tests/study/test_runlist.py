"""A study's runs as commands and as a sweep, how it stands from any shell, and failed runs done again on request."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps import utils as agents

from bpgen.cli import main
from bpgen.study.launchers import execute
from bpgen.study.runlist import commands
from tests.study.test_study import BASE, Here, Silent, study
from tests.tracking.stub import KEY, Stub

PLAN = {"name": "mini", "axes": {"rule": ["bptt", "rflo"]}, "seeds": 2}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump({**BASE, **PLAN}))
    return str(file)


def printed(capsys, *argv):
    assert main(list(argv)) == 0
    return capsys.readouterr().out


def test_commands_do_what_the_study_would_do(plan, tmp_path, capsys):
    """In any order, by anybody; the study then has nothing left to run and the same numbers as one run by itself."""
    lines = printed(capsys, "study", plan, "--seeds", "1", "--commands").splitlines()
    assert len(lines) == 2
    assert all(line.startswith("bpgen fit --config ") for line in lines)
    for line in reversed(lines):
        assert main(shlex.split(line)[1:]) == 0
    capsys.readouterr()
    assert printed(capsys, "study", plan, "--seeds", "1", "--commands") == ""
    launcher = Here()
    done = study(tmp_path / "studies" / "mini", **{**PLAN, "seeds": 1}).run(launcher, Silent())
    assert launcher.launched == []
    alone = study(tmp_path / "alone", **{**PLAN, "seeds": 1}).run(Here(), Silent())
    assert done.table.drop(columns="run").equals(alone.table.drop(columns="run"))


def test_what_was_begun_is_continued(tmp_path):
    mine = study(tmp_path, axes={"rule": ["bptt"]}, seeds=2)
    done = mine.run(Here(), Silent())
    (done.runs[1].folder.path / "summary.json").unlink()
    (line,) = commands(mine)
    assert line == f"bpgen fit --resume {done.runs[1].folder.path}"
    assert main(shlex.split(line)[1:]) == 0
    assert commands(mine) == []


@pytest.mark.slow
def test_a_tuned_study_hands_out_its_tuning_first(tmp_path):
    tune = {"axes": {"optimizer.lr": [0.01, 0.02]}, "seeds": [9]}
    mine = study(tmp_path, axes={"rule": ["bptt"]}, seeds=1, tune=tune)
    lines = commands(mine)
    assert len(lines) == 2
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0
    (line,) = commands(mine)
    config = yaml.safe_load(Path(shlex.split(line)[-1]).read_text())
    assert config["seed"] == 0
    assert config["optimizer"]["lr"] in (0.01, 0.02)


def test_status_names_what_failed_and_why_and_retry_does_it_again(plan, tmp_path, capsys):
    class Broken(Here):
        def launch(self, jobs):
            for job in jobs:
                if job.config["seed"] == 1:
                    job.config["network"] = {**job.config["network"], "n_rec": -3}  # leaves no folder
                yield execute(job)

    mine = study(tmp_path / "studies" / "mini", **PLAN)
    done = mine.run(Broken(), Silent())
    folder = done.runs[0].folder
    folder.write_summary({**folder.summary(), "status": "failed", "message": "rule bptt failed: a reason"})
    text = printed(capsys, "study", plan, "--status")
    assert "bptt, seed 0: failed: rule bptt failed: a reason" in text
    assert "rflo, seed 1: failed: " in text
    assert "n_rec must be a positive number" in text
    assert "--retry" in text
    again = Here()
    assert [run.status for run in mine.run(again, Silent()).runs] == ["failed", *["finished"] * 3]
    assert len(again.launched) == 2  # what left no folder has never been run; what failed stands
    last = Here()
    assert {run.status for run in mine.run(last, Silent(), retry=True).runs} == {"finished"}
    assert [job.config["rule"]["name"] for job in last.launched] == ["bptt"]


def test_status_needs_no_study(plan, capsys, tmp_path):
    assert "bptt" in printed(capsys, "study", plan, "--status")
    assert not (tmp_path / "studies").exists()
    assert main(["study", plan, "--status", "--commands"]) == 2


@pytest.mark.slow
def test_a_sweep_is_done_by_an_agent(plan, capsys, tmp_path):
    """Its command as wandb's own agent makes it, against a server; the study finds the run."""
    printed(capsys, "study", plan, "--sweep", "sweep.yaml")
    content = yaml.safe_load((tmp_path / "sweep.yaml").read_text())
    values = content["parameters"]["config"]["values"]
    assert (content["method"], len(values)) == ("grid", 4)
    sent = {"program": content["program"], "args": {"config": {"value": values[1]}}}
    known = {**agents.create_sweep_command_args(sent), "env": ["/usr/bin/env"]}
    parts = agents.create_sweep_command(content["command"])
    argv = [word for part in parts for word in (known[part[2:-1]] if part.startswith("${") else [part])]
    with Stub() as stub:
        ours = {"WANDB_BASE_URL": stub.url, "WANDB_API_KEY": KEY, "WANDB_SWEEP_ID": "sweep1", "WANDB_RUN_ID": "run1"}
        environment = {**{k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}, **ours}
        argv = [sys.executable, "-m", "bpgen", *argv[argv.index("fit") :]]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        assert stub.run["name"] == "run1"
        assert stub.run["sweep"] == "sweep1"
        assert stub.config["rule"]["name"] == "rflo"
        assert stub.run["groupName"] == "mini"
        tracking = stub.config["tracking"]
        assert (tracking["study"], tracking["condition"]) == ("mini", "rflo")
        assert len([row for row in stub.history if "train/loss" in row]) == 3
    assert "finished" in printed(capsys, "ls", "studies/mini")
    printed(capsys, "study", plan, "--sweep", "sweep.yaml")
    assert len(yaml.safe_load((tmp_path / "sweep.yaml").read_text())["parameters"]["config"]["values"]) == 3
