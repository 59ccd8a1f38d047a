"""A study in its folder: what it runs, continues, skips, lists and collects."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml

from bpgen.cli import main
from bpgen.cli.options import resolve
from bpgen.errors import BpgenError
from bpgen.study.launchers import Job, Launcher, execute
from bpgen.study.launchers.local import LocalPool
from bpgen.study.locks import study_lock
from bpgen.study.plan import read_plan
from bpgen.study.progress import PrintedProgress
from bpgen.study.study import Study
from tests.study import killer

BASE = {
    "base": "digits",
    "set": {"trainer.max_steps": 4, "network.n_rec": 8, "evaluation.every": 2, "sharpness.max_products": 4},
    "measure": {"sharpness": {"samples": 16}, "alignment": {"samples": 16}, "gap": {"train_samples": 32}},
}


class Here(Launcher):
    """A launcher of another kind: everything in this process, in order."""

    def __init__(self):
        self.launched = []

    def launch(self, jobs):
        for job in jobs:
            self.launched.append(job)
            yield execute(job)


class Silent(PrintedProgress):
    def stage(self, title, runs, processes):
        pass

    def ended(self, run):
        pass


def study(folder, name="s", **content):
    return Study(read_plan({**BASE, "name": name, **content}, name), folder, resolve)


def test_runs_are_ordinary_runs_and_are_not_repeated(tmp_path):
    content = {"axes": {"rule": ["bptt", "rflo"]}, "seeds": 2}
    launcher = Here()
    done = study(tmp_path, **content).run(launcher, Silent())
    assert [job.config["seed"] for job in launcher.launched] == [0, 0, 1, 1]  # stopped early, it has complete pairs
    assert [(r.condition.label, r.seed, r.status) for r in done.runs] == [
        (rule, seed, "finished") for rule in ("bptt", "rflo") for seed in (0, 1)
    ]
    table = pd.read_csv(tmp_path / "table.csv")
    assert len(table) == 4 * 3  # evaluations at the steps 0, 2, 4
    assert not table.duplicated(["condition", "seed", "step"]).any()
    assert set(table["alpha"]) == {0.5}
    assert not table["reuses_training"].any()
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 4

    alone_folder = tmp_path / "alone"
    config = done.runs[3].folder.path / "config.yaml"
    assert main(["fit", "--config", str(config), "--out", str(alone_folder)]) == 0
    (other,) = alone_folder.iterdir()
    assert (other / "metrics.csv").read_bytes() == (done.runs[3].folder.path / "metrics.csv").read_bytes()

    again = Here()
    study(tmp_path, **content).run(again, Silent())
    assert again.launched == []
    more = Here()
    study(tmp_path, **{**content, "seeds": 3}).run(more, Silent())
    assert sorted((j.config["rule"]["name"], j.config["seed"]) for j in more.launched) == [("bptt", 2), ("rflo", 2)]
    assert len(pd.read_csv(tmp_path / "table.csv")) == 6 * 3


def test_an_interrupted_run_is_continued_and_a_barely_begun_one_starts_again(tmp_path):
    content = {"axes": {"rule": ["bptt"]}, "seeds": 2}
    whole = study(tmp_path / "whole", **content).run(Here(), Silent())
    done = study(tmp_path / "cut", **content).run(Here(), Silent())
    begun, barely = (run.folder.path for run in done.runs)
    (begun / "summary.json").unlink()
    (barely / "summary.json").unlink()
    for file in (barely / "checkpoints").iterdir():
        file.unlink()
    launcher = Here()
    again = study(tmp_path / "cut", **content).run(launcher, Silent())
    assert [bool(job.resume) for job in launcher.launched] == [True, False]
    assert again.table.drop(columns="run").equals(whole.table.drop(columns="run"))


def test_a_run_that_another_process_is_at_work_on_is_left_to_it(tmp_path):
    """As when two engines work on one study: no run is done twice, and the next call finds what the other did."""
    content = {"axes": {"rule": ["bptt"]}, "seeds": 1}
    (tmp_path / "logs").mkdir()
    (run,) = study(tmp_path, **content).main_runs([])
    job = run.job(tmp_path)
    hold = "import sys, time; from pathlib import Path; from bpgen.study.locks import run_lock\n"
    hold += "with run_lock(Path(sys.argv[1]), sys.argv[2]) as mine: print(mine, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path), job.name], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"True\n"
        assert execute(job).status == "waiting"
        other.kill()
    assert execute(job).status == "finished"
    again = execute(job)  # asked for before, done meanwhile
    assert again.status == "finished"
    assert len(list((tmp_path / "runs").glob("**/config.yaml"))) == 1


def test_diverged_and_failed_runs_are_listed_with_their_reason_and_stop_nobody(tmp_path):
    def broken(jobs):
        for job in jobs:
            if job.config["seed"] == 1:
                job.config["network"] = {**job.config["network"], "n_rec": -3}
            yield execute(job)

    launcher = Here()
    launcher.launch = broken
    axes = {"rule": ["bptt"], "optimizer.lr": [0.02, 1e8]}
    done = study(tmp_path, axes=axes, seeds=2).run(launcher, Silent())
    assert [run.status for run in done.runs] == ["finished", "failed", "diverged", "failed"]
    assert "n_rec must be a positive number" in done.runs[1].message
    assert "learning rate 1e+08" in done.runs[2].message
    listed = pd.read_csv(tmp_path / "runs.csv").set_index(["condition", "seed"])["reason"]
    assert listed.notna().sum() == 3
    again = Here()
    done = study(tmp_path, axes=axes, seeds=2).run(again, Silent())
    assert len(again.launched) == 2  # what failed is tried again; what diverged is an answer
    assert {job.config["seed"] for job in again.launched} == {1}
    from bpgen.study.report import report_study

    text = report_study(done, "bpgen study s")
    assert "## Runs that did not finish" in text
    assert "learning rate 1e+08" in text


@pytest.mark.slow
def test_nuisance_parameters_are_tuned_on_validation_data_for_every_rule(tmp_path):
    tune = {"axes": {"optimizer.lr": [1e-6, 0.05, 1e8], "rule.scale": [0.5, 1.0]}, "seeds": [90, 91]}
    launcher = Here()
    done = study(tmp_path, axes={"rule": ["bptt", "rflo"]}, seeds=1, tune=tune).run(launcher, Silent())
    assert len(done.tuning) == (3 + 6) * 2  # bptt has no scale: its candidates are the learning rates
    table = pd.read_csv(tmp_path / "tuning.csv")
    assert len(table) == 9
    scores = {}
    for run in done.tuning:
        rows = run.folder.rows()
        score = rows[-1]["val/loss"] if run.status == "finished" else float("inf")
        scores.setdefault((run.condition.label, json.dumps(run.tuned)), []).append(score)
    for run in done.runs:
        own = {key[1]: sum(v) / 2 for key, v in scores.items() if key[0] == run.condition.label}
        assert json.dumps(run.tuned) == min(own, key=own.get)
        assert run.config.optimizer.lr == run.tuned["optimizer.lr"] == 0.05
        assert run.seed == 0
    assert table.groupby("condition")["chosen"].sum().tolist() == [1, 1]


def test_two_studies_cannot_share_a_folder(tmp_path):
    busy = pytest.raises(BpgenError, match="in use by another bpgen study")
    with study_lock(tmp_path), busy, study_lock(tmp_path, patience=0.1):
        pass


def test_conditions_that_are_one_run_are_refused(tmp_path):
    axes = {"rule": ["rflo", {"name": "rflo", "label": "other"}]}
    with pytest.raises(BpgenError, match="are the same run"):
        study(tmp_path, axes=axes, seeds=1)


@pytest.mark.slow
def test_kill_9_in_the_middle_and_the_same_command_again(tmp_path):
    """Finished runs stay untouched, the killed ones are continued, and the table is that of an undisturbed study."""
    content = {**BASE, "name": "k", "axes": {"rule": ["bptt", "rflo", "three_factor"]}, "seeds": 8}
    content["set"] = {**BASE["set"], "trainer.max_steps": 40, "evaluation.every": 10}
    file, folder = tmp_path / "k.yaml", tmp_path / "study"
    file.write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "bpgen", "study", str(file), "--out", str(folder), "--jobs", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not list(folder.glob("runs/*/*/summary.json")) and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert (
            process.wait() == -signal.SIGKILL
        )  # it was in the middle: of three groups of eight seeds, one is not begun
    with study_lock(folder, patience=60):  # its workers see that it is gone, and end
        pass
    before = {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in folder.glob("runs/*/*/summary.json")}
    assert 1 <= len(before) < 24
    assert not (folder / "table.csv").exists()

    launcher = Here()
    done = Study(read_plan(content, "k"), folder, resolve).run(launcher, Silent())
    killed_late = [f for f in before if f.stat().st_mtime_ns != before[f][0]]
    assert killed_late == []
    again = {(job.config["rule"]["name"], job.config["seed"]) for job in launcher.launched}
    kept = {(f.parent.parent.name, json.loads(f.read_text())["seed"]) for f in before}
    assert not again & kept
    assert len(again) + len(kept) <= 24
    assert [run.status for run in done.runs] == ["finished"] * 24
    assert done.table.groupby(["condition", "seed"])["step"].apply(list).map(tuple).unique().tolist() == [
        (0, 10, 20, 30, 40)
    ]
    fresh = Study(read_plan({**content, "seeds": 1}, "k"), tmp_path / "fresh", resolve).run(Here(), Silent())
    first = done.table[done.table["seed"] == 0].drop(columns="run").reset_index(drop=True)
    alone = fresh.table.drop(columns="run")  # the killed one trained seeds at once: other rounding
    pd.testing.assert_frame_equal(first, alone, rtol=1e-4, atol=1e-5)


def test_a_worker_killed_twice_is_given_up_and_the_others_go_on(tmp_path):
    jobs = [Job(n, {"kill": n == "b"}, None, str(tmp_path / n), str(tmp_path / "l"), os.getpid()) for n in "abc"]
    results = {r.name: r for r in LocalPool(2).launch(jobs, killer.do)}
    assert results["b"].status == "failed"
    assert "killed twice" in results["b"].message
    assert results["a"].status == results["c"].status == "finished"


def test_a_dry_run_says_what_and_how_long_and_runs_nothing(tmp_path):
    from bpgen.study.estimate import estimates, n_evaluations, n_steps

    content = {"axes": {"rule": ["bptt", "rflo"]}, "seeds": 2, "set": {**BASE["set"], "trainer.max_steps": 400}}
    plan = study(tmp_path / "s", **content)
    runs = plan.main_runs([])
    assert (n_steps(runs[0]), n_evaluations(runs[0], 400)) == (400, 201)
    guess = estimates(runs, Here())
    assert set(guess) == {"bptt", "rflo"}
    assert all("steps, timed" in e.source and e.seconds > 0 for e in guess.values())
    assert not (tmp_path / "s").exists()
    done = study(tmp_path / "t", axes={"rule": ["bptt"]}, seeds=1).run(Here(), Silent())
    longer = study(tmp_path / "t", axes={"rule": ["bptt"]}, seeds=2)
    (known,) = estimates(longer.main_runs([]), Here()).values()
    assert known.source == "mean of 1 ended runs"
    assert known.seconds == done.runs[0].seconds
