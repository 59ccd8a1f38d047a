"""`bpgen rank`: size and rank of the change of weights, against numpy on saved files and on matrices of known rank."""

import json

import numpy as np
import pytest
import torch

import bpgen
from bpgen.cli import main
from bpgen.complexity.weights import change_of
from bpgen.neurons import Leaky
from tests.oracles import randn


def test_a_change_of_known_rank_is_found():
    W_0 = randn(1, 12, 9)
    u, v = torch.linalg.qr(randn(2, 12, 3)).Q, torch.linalg.qr(randn(3, 9, 3)).Q
    three = W_0 + u @ torch.diag(torch.tensor([2.0, 2.0, 2.0], dtype=torch.float64)) @ v.mT
    found = change_of(three, W_0, outputs=2)
    assert found.norm == pytest.approx(12**0.5)
    assert found.relative == pytest.approx(12**0.5 / float(W_0.norm()))
    assert found.effective_rank == pytest.approx(3)
    assert found.rank_99 == 3
    assert found.beyond == pytest.approx(1 / 3)
    assert change_of(three, W_0, outputs=3).beyond < 1e-20
    uneven = W_0 + u @ torch.diag(torch.tensor([1.0, 0.05, 0.05], dtype=torch.float64)) @ v.mT
    assert change_of(uneven, W_0, 1).rank_99 == 1
    still = change_of(W_0, W_0, 1)
    assert (still.norm, still.rank_99) == (0.0, 0)
    assert np.isnan(still.effective_rank)


def test_a_signal_of_o_errors_moves_linear_neurons_along_o_directions_under_rflo_and_not_under_bptt():
    """Williams 2026: with a fixed feedback and without autapse masks, W_rec - W_rec,0 has at most O directions."""
    beyond = {}
    for name in ("rflo", "bptt", "three_factor"):
        net = bpgen.Network(Leaky(1.0, "linear"), 4, 20, 2, autapses=True, dtype=torch.float64, init="glorot2010")
        W_0, rule = net.W_rec.detach().clone(), bpgen.load_rule(name, **({"seed": 0} if name == "rflo" else {}))
        for step in range(30):
            x, target = randn(step, 5, 8, 4), randn(100 + step, 5, 8, 2)
            grads = bpgen.gradients(rule, net, x, target, "mse", "all").grads
            with torch.no_grad():
                for weight, g in grads.items():
                    net.get_parameter(weight).sub_(0.02 * g)
        beyond[name] = change_of(net.W_rec.detach(), W_0, 2).beyond
    assert beyond["rflo"] < 1e-20
    assert beyond["bptt"] > 0.01
    assert beyond["three_factor"] > 1e-6  # its feedback, W_out, moves


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    options = ["--network.n_rec", "8", "--trainer.max_steps", "20", "--evaluation.every", "10", "--wandb", "off"]
    off = ["--sharpness.samples", "0", "--alignment.samples", "0", "--gap.train_samples", "16", "--threads", "1"]
    assert main(["fit", "--rule", "rflo", *options, *off, "--out", str(out)]) == 0
    return next(out.iterdir())


def test_the_command_reads_what_a_run_saved(run, capsys, tmp_path):
    assert main(["rank", str(run), "--weights", "W_in", "--json", "--out", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rule"], found["weights"], found["neurons"], found["outputs"]) == ("rflo", "W_in", 8, 10)
    files = sorted((run / "weights").glob("step*.pt"))
    first, *_, last = (torch.load(f, weights_only=True)["network"]["W_in"].double().numpy() for f in files)
    values = np.linalg.svd(last - first, compute_uv=False)
    share = values / values.sum()
    assert [e["step"] for e in found["evaluations"]] == [0, 10, 20]
    assert found["evaluations"][0]["norm"] == 0
    end = found["evaluations"][-1]
    assert end["norm"] == pytest.approx(float(np.linalg.norm(last - first)), rel=1e-6)
    assert end["effective_rank"] == pytest.approx(float(np.exp(-(share * np.log(share)).sum())), rel=1e-6)
    assert json.loads((tmp_path / "rank.json").read_text())["evaluations"] == found["evaluations"]
    assert (tmp_path / "rank.png").is_file()
    assert main(["rank", str(run)]) == 0
    text = capsys.readouterr().out
    assert "change of W_rec under rflo, 8 neurons, 10 outputs" in text
    assert "beyond 10" in text


@pytest.mark.parametrize(
    ("argv", "message"), [(["nothing"], "nothing"), (["RUN", "--weights", "W_rek"], "Did you mean 'W_rec'")]
)
def test_bad_input_is_exit_code_2(run, argv, message, capsys):
    assert main(["rank", *(str(run) if a == "RUN" else a for a in argv)]) == 2
    assert message in capsys.readouterr().err
