"""A study on a real SLURM, started on this machine: `just slurm`. It takes about ten minutes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

import bpgen
from tests.study import slurm_cluster

pytestmark = [pytest.mark.slow, pytest.mark.slurm]
TINY = {"trainer.max_steps": 4, "network.n_rec": 8, "evaluation.every": 2, "sharpness.max_products": 4}
SMALL = {"sharpness": {"samples": 16}, "alignment": {"samples": 16}, "gap": {"train_samples": 32}}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    why = slurm_cluster.missing()
    if why:
        pytest.skip(why)
    pytest.importorskip("submitit", reason="the extra `cluster` is not installed")
    with slurm_cluster.cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield {**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}


class Cluster:
    """One study, and the commands a user types for it."""

    def __init__(self, folder, environment, plan, *options):
        self.folder, self.environment = folder, environment
        (folder / "p.yaml").write_text(yaml.safe_dump({"base": "digits", "measure": SMALL, **plan}))
        self.options = ["--engine", "slurm", "--engine.every", "1", *options]

    def start(self, *options):
        command = [sys.executable, "-m", "bpgen", "study", "p.yaml", "--out", "s", *self.options, *options]
        with (self.folder / "typed.log").open("a") as log:
            options = {"cwd": self.folder, "env": self.environment, "stdout": log, "stderr": log}
            listening = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 - a shell's & ignores it
            return subprocess.Popen(command, preexec_fn=listening, **options)

    def run(self, *options, timeout=900):
        process = self.start(*options)
        assert process.wait(timeout) == 0, (self.folder / "typed.log").read_text()
        return self.rows()

    def rows(self):
        return pd.read_csv(self.folder / "s" / "runs.csv").set_index(["condition", "seed"])

    def ask(self, *command):
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        return done.stdout + done.stderr

    def starts(self):
        """Folders that runs made, and how often each was begun and continued, from what the tasks wrote."""
        return sorted(str(file.parent.relative_to(self.folder)) for file in self.folder.glob("s/runs/**/config.yaml"))

    def until(self, condition, seconds=240):
        for _ in range(2 * seconds):
            if condition():
                return
            time.sleep(0.5)
        raise AssertionError((self.folder / "typed.log").read_text() + self.ask("squeue"))


def metrics(folder):
    (file,) = folder.glob("**/metrics.csv")
    return file.read_bytes()


def test_forty_packed_runs_with_the_login_process_killed_in_the_middle(slurm, tmp_path):
    plan = {"axes": {"rule": ["bptt", "rflo"]}, "seeds": 20, "set": TINY}
    study = Cluster(tmp_path, slurm, plan, "--engine.pack", "5", "--engine.parallel", "2")
    ended = lambda: len(list(tmp_path.glob("s/fates/*.json")))  # noqa: E731
    login = study.start()
    study.until(lambda: ended() >= 3)
    login.send_signal(signal.SIGKILL)
    login.wait()
    said = study.ask(sys.executable, "-m", "bpgen", "study", "p.yaml", "--out", "s", "--engine", "slurm", "--status")
    assert re.search(r"SLURM job \d+: .*running.* of 8 tasks", said), said
    before = ended()
    study.until(lambda: ended() > before)  # nobody watches, and the work goes on
    rows = study.run()
    assert (rows["status"] == "finished").all()
    assert len(rows) == 40
    assert len(study.starts()) == 40  # a folder for each: nothing was begun twice
    assert len(list(tmp_path.glob("s/slurm/*.json"))) == 1  # nothing was submitted twice
    table = pd.read_csv(tmp_path / "s" / "table.csv")
    assert len(table) == 40 * 3
    assert not table.duplicated(["condition", "seed", "step"]).any()


def test_one_run_fails_one_is_cancelled_and_both_can_be_retried(slurm, tmp_path):
    (tmp_path / "bad.py").write_text(
        "import os, signal\n"
        "from bpgen.rules import OfflineRule\n"
        "from bpgen_rules.bptt import BPTT\n"
        "class Bad(BPTT):\n"
        "    def gradients(self, problem, draws):\n"
        "        raise ValueError('the rule is bad')\n"
        "class Killer(BPTT):\n"
        "    def gradients(self, problem, draws):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    rules = ["bptt", f"{tmp_path}/bad.py:Bad", f"{tmp_path}/bad.py:Killer"]
    labelled = [{"name": rule, "label": rule.rpartition(":")[2]} for rule in rules]
    plan = {"axes": {"rule": labelled}, "seeds": 2, "set": TINY}
    study = Cluster(tmp_path, slurm, plan, "--engine.pack", "6")
    rows = study.run()
    assert list(rows["status"]) == ["finished"] * 2 + ["failed"] * 4
    assert rows.loc[("Bad", 0), "reason"].startswith("rule Bad failed: ValueError: the rule is bad")
    assert "died twice, the second time alone" in rows.loc[("Killer", 1), "reason"]

    long = tmp_path / "long"
    long.mkdir()
    plan = {"axes": {"rule": ["bptt", "rflo"]}, "seeds": 1, "set": {**TINY, "trainer.max_steps": 100_000}}
    study = Cluster(long, slurm, plan, "--engine.pack", "1")
    login = study.start()
    study.until(lambda: len(study.starts()) == 2)
    job = re.search(r"(\d+)_0", study.ask("squeue", "-h", "-r", "-o", "%i"))
    study.ask("scancel", f"{job[1]}_0", f"{job[1]}_1")
    assert login.wait(120) == 3  # no run has finished
    rows = study.rows()
    assert list(rows["status"]) == ["failed", "failed"]
    assert rows["reason"].str.startswith("cancelled (SLURM job ").all()
    said = study.ask(sys.executable, "-m", "bpgen", "study", "p.yaml", "--out", "s", "--status")  # by no engine's name
    assert "cancelled (SLURM job" in said
    submissions = len(list(long.glob("s/slurm/*.json")))
    assert study.start().wait(120) == 3  # what was cancelled is not done again unasked
    assert len(list(long.glob("s/slurm/*.json"))) == submissions
    login = study.start("--retry")
    study.until(lambda: len(list(long.glob("s/slurm/*.json"))) == submissions + 1)
    study.until(lambda: "RUNNING" in study.ask("squeue", "-h", "-r", "-o", "%T"))
    login.send_signal(signal.SIGINT)
    assert login.wait(60) == 130
    study.ask("scancel", "--user=root")
    study.until(lambda: not study.ask("squeue", "-h").strip())


HELD = """\
import pathlib, time
from bpgen_rules.bptt import BPTT
class Held(BPTT):
    def gradients(self, problem, draws):
        if not pathlib.Path({go!r}).exists():
            time.sleep(0.5)
        return super().gradients(problem, draws)
"""
STEPS = 400  # which take longer than the time limit, as long as they are held up


class HeldUp(Cluster):
    """A study of one run, each step of which takes half a second until its task has once been taken away from it."""

    def __init__(self, folder, environment, *options):
        self.go, rule = folder / "go", folder / "held.py"
        rule.write_text(HELD.format(go=str(self.go)))
        long = {**TINY, "trainer.max_steps": STEPS, "evaluation.every": STEPS}
        super().__init__(folder, environment, {"axes": {"rule": [f"{rule}:Held"]}, "seeds": 1, "set": long}, *options)

    def checkpoints(self):
        """The last one; without a signal there is none between the first step and the last."""
        return list(self.folder.glob("s/runs/**/checkpoints/last.ckpt"))

    def to_the_end(self, login):
        """Wait for the call of the study; what was requeued runs at once, not in two minutes, and at full speed."""
        while login.poll() is None:
            queue = self.ask("squeue", "-h", "-p", "main", "-o", "%i %r").splitlines()
            for job in [line.split()[0] for line in queue if "BeginTime" in line]:
                (file,) = self.checkpoints()
                assert 0 < torch.load(file, weights_only=True)["global_step"] < STEPS  # written when it was warned
                self.go.touch()
                self.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
            time.sleep(1)
        assert login.returncode == 0, (self.folder / "typed.log").read_text()

    def assert_it_went_on_bit_for_bit(self):
        """As if nothing had been taken away: one folder, not begun anew, equal to a run from first to last step."""
        assert self.go.exists(), "nothing was requeued"
        assert list(self.rows()["status"]) == ["finished"]
        assert len(self.starts()) == 1
        assert len(list(self.folder.glob("s/slurm/*.json"))) == 1  # SLURM requeued it, nobody submitted it again
        (log,) = self.folder.glob("s/logs/*.log")  # of the process that ended it
        assert f"step {STEPS}: " in log.read_text()
        assert "step 0: " not in log.read_text()
        config = next(self.folder.glob("s/runs/**/config.yaml"))
        whole = [sys.executable, "-m", "bpgen", "fit", "--config", str(config), "--out", str(self.folder / "whole")]
        subprocess.run(whole, env=self.environment, check=True, capture_output=True)
        assert metrics(self.folder / "s" / "runs") == metrics(self.folder / "whole")
        one, other = (last_weights(self.folder / name) for name in ("s/runs", "whole"))
        assert all(torch.equal(one[name], other[name]) for name in one)


def last_weights(folder):
    (config,) = folder.glob("**/config.yaml")
    return bpgen.load_run(config.parent).network.state_dict()


def test_a_time_limit_is_survived_bit_for_bit(slurm, tmp_path):
    study = HeldUp(tmp_path, slurm, "--engine.time", "2", "--engine.warning", "15")
    study.to_the_end(study.start())
    logs = "".join(file.read_text() for file in tmp_path.glob("s/slurm/tasks/*_log.*"))
    assert "Requeued job" in logs  # by the task itself, when it was warned
    study.assert_it_went_on_bit_for_bit()


def test_preemption_is_survived_bit_for_bit(slurm, tmp_path):
    study = HeldUp(tmp_path, slurm, "--engine.partition", "main")
    login = study.start()
    study.until(study.checkpoints)
    said = study.ask("sbatch", "-p", "urgent", "--exclusive", "-o", str(tmp_path / "urgent"), "--wrap", "echo first")
    assert "Submitted" in said
    study.to_the_end(login)
    assert (tmp_path / "urgent").read_text() == "first\n"
    study.assert_it_went_on_bit_for_bit()


if __name__ == "__main__":  # a cluster to look at
    with slurm_cluster.cluster(Path(sys.argv[1])) as env:
        print(f"export SLURM_CONF={env['SLURM_CONF']}", flush=True)
        time.sleep(float(sys.argv[2]))
