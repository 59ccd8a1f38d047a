"""`bpgen similarity`: two runs, and a run and recorded neurons, against what its parts say in Python."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import bpgen
from bpgen.cli import main
from bpgen.similarity import cca, cka, procrustes, sampled


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    off = ["--sharpness.samples", "0", "--alignment.samples", "0", "--gap.train_samples", "16", "--threads", "1"]
    for rule, n, seed in (("rflo", 24, 0), ("bptt", 30, 1)):
        size = ["--network.n_rec", str(n), "--trainer.max_steps", "20", "--evaluation.every", "10"]
        argv = ["fit", "--rule", rule, "--seed", str(seed), *size, *off, "--wandb", "off", "--out", str(out)]
        assert main(argv) == 0
    return out / "digits-rflo-seed0", out / "digits-bptt-seed1"


def activity(run, samples, step=None):
    return bpgen.load_run(run, step).activity("test", samples).h.swapaxes(0, 1)


def test_two_runs_along_the_training_of_the_first(runs, capsys, tmp_path):
    run, other = map(str, runs)
    argv = ["similarity", run, other, "--samples", "30", "--draws", "5", "--neurons", "6"]
    assert main([*argv, "--json", "--out", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    data = activity(other, 30)
    assert [e["step"] for e in found["evaluations"]] == [0, 10, 20]
    for e in found["evaluations"]:
        own = activity(run, 30, e["step"])
        few = sampled(data, own, neurons=6, draws=5)
        expected = [procrustes(own, data), cka(own, data), cca(own, data), few.normalised, few.baseline]
        columns = ("procrustes", "cka", "cca", "normalised", "baseline")
        np.testing.assert_allclose([e[c] for c in columns], expected, rtol=1e-6)
        assert e["loss"] > 0
    assert len({e["procrustes"] for e in found["evaluations"]}) == 3
    table = pd.read_csv(tmp_path / "similarity.csv")
    np.testing.assert_allclose(table["cka"], [e["cka"] for e in found["evaluations"]])
    assert (tmp_path / "similarity.png").is_file()
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert f"{found['evaluations'][-1]['procrustes']:.3g} is left" in text
    assert "average over conditions (" in text
    assert main([*argv[:3], "--step", "last", "--neurons", "0"]) == 0
    text = capsys.readouterr().out
    assert "At step 20" in text
    assert "normalised" not in text


def test_a_run_is_at_no_distance_from_itself(runs, capsys):
    assert main(["similarity", str(runs[0]), str(runs[0]), "--json", "--neurons", "0", "--samples", "20"]) == 0
    *before, last = json.loads(capsys.readouterr().out)["evaluations"]
    assert last["procrustes"] < 1e-6
    assert last["cka"] == pytest.approx(1)
    assert min(e["procrustes"] for e in before) > 1e-3


def test_recorded_neurons_with_inputs_and_without(runs, capsys, tmp_path):
    run, file = runs[0], tmp_path / "neurons.npz"
    x = bpgen.load_run(run).task.split("test").x[:, 40:52].transpose(0, 1).numpy()
    net = bpgen.load_run(run).network
    with torch.no_grad():
        h = net.run(net.params(), torch.from_numpy(x).transpose(0, 1).contiguous(), in_place=False).h[1:]
    turned = h.transpose(0, 1).double().numpy() @ np.linalg.qr(np.random.default_rng(0).standard_normal((24, 24)))[0]
    np.savez(file, activity=3 * turned + 1, x=x)
    argv = ["similarity", str(run), str(file), "--json", "--step", "last", "--draws", "3"]
    assert main(argv) == 0
    (last,) = json.loads(capsys.readouterr().out)["evaluations"]
    assert last["procrustes"] < 1e-6
    np.savez(file, activity=turned)  # then they are the first sequences of the split, which these are not
    assert main(argv) == 0
    (last,) = json.loads(capsys.readouterr().out)["evaluations"]
    assert last["procrustes"] > 0.1
    np.savez(file, activity=activity(run, 12))
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out)["evaluations"][0]["procrustes"] < 1e-6


def test_a_run_that_diverged_has_nothing_to_compare(runs, capsys, tmp_path):
    copy = shutil.copytree(runs[0], tmp_path / "diverged")
    file = max((copy / "weights").glob("step*.pt"))
    state = torch.load(file, weights_only=True)
    state["network"]["W_in"][0, 0] = float("nan")
    torch.save(state, file)
    assert main(["similarity", str(copy), str(runs[1]), "--draws", "2"]) == 0
    assert "had diverged" in capsys.readouterr().out


GOOD = np.random.default_rng(0).standard_normal((5, 8, 30))


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"h": GOOD}, [], "lacks activity; it holds h. Write it with numpy.savez(file, activity=activity)"),
        ({"activity": GOOD[0]}, [], "activity in {file} must be numbers [conditions, time, neurons], got"),
        ({"activity": np.array([["a"]])}, [], "must be numbers [conditions, time, neurons]"),
        ({"activity": np.array([{}])}, [], "holds Python objects"),
        ({"activity": np.where(np.arange(30) == 4, np.nan, GOOD)}, [], "in 1 of 30 neurons (the first is number 4,"),
        ({"activity": GOOD, "x": GOOD[:4]}, [], "must have the conditions and time steps of activity"),
        ({"activity": GOOD, "x": GOOD}, [], "has 30 inputs, and the network"),
        ({"activity": GOOD[:, :7]}, [], "has 7 time steps, and the run's test split 8: resample"),
        ({"activity": np.tile(GOOD, (2000, 1, 1))}, [], "has 10000 conditions, and the run's test split"),
        ({"activity": GOOD[..., :12]}, [], "take fewer neurons a sample"),
        ({"activity": GOOD}, ["--split", "tets"], "Did you mean 'test'"),
        ({"activity": GOOD}, ["--step", "7"], "saved nothing at step 7"),
        ({"activity": GOOD}, ["--neurons", "-1"], "--neurons must not be negative"),
    ],
)
def test_bad_input_is_exit_code_2(runs, arrays, options, message, capsys, tmp_path):
    file = tmp_path / "neurons.npz"
    np.savez(file, **arrays)
    assert main(["similarity", str(runs[0]), str(file), *options]) == 2
    error = capsys.readouterr().err
    assert message.format(file=file) in error
    assert "task.file" not in error


def test_files_and_runs_that_are_not_there_or_do_not_fit(runs, capsys, tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    for other, message in (("none.npz", "cannot read data"), ("text.npz", "it is not an .npz file"), ("none", "none")):
        assert main(["similarity", str(runs[0]), str(tmp_path / other)]) == 2
        assert message in capsys.readouterr().err
    off = ["--sharpness.samples", "0", "--alignment.samples", "0", "--gap.train_samples", "16", "--threads", "1"]
    size = ["--network.n_rec", "24", "--trainer.max_steps", "1", "--wandb", "off", "--out", str(tmp_path)]
    assert main(["fit", "--task", "context_decision", *size, *off]) == 0
    (other,) = tmp_path.glob("context_decision*")
    capsys.readouterr()
    assert main(["similarity", str(runs[0]), str(other)]) == 2
    assert "the networks must see the same inputs, and have 8 and 5" in capsys.readouterr().err
