"""`bpgen sharpness` and `bpgen stability` on a finished run: its own numbers, and every kind of mistake."""

import json
import shutil

import pandas as pd
import pytest
import torch

import bpgen
from bpgen.cli import main
from bpgen.tasks.digits import Digits

OPTIONS = [
    *("--network.n_rec", "8", "--trainer.max_steps", "20", "--evaluation.every", "10", "--gap.test_samples", "16"),
    *("--sharpness.samples", "32", "--stability.samples", "32", "--stability.tol", "1e-4", "--stability.probes", "0"),
    *("--neuron.activation", "tanh", "--gap.train_samples", "16", "--alignment.samples", "0", "--wandb", "off"),
    *("--loss.kind", "mse", "--threads", "1", "--optimizer.momentum", "0.5"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    assert main(["fit", *OPTIONS, "--out", str(out)]) == 0
    return next(out.iterdir())


def answer(capsys, *argv):
    capsys.readouterr()
    assert main([*map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_sharpness_repeats_what_the_run_measured(run, capsys):
    table = pd.read_csv(run / "metrics.csv")
    found = answer(capsys, "sharpness", run, "--step", "all", "--top", "1")
    assert [e["step"] for e in found["evaluations"]] == table["step"].tolist() == [0, 10, 20]
    for row, value in zip(found["evaluations"], table["sharpness/lambda_max"], strict=True):
        assert row["eigenvalues"] == [pytest.approx(value, rel=1e-6)]
        assert row["residuals"][0] <= 1e-4 * row["eigenvalues"][0]
        assert row["converged"]
    assert (found["samples"], found["block"], found["rule"]) == (32, "W_rec", "rflo")
    assert answer(capsys, "sharpness", run, "--top", "1")["evaluations"] == found["evaluations"][-1:]
    one = answer(capsys, "sharpness", run / "weights" / "step00000010.pt", "--top", "1")
    assert one["evaluations"] == found["evaluations"][1:2]


def test_sharpness_with_other_options_is_that_of_the_library(run, capsys):
    net, _, _, _ = bpgen.load_run(run, 20)
    split = Digits().split("train")
    target = torch.nn.functional.one_hot(split.target, 10).float()
    for block, given in (("all", "all"), (("W_in", "W_rec"), "W_in,W_rec")):
        direct = bpgen.sharpness(net, split.x, target, "mse", block=block, top=2, tol=1e-6)
        found = answer(capsys, "sharpness", run, "--block", given, "--samples", 5000, "--top", 2, "--tol", "1e-6")
        assert found["evaluations"][0]["eigenvalues"] == pytest.approx(direct.eigenvalues.tolist(), rel=1e-5)
        assert found["samples"] == 1197
    beyond = answer(capsys, "sharpness", run, "--measures", "--block", "all")["evaluations"][0]["measures"]
    assert beyond["lambda_theta"] > 0
    assert beyond["worst_case"] > 0
    assert 0 < beyond["under_noise_error"] < abs(beyond["under_noise"])


def test_stability_repeats_what_the_run_measured(run, capsys):
    table = pd.read_csv(run / "metrics.csv")
    found = answer(capsys, "stability", run, "--step", "all", "--probes", "0", "--top", "2")
    for row, (_, logged) in zip(found["evaluations"], table.iterrows(), strict=True):
        for name in ("rho", "rho_directional", "lambda_max", "mu_abs", "max_multiplier", "bound", "edge_rho"):
            assert row[name] == pytest.approx(logged[f"stability/{name}"], rel=1e-6), name
    assert found["evaluations"][0]["bound"] == pytest.approx(2 * 1.5 / 0.02)
    other = answer(capsys, "stability", run, "--lr", "0.3", "--momentum", "0", "--probes", "0")["evaluations"][0]
    assert other["bound"] == pytest.approx(2 / 0.3)
    assert other["mu"][0] == pytest.approx(found["evaluations"][-1]["mu"][0], rel=1e-3)


def test_tables_and_files(run, tmp_path, capsys):
    assert (
        main(["sharpness", str(run), "--step", "all", "--top", "8", "--measures", "--out", str(tmp_path / "new" / "a")])
        == 0
    )
    text = capsys.readouterr().out
    assert "Hessian of the true loss, block W_rec, 32 train samples" in text
    assert "fisher_rao" in text
    assert "…" not in text
    assert {f.name for f in (tmp_path / "new" / "a").iterdir()} >= {
        "sharpness.json",
        "sharpness.png",
        "curvature-step00000020.png",
    }
    assert main(["stability", str(run), "--step", "all", "--out", str(tmp_path)]) == 0
    assert "max |1-ημ|" in capsys.readouterr().out
    assert {f.name for f in tmp_path.iterdir()} >= {"stability.json", "stability.png", "multipliers-step00000020.png"}
    assert json.loads((tmp_path / "stability.json").read_text())["evaluations"][0]["step"] == 0
    assert main(["stability", str(run)]) == 0
    assert "μ_1" in capsys.readouterr().out
    assert {f.stem for f in (run / "figures").iterdir()} >= {"stability", "overview"}  # of the run itself


@pytest.mark.parametrize("command", ["sharpness", "stability"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "--step N|best|all" in text


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["sharpness", "/nowhere"], "not a run folder"),
        (["sharpness"], "required: RUN|CHECKPOINT"),
        (["sharpness", "RUN", "--step", "11"], "saved nothing at step 11; the nearest is 10"),
        (["sharpness", "RUN", "--step", "first"], "--step must be a number, last, best or all"),
        (["sharpness", "RUN", "--block", "W_reck"], "Did you mean 'W_rec'?"),
        (["sharpness", "RUN", "--top", "0"], "top must be in 1.."),
        (["sharpness", "RUN", "--top", "many"], "invalid int value: 'many'"),
        (["sharpness", "RUN", "--samples", "0"], "--samples must be positive"),
        (["sharpness", "RUN", "--tol", "0"], "tol must be > 0"),
        (["sharpness", "RUN", "--out", "/dev/null/x"], "cannot write to /dev/null/x"),
        (["sharpness", "RUN/metrics.csv"], "is not a saved network of a run"),
        (["sharpness", "RUN/weights/step00000010.pt", "--step", "20"], "is one network"),
        (["stability", "RUN", "--lr", "0"], "--lr must be > 0"),
        (["stability", "RUN", "--momentum", "1"], "momentum must be in [0, 1)"),
        (["stability", "RUN", "--top", "0"], "top must be a positive number"),
        (["stability", "RUN", "--nope"], "unrecognized arguments: --nope"),
    ],
)
def test_bad_input_is_one_clear_line(run, argv, says, capsys):
    capsys.readouterr()
    assert main([a.replace("RUN", str(run)) if a.startswith("RUN") else a for a in argv]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("bpgen: error: ")


def test_damaged_and_other_runs(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    text = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(text.replace("name: sgd", "name: adam").replace("momentum: 0.5", "momentum: 0.0"))
    assert main(["stability", str(copy)]) == 2
    assert "ask for one with --lr" in capsys.readouterr().err
    assert main(["stability", str(copy), "--lr", "0.1", "--probes", "0", "--json"]) == 0
    (copy / "weights" / "step00000020.pt").write_bytes(b"no")
    assert main(["sharpness", str(copy)]) == 2
    assert "is damaged" in capsys.readouterr().err
    for file in (copy / "weights").iterdir():
        file.unlink()
    assert main(["sharpness", str(copy)]) == 2
    assert "no saved weights" in capsys.readouterr().err


def test_the_callback_is_refused_before_anything_is_written(tmp_path, capsys):
    assert main(["fit", *OPTIONS, "--optimizer.momentum", "0", "--optimizer.name", "adam", "--out", str(tmp_path)]) == 2
    assert "needs --optimizer.name sgd" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main(["fit", "--config", "edge_of_stability", "--print_config"]) == 0
