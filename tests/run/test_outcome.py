"""What the end of a run adds: classes that it confuses, how sure its accuracies are, its name, its activity."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from bpgen.analysis.proportions import wilson
from bpgen.cli import main
from bpgen.cli.ending import confused_most
from bpgen.columns import written
from bpgen.run.config import Config
from bpgen.run.fit import fit
from bpgen.run.replay import load_run

SMALL = ["--trainer.max_steps", "30", "--evaluation.every", "30", "--network.n_rec", "12", "--wandb", "off"]
SMALL += ["--threads", "1", "--sharpness.samples", "0", "--alignment.samples", "0"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def digits(place):
    assert main(["fit", "--rule", "bptt", "--name", "pilot 1", *SMALL, "--out", str(place)]) == 0
    return place / "pilot 1"


def test_confusions_are_those_of_the_saved_network(digits):
    """Counted by hand, one sequence after another, from what the network answers."""
    found = load_run(digits).activity("test")
    by_hand = np.zeros((10, 10), dtype=int)
    for target, outputs in zip(found.target, found.outputs[-1], strict=True):
        by_hand[target, outputs.argmax()] += 1
    table = pd.read_csv(digits / "confusion.csv")
    clean = table[table["split"] == "test"].pivot_table(index="target", columns="answer", values="n").to_numpy()
    assert (clean == by_hand).all()
    assert by_hand.sum() == 300
    noisy = table[table["split"] == "test_noisy"]
    row = load_run(digits).metrics.iloc[-1]
    right = noisy.loc[noisy["target"] == noisy["answer"], "n"].sum() / 300
    assert right == pytest.approx(row["test_noisy/accuracy"])
    assert right != pytest.approx(row["test/accuracy"])
    assert (digits / "figures" / "confusion.png").stat().st_size > 10_000
    wrong = by_hand - np.diag(np.diag(by_hand))
    target, answer = np.unravel_index(wrong.argmax(), wrong.shape)
    said = f"test class {target} as {answer} ({wrong.max()} of {by_hand[target].sum()})"
    assert said in confused_most(digits / "confusion.csv")


def test_the_table_says_how_sure_an_accuracy_is(place, digits, capsys):
    summary = json.loads((digits / "summary.json").read_text())
    assert summary["sequences"] == {"train": 1197, "val": 300, "test": 300, "test_noisy": 300}
    assert summary["chance"] == pytest.approx(0.1, abs=0.01)  # ten classes, almost even
    main(["fit", "--rule", "bptt", *SMALL, "--out", str(place), "--name", "again"])
    low, high = wilson(summary["last"]["test/accuracy"], 300)
    assert f"{low:.1%} to {high:.1%}" in capsys.readouterr().out


def test_wilson_is_the_interval_whose_ends_the_share_is_at_the_edge_of():
    """At each end p0 of the interval the observed share is 1.96 standard errors of p0 away; never outside [0, 1]."""
    for share, n in ((0.86, 300), (0.5, 7), (0.0, 20), (1.0, 20)):
        ends = wilson(share, n)
        for end in ends:
            assert abs(share - end) == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / n), abs=1e-6)
            assert -1e-12 <= end <= 1 + 1e-12
        assert ends[0] <= share <= ends[1]


def test_values_and_labels_have_no_confusions(place):
    task = ["--task", "adding", "--task.n_train", "64", "--task.n_test", "20"]
    assert main(["fit", "--rule", "bptt", "--name", "values", *task, *SMALL, "--out", str(place)]) == 0
    assert not (place / "values" / "confusion.csv").exists()
    assert json.loads((place / "values" / "summary.json").read_text())["chance"] is None


def test_a_name_is_that_of_folder_and_figures_and_decides_no_number(place, digits):
    again = place / "again"
    assert (again / "metrics.csv").read_bytes() == (digits / "metrics.csv").read_bytes()
    hashes = [json.loads((run / "summary.json").read_text())["config_hash"] for run in (digits, again)]
    assert hashes[0] == hashes[1]
    assert "pilot" not in (digits / "config.yaml").read_text()  # the next run from it is another one
    assert load_run(digits).config["rule"]["name"] == "bptt"


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "-x", "a:b", "end.", "a\nb", "x" * 101, "a\\b", "a*"])
def test_names_that_are_no_folders_are_refused(name, tmp_path, capsys):
    assert main(["fit", *SMALL, "--out", str(tmp_path), f"--name={name}"]) == 2
    assert "--name must be" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_gets_a_number(place, digits):
    assert main(["fit", "--rule", "rflo", "--name", "pilot 1", *SMALL, "--out", str(place)]) == 0
    assert load_run(place / "pilot 1-2").config["rule"]["name"] == "rflo"


def test_activity_is_a_file_with_what_is_known_of_each_trial(place, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--rule", "rflo", "--task", "romo", "--name", "romo", *SMALL, "--out", str(place)]) == 0
    assert main(["activity", str(place / "romo"), "--samples", "40"]) == 0
    assert "known of each: f1, f2" in capsys.readouterr().out
    found, run = np.load("romo-test.npz"), load_run(place / "romo")
    assert found["h"].shape == (25, 40, 12)
    assert ((found["info_f1"] > found["info_f2"]) == found["target"][-1]).all()
    rising = found["x"][:5, :, 0].mean(0)  # the first stimulus; its noise has sd 0.05 a step
    assert np.corrcoef(rising, found["info_f1"])[0, 1] > 0.95
    with torch.no_grad():
        split = run.task.split("test")
        h = run.network.run(run.network.params(), split.x[:, :40], when="all", in_place=False).h[1:]
    np.testing.assert_array_equal(found["h"], h.numpy())
    assert main(["activity", str(place / "romo"), "--split", "val", "--step", "0", "--out", "a.csv"]) == 0
    table = pd.read_csv("a.csv")
    assert list(table.columns[:4]) == ["sequence", "t", "f1", "f2"]
    assert table.groupby("sequence")["f1"].nunique().eq(1).all()
    for wrong, message in (
        (["--split", "tset"], "Did you mean 'test'"),
        (["--out", "a.mat"], "must end in .npz or .csv"),
        (["--step", "all"], "one evaluation"),
        (["--out", "/nowhere/a.npz"], "cannot write"),
    ):
        assert main(["activity", str(place / "romo"), *wrong]) == 2
        assert message in capsys.readouterr().err


def test_no_number_is_written_as_minus_zero():
    assert written("{:+.1%}", -0.0001) == "+0.0%"
    assert written("{:.2f}", -0.001) == "0.00"
    assert written("{:+.1%}", -0.001) == "-0.1%"
    assert written("{:.3g}", -0.04) == "-0.04"
    assert written("{:+.3g}", -0.0) == "+0"


def test_a_run_without_a_gap_has_an_outcome(place):
    """As those have that began before there was one, or whose config a stranger wrote."""
    config = Config.of({"trainer": {"max_steps": 3}, "network": {"n_rec": 4}, "wandb": "off", "out": str(place)})
    assert config.measurements == {}
    ending = fit(config, draw=True)
    assert ending.status == "finished"
    assert "sequences" not in ending.folder.summary()  # no number is a mean over any
