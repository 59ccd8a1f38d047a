"""A run from Python: trained by `bpgen.fit`, read back with the weights that act, its activity and its metrics."""

import signal

import numpy as np
import pandas as pd
import pytest
import torch

import bpgen
from bpgen.cli import main
from bpgen.errors import BpgenError

SMALL = {
    "trainer": {"max_steps": 4},
    "evaluation": {"every": 2},
    "sharpness": {"samples": 16, "max_products": 4},
    "alignment": {"samples": 16},
    "gap": {"train_samples": 32},
    "wandb": "off",
    "threads": 1,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("runs"))
    network = {"n_rec": 8, "density": 0.5}
    return bpgen.fit(
        rule={"name": "rflo", "scale": 0.5}, network=network, seed=3, out=place, quiet=True, draw=False, **SMALL
    )


def test_it_is_the_run_of_the_command(run, tmp_path, capsys):
    argv = ["--rule", "rflo", "--rule.scale", "0.5", "--network.n_rec", "8", "--network.density", "0.5", "--seed", "3"]
    argv += [f"--{g}.{k}={v}" for g, o in SMALL.items() if isinstance(o, dict) for k, v in o.items()]
    assert main(["fit", *argv, "--wandb", "off", "--threads", "1", "--out", str(tmp_path)]) == 0
    (other,) = tmp_path.iterdir()
    assert (other / "metrics.csv").read_bytes() == run.folder.metrics_file.read_bytes()
    assert run.status == "finished"
    assert run.config["rule"]["scale"] == 0.5


def test_bad_input_is_that_of_the_command(tmp_path):
    with pytest.raises(BpgenError, match="Did you mean 'rflo'"):
        bpgen.fit(rule="rfol", out=str(tmp_path))
    with pytest.raises(BpgenError, match="momentun"):
        bpgen.fit(optimizer={"momentun": 0.9}, out=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_it_says_what_it_is(run):
    assert repr(run) == f"<run {run.folder.path}: rflo on digits, seed 3, finished>"


def test_signals_are_as_they_were(tmp_path):
    """Whether the run ends well or not: a script that trained a network can still be ended."""
    asked = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    for lr in (0.01, 1e9):
        bpgen.fit(network={"n_rec": 4}, optimizer={"lr": lr}, out=str(tmp_path), quiet=True, draw=False, **SMALL)
        assert {s: signal.getsignal(s) for s in asked} == asked


def test_weights_are_those_that_act(run):
    """By hand: without the stored diagonal and without synapses that do not exist, and no other change."""
    stored = run.network.W_rec.detach()
    acting = run.weights["W_rec"]
    probe = {name: p.detach().clone().requires_grad_() for name, p in run.network.named_parameters()}
    x = torch.randn(6, 5, run.network.n_in)
    run.network.run(probe, x, in_place=False).outputs.sum().backward()
    dead = probe["W_rec"].grad == 0  # 8 neurons see five sequences: what exists has some influence
    assert (acting[torch.eye(8, dtype=torch.bool)] == 0).all()
    assert stored.diagonal().abs().max() > 0
    assert ((acting == 0) | (acting == stored)).all()
    assert dead[acting == 0].all()
    assert 8 < int((acting == 0).sum()) < 64
    network, rule, task, config = run  # four parts, as before
    assert (network, rule, task, config) == (run.network, run.rule, run.task, run.config)


def test_metrics_are_those_of_the_file(run):
    assert run.metrics["step"].tolist() == [0, 2, 4]
    pd.testing.assert_frame_equal(run.metrics, pd.read_csv(run.folder.path / "metrics.csv"))


def test_activity_is_what_the_network_does(run):
    found = run.activity("val", samples=7)
    split = run.task.split("val")
    assert found.h.shape == (split.x.shape[0], 7, 8)
    with torch.no_grad():
        outputs = run.network(split.x[:, :7], when="all")
    np.testing.assert_allclose(found.outputs, outputs.numpy(), rtol=1e-5, atol=1e-6)
    W, b = (run.network.W_out.detach().numpy(), run.network.b_out.detach().numpy())
    np.testing.assert_allclose(found.h @ W.T + b, found.outputs, rtol=1e-4, atol=1e-5)  # the activity that is read
    table = found.table()
    assert list(table.columns[:3]) == ["sequence", "t", "h0"]
    one = table[(table["sequence"] == 3) & (table["t"] == 2)].iloc[0]
    assert one["h5"] == found.h[1, 3, 5]
    assert one["y1"] == found.outputs[1, 3, 1]
    assert run.activity().h.shape[1] == run.task.split("test").size
    with pytest.raises(BpgenError, match="split"):
        run.activity("future")
