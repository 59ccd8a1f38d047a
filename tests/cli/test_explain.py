"""`bpgen explain` on a small study: tables, figure, sentence, continuation, and every kind of mistake."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from bpgen.cli import main
from bpgen.complexity import MEASURES
from bpgen.run.replay import load_run
from bpgen.streams import generator
from bpgen.study.networks import GAPS
from bpgen.tasks.digits import Digits

PLAN = """
name: small
base: digits
set: {trainer.max_steps: 60, network.n_rec: 8, trainer.batch_size: 64, optimizer.lr: 0.1}
axes: {rule: [bptt, three_factor]}
seeds: 4
measure: {evaluation: {every: 60}, sharpness: {samples: 64}, alignment: {samples: 0}}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    (folder / "plan.yaml").write_text(PLAN)
    assert main(["study", str(folder / "plan.yaml"), "--out", str(folder / "small"), "--jobs", "1"]) == 0
    return folder / "small"


@pytest.fixture(scope="module")
def explained(study):
    assert main(["explain", str(study), "--samples", "64"]) == 0
    return study / "explain"


def test_it_measures_every_saved_network_and_agrees_with_the_runs(study, explained):
    table, networks = pd.read_csv(study / "table.csv"), pd.read_csv(explained / "networks.csv")
    assert len(networks) == 2 * 4 * 2
    both = table.merge(networks, on=["run", "step"])
    assert np.allclose(both["clean/loss"], both["gap/loss"], atol=1e-6)
    assert np.allclose(both["noisy/accuracy"], both["gap_noisy/accuracy"], atol=1e-6)
    assert np.allclose(both["lambda_rec"], both["sharpness/lambda_max"], rtol=3e-3)  # no regulariser here
    assert (both["robustness/accuracy"] - both["noisy/accuracy"]).abs().max() > 0.005
    assert (both.loc[both["step"] == 0, "distance"] == 0).all()
    last = both[both["step"] == 60].iloc[0]
    network, start = (load_run(study / last["run"], step).network for step in (60, 0))
    moved = sum(
        (a - b).square().sum().item() for a, b in zip(network.params().values(), start.params().values(), strict=True)
    )
    assert last["distance"] == pytest.approx(moved**0.5, rel=1e-4)
    train, digits = Digits().split("train"), Digits()
    noisy = digits.perturb(train.x, generator(int(last["seed"]), "training noise"))
    right = (network(noisy).argmax(-1) == train.target).float().mean().item()
    assert last["robustness/accuracy"] == pytest.approx(last["train/accuracy"] - right, abs=1e-6)


def test_it_writes_the_tables_the_figure_and_the_sentence(explained):
    ranking = pd.read_csv(explained / "ranking.csv")
    assert set(ranking["gap"]) == set(GAPS)
    assert (ranking.groupby(["setting", "gap"]).size() == len(MEASURES)).all()
    assert set(ranking["verdict"]) <= {"explains", "reversed", "between rules only", "undecided"}
    text = (explained / "explain.md").read_text()
    assert "Beats sharpness (λ₁ of W_rec) within rules at matched training loss: clean gap, accuracy: " in text
    assert all(m.label in text for m in MEASURES)
    assert "fewer than 6 seeds" in text
    assert (explained / "explain.png").stat().st_size > 20_000
    assert len(pd.read_csv(explained / "mediation.csv")) == 3 * len(GAPS)


def test_it_goes_on_where_it_was_stopped(study, explained, capsys, tmp_path):
    out = tmp_path / "again"
    out.mkdir()
    whole = pd.read_csv(explained / "networks.csv")
    runs = list(dict.fromkeys(whole["run"]))
    whole[whole["run"] != runs[2]].to_csv(out / "networks.csv", index=False)
    assert main(["explain", str(study), "--samples", "64", "--out", str(out)]) == 0
    assert "measured 1 of 1 runs" in capsys.readouterr().err
    again = pd.read_csv(out / "networks.csv")
    pd.testing.assert_frame_equal(again.sort_values(["run", "step"], ignore_index=True), whole, rtol=1e-5)
    assert (out / "ranking.csv").read_text() == (explained / "ranking.csv").read_text()


@pytest.mark.slow
def test_matched_networks_give_the_same_at_matched_loss(study, explained, tmp_path):
    argv = ["explain", str(study), "--samples", "64", "--networks", "matched", "--out", str(tmp_path)]
    assert main(argv) == 0
    assert len(pd.read_csv(tmp_path / "networks.csv")) < 24
    part, whole = (pd.read_csv(folder / "ranking.csv") for folder in (tmp_path, explained))
    columns = ["gap", "measure", "within", "within low", "within p", "across", "partial"]
    pd.testing.assert_frame_equal(part[columns], whole[columns], rtol=1e-4)


def test_mistakes(study, explained, tmp_path, capsys):
    empty = tmp_path / "unfinished"
    empty.mkdir()
    shutil.copy(study / "plan.yaml", empty)
    other = tmp_path / "other"
    other.mkdir()
    (other / "networks.csv").write_text("run,step\n")
    for argv, said in (
        ([tmp_path], "has no plan.yaml"),
        ([empty], "has finished"),
        ([study, "--samples", 0], "--samples must be positive"),
        ([study, "--jobs", 0], "--jobs must be positive"),
        ([study, "--reference", "btt"], "Did you mean 'bptt'?"),
        ([study, "--rules", "bptt,rfl"], "unknown rule 'rfl'"),
        ([study, "--out", other], "other measures"),
        ([study, "--networks", "some"], "invalid choice"),
    ):
        capsys.readouterr()
        assert main(["explain", *map(str, argv)]) == 2
        assert said in capsys.readouterr().err


def test_a_run_that_diverged_is_left_out(study, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(study, copy, ignore=shutil.ignore_patterns("explain", "checkpoints"))
    run = next((copy / "runs").glob("bptt*/*-seed3"))
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, "status": "diverged"}))
    argv = ["explain", str(copy), "--samples", "16", "--networks", "matched", "--rules", "bptt"]
    assert main(argv) == 0  # one rule: there is still a ranking within it
    ranking = pd.read_csv(copy / "explain" / "ranking.csv")
    assert ranking["n"].max() == 3
    assert ranking["across"].isna().all()
    assert str(run.relative_to(copy)) not in set(pd.read_csv(copy / "explain" / "networks.csv")["run"])
