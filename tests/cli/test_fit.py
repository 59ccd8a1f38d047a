"""`bpgen fit` as its users meet it: one run, the same run again, a stopped run continued, and every kind of mistake."""

import inspect
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
import yaml

import bpgen
from bpgen.cli import main
from bpgen.losses import Activity
from bpgen.run.config import Config
from bpgen.run.record import Interrupt
from bpgen.training.options import LossOptions

COLUMNS = (  # what every run has, as version 0.1 wrote it
    *("epoch", "step", "lr", "train/objective", "train/loss", "train/accuracy", "val/loss", "val/accuracy"),
    *("test/loss", "test/accuracy", "test_noisy/loss", "test_noisy/accuracy"),
    *("gap/loss", "gap/accuracy", "gap_noisy/loss", "gap_noisy/accuracy"),
    *("sharpness/lambda_max", "sharpness/residual", "sharpness/products"),
    *("alignment/rho", "alignment/cosine", "alignment/orthogonal"),
)
SMALL = [
    *(
        "--sharpness.samples",
        "32",
        "--alignment.samples",
        "32",
        "--gap.train_samples",
        "64",
        "--gap.test_samples",
        "64",
    ),
    *("--network.n_rec", "16", "--trainer.max_epochs", "2", "--wandb", "off", "--threads", "1"),
]


def fit(tmp_path, *options, code=0):
    assert main(["fit", *SMALL, "--out", str(tmp_path), *options]) == code
    return max(tmp_path.iterdir(), key=lambda p: p.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("runs"), "--rule", "rflo", "--seed", "3")


def test_the_folder_is_complete(run):
    table = pd.read_csv(run / "metrics.csv")
    assert list(table.columns[: len(COLUMNS)]) == list(COLUMNS)
    assert table["step"].tolist() == [0, 75, 150]
    assert table[list(COLUMNS)].notna().all(axis=None)
    assert {f.stem for f in (run / "figures").iterdir()} >= {"overview", "sharpness", "gap", "alignment"}
    assert len(list((run / "weights").iterdir())) == 3
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["seed"] == 3
    assert summary["last"]["step"] == 150
    assert summary["versions"]["bpgen"] == bpgen.__version__
    assert set(summary["seconds"]["measuring"]) == {"gap", "sharpness", "alignment"}


def test_the_saved_config_runs_again_to_the_same_bytes(run, tmp_path):
    again = tmp_path / "again"
    assert main(["fit", "--config", str(run / "config.yaml"), "--out", str(again)]) == 0
    (copy,) = again.iterdir()
    assert (copy / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
    first, second = (yaml.safe_load((f / "config.yaml").read_text()) for f in (run, copy))
    assert {**first, "out": ""} == {**second, "out": ""}


def test_another_seed_is_another_run_and_the_same_seed_pairs_rules(run, tmp_path):
    other = pd.read_csv(fit(tmp_path, "--rule", "rflo", "--seed", "4") / "metrics.csv")
    paired = pd.read_csv(fit(tmp_path, "--rule", "bptt", "--seed", "3") / "metrics.csv")
    mine = pd.read_csv(run / "metrics.csv")
    assert other["train/loss"][0] != mine["train/loss"][0]
    for column in ("train/loss", "test_noisy/loss", "sharpness/lambda_max"):
        assert paired[column][0] == mine[column][0]
        assert paired[column][2] != mine[column][2]


def test_a_run_is_read_back_at_every_evaluation(run):
    table = pd.read_csv(run / "metrics.csv")
    for step, loss in zip(table["step"], table["val/loss"], strict=True):
        network, rule, task, config = bpgen.load_run(run, step)
        assert config["seed"] == 3
        split = task.split("val")
        subset = torch.nn.functional.cross_entropy(network(split.x), split.target, reduction="none")
        assert abs(subset.mean().item() - loss) < 0.4  # the row saw 64 of these 300
        assert rule.feedback.weight.shape == (10, 16)
    assert torch.equal(bpgen.load_run(run).network.W_rec, network.W_rec)
    fresh = bpgen.load_rule("rflo").bind(network, 3)
    assert torch.equal(fresh.feedback.weight, rule.feedback.weight)
    with pytest.raises(bpgen.errors.BpgenError, match="has no evaluation at step 7"):
        bpgen.load_run(run, 7)


RESUMED = [
    *("--optimizer.momentum", "0.9", "--optimizer.lr", "0.005", "--schedule.name", "cosine"),
    *("--trainer.accumulate", "2", "--network.sigma_rec", "0.05"),
]


FOUR_EPOCHS = [*RESUMED, "--trainer.max_epochs", "4"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("whole"), *FOUR_EPOCHS)


@pytest.mark.parametrize(
    ("sign", "code"),
    [
        *((signal.SIGINT, 130), (signal.SIGKILL, -9)),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, 128 + signal.SIGUSR1, marks=pytest.mark.slow),  # a batch system's warning
    ],
)
def test_a_stopped_run_continues_bit_for_bit(whole, tmp_path, sign, code):
    command = [sys.executable, "-m", "bpgen", "fit", *SMALL, *FOUR_EPOCHS, "--out", str(tmp_path / "stopped")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("epoch 1,"):
                time.sleep(0.01)
                process.send_signal(sign)
                break
        process.communicate()
    assert process.returncode == code
    (stopped,) = (tmp_path / "stopped").iterdir()
    assert (stopped / "metrics.csv").read_bytes() != (whole / "metrics.csv").read_bytes()
    if sign != signal.SIGKILL:
        assert json.loads((stopped / "summary.json").read_text())["status"] == "interrupted"
    assert main(["fit", "--resume", str(stopped)]) == 0
    assert (stopped / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    last = [torch.load(max((f / "weights").iterdir()))["network"] for f in (whole, stopped)]
    assert all(torch.equal(last[0][n], last[1][n]) for n in last[0])
    assert main(["fit", "--resume", str(stopped)]) == 2  # it is finished now


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("resumed"), *RESUMED)


@pytest.mark.parametrize("batch", [0, 1, 73, 74])
def test_a_run_stopped_at_any_batch_continues_bit_for_bit(resumed, tmp_path, monkeypatch, batch):
    """Between the two batches of an update there is nothing to continue from: the run goes on to the update."""
    passed_on = Interrupt.on_train_batch_end

    def stop(self, trainer, module, outputs, data, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == batch:
            self.received = signal.SIGINT
        passed_on(self, trainer, module)

    monkeypatch.setattr(Interrupt, "on_train_batch_end", stop)
    stopped = fit(tmp_path / "stopped", *RESUMED, code=130)
    monkeypatch.undo()
    assert main(["fit", "--resume", str(stopped)]) == 0
    assert (stopped / "metrics.csv").read_bytes() == (resumed / "metrics.csv").read_bytes()


def test_divergence_is_data(tmp_path, capsys):
    run = fit(tmp_path, "--optimizer.lr", "1e8", code=3)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "diverged"
    message = capsys.readouterr().err
    assert "step" in message
    assert "learning rate 1e+08" in message
    assert len(pd.read_csv(run / "metrics.csv")) == 1


def test_a_last_step_that_diverges_is_divergence_too(tmp_path):
    run = fit(tmp_path, "--optimizer.lr", "1e30", "--trainer.max_steps", "1", code=3)
    assert json.loads((run / "summary.json").read_text())["status"] == "diverged"
    table = pd.read_csv(run / "metrics.csv")
    assert len(table) == 2  # what was measured stays
    numbers = [c for c in table if c.endswith("/accuracy") or c.startswith("gap")]
    assert table[numbers].iloc[0].notna().all()
    assert table[numbers].iloc[1].isna().all()  # and answers that are no numbers are neither right nor wrong


@pytest.mark.parametrize("killed", [False, True])  # killed, it had no time to write a summary
@pytest.mark.parametrize(
    ("written", "edited", "says"),
    [
        ("n_rec: 16", "n_rec: 17", "network.n_rec: 16, now 17"),
        ("lr: 0.02", "lr: 0.5", "optimizer.lr: 0.02, now 0.5"),
        ("samples: 32", "samples: 16", "sharpness.samples: 32, now 16"),
    ],
)
def test_an_edited_config_is_refused_on_resume(run, tmp_path, capsys, killed, written, edited, says):
    copy = shutil.copytree(run, tmp_path / "copy")
    summary, config = copy / "summary.json", copy / "config.yaml"
    summary.write_text(summary.read_text().replace('"finished"', '"interrupted"'))
    if killed:
        summary.unlink()
    before = (copy / "metrics.csv").read_bytes()
    config.write_text(config.read_text().replace(written, edited, 1))
    assert main(["fit", "--resume", str(copy)]) == 2
    message = capsys.readouterr().err
    assert f"was edited since the run began ({says})" in message
    assert (copy / "metrics.csv").read_bytes() == before
    config.write_text(config.read_text().replace(edited, written, 1).replace("\nout: ", "\nout: elsewhere"))
    assert main(["fit", "--resume", str(copy)]) == 0  # where it is written decides no number
    config.write_text("rule: rflo")
    (copy / "summary.json").unlink()
    assert main(["fit", "--resume", str(copy)]) == 2
    assert "lacks task" in capsys.readouterr().err


def test_a_config_that_does_not_fit_the_weights_is_named(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("n_rec: 16", "n_rec: 17"))
    with pytest.raises(bpgen.errors.BpgenError, match="was it edited"):
        bpgen.load_run(copy)


def test_damaged_runs_are_named(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "summary.json").unlink()
    (copy / "checkpoints" / "previous.ckpt").unlink()
    checkpoint, weights = copy / "checkpoints" / "last.ckpt", max((copy / "weights").iterdir())
    for file, read in (
        (checkpoint, lambda: main(["fit", "--resume", str(copy)])),
        (weights, lambda: bpgen.load_run(copy)),
    ):
        file.write_bytes(file.read_bytes()[:2000])
        try:
            assert read() == 2
            message = capsys.readouterr().err
        except bpgen.errors.BpgenError as error:
            message = str(error)
        assert f"{file} is damaged" in message


def test_print_config_is_a_config(tmp_path, capsys):
    assert main(["fit", "--rule", "three_factor", "--network.n_rec", "7", "--print_config"]) == 0
    text = capsys.readouterr().out
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert main(["fit", "--config", str(file), "--print_config"]) == 0
    assert capsys.readouterr().out == text
    config = yaml.safe_load(text)
    assert config["rule"]["name"] == "three_factor"
    assert config["network"]["n_rec"] == 7


def test_a_dry_run_says_how_long_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *SMALL, "--dry-run", "--trainer.max_epochs", "1000"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("rflo on digits")
    found = re.fullmatch(r"about .+ left: (\d+) steps of [\d.]+ m?s, (\d+) evaluations of [\d.]+ m?s", said[-1])
    steps, evaluations = int(found[1]), int(found[2])
    assert 74_000 < steps < 75_000
    assert evaluations == math.ceil(steps / 75)
    assert list(tmp_path.iterdir()) == []


def test_a_run_says_how_long_it_will_take_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bpgen.run.time_left._FIRST", 0.0)  # seconds of steps to judge by
    fit(tmp_path, "--evaluation.every", "log", "--evaluation.points", "5", "--trainer.max_steps", "40")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "left: " in line]
    assert re.search(r"left: 38 steps of .*, 4 evaluations of", line)  # 1 and the start are measured already
    assert re.match(r"about \d+ (s|min) ", line)  # how many depends on what else the machine does


def test_words_of_an_option_may_be_joined_by_hyphens(capsys):
    assert main(["fit", "--network.n-rec=7", "--trainer.max-steps", "3", "--print-config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert (config["network"]["n_rec"], config["trainer"]["max_steps"]) == (7, 3)
    assert main(["fit", "--network.n-wreck", "7"]) == 2
    assert "Did you mean '--network.n_rec'?" in capsys.readouterr().err
    assert main(["fit", "--foo", "7"]) == 2
    assert "Did you mean" not in capsys.readouterr().err


def test_the_command_line_wins_over_configs_and_later_over_earlier(tmp_path, capsys):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("rule: {name: rflo, scale: 0.5}\nnetwork: {n_rec: 5, kappa: 0.25}\nseed: 4\noptimizer: {lr: 1e-3}")
    second.write_text("network: {n_rec: 6}")
    configs = ["--config", str(first), f"--config={second}"]
    assert main(["fit", *configs, "--seed=9", "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert (config["rule"]["scale"], config["seed"], config["optimizer"]["lr"]) == (0.5, 9, 0.001)
    assert (config["network"]["n_rec"], config["network"]["kappa"]) == (6, 0.25)
    assert main(["fit", *configs, "--rule", "bptt", "--print_config"]) == 0  # rflo's options mean nothing to bptt
    assert yaml.safe_load(capsys.readouterr().out)["rule"] == {"name": "bptt"}


def test_a_cost_of_the_activity_is_an_option_of_the_loss(capsys):
    flags = ["--loss.activity", "0.5", "--loss.activity_form", "rate", "--loss.activity_target", "0.1"]
    assert main(["fit", *flags, "--print_config"]) == 0
    loss = LossOptions(**yaml.safe_load(capsys.readouterr().out)["loss"]).make()
    assert loss.activity == Activity(0.5, "rate", 0.1)
    assert main(["fit", "--print_config"]) == 0
    assert LossOptions(**yaml.safe_load(capsys.readouterr().out)["loss"]).make().activity is None


@pytest.mark.parametrize("name", ["digits", "seqmnist", "liu2022_bptt", "liu2022_three_factor"])
def test_shipped_configs_resolve(name, capsys):
    assert main(["fit", "--config", name, "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    if name.startswith("liu2022"):
        assert config["neuron"]["alpha"] == 1
        assert config["loss"]["l2"] == config["optimizer"]["lr"] == 0.01
        assert config["trainer"]["max_steps"] / config["evaluation"]["every"] == 40


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--rule", "rfol"], "Did you mean 'rflo'?"),
        (["--rule"], "--rule needs a name"),
        (["--task", "digit"], "Did you mean 'digits'?"),
        (["--neuron", "leeky"], "Did you mean 'leaky'?"),
        (["--rule.scal", "3"], "Did you mean '--rule.scale'?"),
        (["--network.nrec=3"], "Did you mean '--network.n_rec'?"),
        (["--netwrk.n_rec", "3"], "Did you mean '--network.n_rec'?"),
        (["--lr", "3"], "Did you mean '--optimizer.lr'?"),
        (["--network.n_rec", "many"], "--network.n_rec expects a whole number, got many"),
        (["--network.n_rec", "-3"], "must be a positive number, got -3"),
        (["--neuron.alpha", "1.5"], "must be in (0, 1]"),
        (["--neuron.alpha", "0"], "must be in (0, 1]"),
        (["--neuron.activation", "sin"], "expects one of relu"),
        (["--evaluation.every", "hour"], "expects one of epoch, log or a whole number"),
        (["--optimizer.lr_scale", '{"W_rc": 1}'], "Did you mean 'W_rec'?"),
        (["--trainer.batch_size", "0"], "batch_size must be positive"),
        (["--threads", "0"], "threads must be from 1 to 512"),
        (["--task", "seqmnist", "--task.data_dir", "/nowhere"], "/nowhere"),
        (["--config", "digit"], "Did you mean 'digits'?"),
        (["--config", "none.yaml"], "there is no config file none.yaml"),
        (["--resume", "/nowhere"], "not a run folder"),
        (["--resume", "x", "--seed", "1"], "takes no other options"),
        (["--out", "/dev/null/x"], "cannot write runs"),
        (["stray"], "unrecognized arguments: stray"),
        (["--rulee", "rflo"], "Did you mean '--rule'?"),
        (["--config", "/"], "is a folder"),
        (["--resume", ""], "needs the folder of a run"),
        (["--tracking.tags", "a"], "a list such as [a, b]"),
        (["--sharpness.tol", "0"], "sharpness.tol must be between 0 and 1"),
        (["--sharpness.max_products", "0"], "sharpness.max_products"),
        (["--gap.test_samples", "0"], "gap.test_samples must be a positive number"),
        (["--network.n_rec", "1"], "no recurrent weight"),
    ],
)
def test_bad_input_is_one_clear_line_and_nothing_is_written(argv, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--wandb", "off", *argv] if argv[0] != "--resume" else ["fit", *argv]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("bpgen: error: ")
    assert len(error.strip().splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("format: 9\nrule: rflo", "format 9"),
        ("rule: [", "not valid YAML"),
        ("network: {n_recs: 3}", "Did you mean 'network.n_rec'?"),
        ("network: {n_rec: many}", "must be a whole number"),
        ("rule: {name: rfol}", "Did you mean 'rflo'?"),
        ("netwrk: {n_rec: 3}", "Did you mean 'network.n_rec'? It stands in config"),
        ("network: 5", "network in a config must be a mapping"),
    ],
)
def test_bad_configs(text, says, tmp_path, capsys):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    assert main(["fit", "--config", str(file)]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_without_permission(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert main(["fit", *SMALL, "--out", str(tmp_path)]) == 2
    assert "Permission denied" in capsys.readouterr().err


def test_a_rule_that_fails_in_training_is_named_and_nothing_is_lost(tmp_path, monkeypatch, capsys):
    from bpgen_rules.rflo import RFLO

    honest, calls = RFLO.credit, []

    def breaks(self, trajectory, error):
        calls.append(1)
        if len(calls) > 20:
            return honest(self, trajectory, None)
        return honest(self, trajectory, error)

    monkeypatch.setattr(RFLO, "credit", breaks)
    out = tmp_path / "runs"
    argv = ["fit", "--rule", "rflo", "--out", str(out), "--wandb", "off", "--trainer.max_steps", "40"]
    assert main([*argv, "--evaluation.every", "10", "--sharpness.samples", "0"]) == 2
    said = capsys.readouterr()
    assert "rule rflo failed: TypeError" in said.err
    assert "rflo.py, line" in said.err
    assert "Traceback" not in said.err
    (run,) = out.iterdir()
    assert json.loads((run / "summary.json").read_text())["status"] == "failed"
    assert len((run / "metrics.csv").read_text().splitlines()) > 1  # the evaluations before it


def test_a_constructor_that_fails_is_bad_input(monkeypatch, capsys):
    from bpgen_rules.rflo import RFLO

    def breaks(self, *_, **__):
        raise RuntimeError("out of order")

    monkeypatch.setattr(RFLO, "__init__", breaks)
    monkeypatch.setattr(RFLO, "__signature__", inspect.Signature(), raising=False)
    assert main(["fit", "--rule", "rflo"]) == 2
    assert "out of order" in capsys.readouterr().err


def test_an_interrupt_before_there_is_a_run_says_what_is_left(tmp_path, capsys, monkeypatch):
    def pressed(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Config, "make_task", pressed)
    assert main(["fit", *SMALL, "--out", str(tmp_path / "runs")]) == 130
    said = capsys.readouterr().err
    assert "interrupted: all files so far are whole" in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()
