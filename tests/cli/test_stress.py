"""`bpgen stress`: the numbers of training at the test's own noise, curves over sizes, and what is planted."""

import copy

import numpy as np
import pandas as pd
import pytest

from bpgen.analysis.settings import by_rule, settings
from bpgen.analysis.statistics import paired
from bpgen.cli import main
from bpgen.run.replay import load_run
from bpgen.streams import generator
from bpgen.study.stress import CLEAN, Answers, Place, Size, answers, curves, perturbed, places
from bpgen.tasks.digits import Digits

PLAN = """
name: small
base: digits
set: {trainer.max_steps: 60, network.n_rec: 8, trainer.batch_size: 64, optimizer.lr: 0.1}
axes: {rule: [bptt, three_factor]}
seeds: 4
measure: {evaluation: {every: 20}, sharpness: {samples: 0}, alignment: {samples: 0}}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    (folder / "plan.yaml").write_text(PLAN)
    assert main(["study", str(folder / "plan.yaml"), "--out", str(folder / "small"), "--jobs", "1"]) == 0
    assert main(["stress", str(folder / "small"), "--noise", "0.1,0.2", "--shift", "1"]) == 0
    return folder / "small"


def test_at_the_noise_of_the_test_it_is_what_training_measured(study):
    table, found = by_rule(pd.read_csv(study / "table.csv")), pd.read_csv(study / "stress" / "stress.csv")
    (setting,) = settings(table)
    own = found[(found["kind"] == "noise") & (found["size"] == 0.2)].set_index("measure")
    for measure, gap in (
        ("gap", "gap_noisy"),
        ("robustness", "gap_robustness"),
        ("generalization", "gap_generalization"),
    ):
        effect = paired(setting.matched("three_factor", "bptt"), f"{gap}/accuracy", "three_factor", "bptt")
        assert own.loc[measure, "difference"] == pytest.approx(100 * effect.estimate, abs=1e-3)
        assert own.loc[measure, "low"] == pytest.approx(100 * effect.interval()[0], abs=1e-2)
        assert own.loc[measure, "n"] == effect.n
    clean = found[found["kind"] == "clean"]
    effect = paired(setting.matched("three_factor", "bptt"), "gap/accuracy", "three_factor", "bptt")
    assert clean["difference"].tolist() == [pytest.approx(100 * effect.estimate, abs=1e-3)]
    whole = found.pivot_table(index=["kind", "size"], columns="measure", values="difference").dropna()
    assert np.allclose(whole["gap"], whole["robustness"] + whole["generalization"], atol=1e-3)


def test_it_draws_and_writes_and_measures_nothing_twice(study, capsys, monkeypatch):
    written = {f.name for f in (study / "stress").iterdir()}
    assert {"stress.csv", "stress.md", "noise.png", "shift.png", "answers"} <= written
    monkeypatch.setattr("bpgen.study.stress._measured", None)
    assert main(["stress", str(study), "--noise", "0.1,0.2", "--shift", "1"]) == 0
    text = capsys.readouterr().out
    assert "against bptt" in text
    assert "| three_factor | shift 1" in text


def test_items_are_those_of_the_test(study, tmp_path):
    (place, *_) = places(by_rule(pd.read_csv(study / "table.csv")))
    step = place.steps[1]
    found = answers(study, place.run, [step], [CLEAN, Size("shift", 2)], tmp_path)[step]
    network, test = load_run(study / place.run, step).network, Digits().split("test")
    assert np.array_equal(found.test[0], (network(test.x).argmax(-1) == test.target).numpy())
    assert found.test.shape == (2, 300)
    moved = perturbed(Digits(), Size("shift", 2)).perturb(test.x, generator(0, "x"))
    for image, own in zip(moved.unbind(1)[:20], test.x.unbind(1)[:20], strict=True):
        assert (image[:, :6] == own[:, 2:]).all() or (image[:, 2:] == own[:, :6]).all()


def planted(rng, seeds, robust, general):
    """A rule that a perturbation costs `robust` more on all inputs and `general` more on test inputs."""
    found = []
    for condition, more, beyond in (("rule", robust, general), ("bptt", 0.0, 0.0)):
        for seed in range(seeds):
            train = np.array([0.97, 0.90 - more]) + 0.005 * rng.normal(size=2)
            right = [rng.random(300) < p for p in (0.95, 0.88 - more - beyond)]
            step = Answers(train, np.stack(right).astype(float))
            found.append((Place("s", ("rule", "bptt"), condition, seed, "r", (1, 1), 1.0), {1: step}))
    return curves(found, [CLEAN, Size("noise", 0.2)]).set_index(["kind", "measure"])


def test_a_network_that_noise_hurts_but_that_does_not_overfit_is_told_from_one_that_does():
    rng = np.random.default_rng(0)
    for robust, general in ((0.05, 0.0), (0.0, 0.05)):
        found = planted(rng, 20, robust, general).loc["noise"]
        for measure, truth in (("robustness", robust), ("generalization", general), ("gap", robust + general)):
            row = found.loc[measure]
            assert row["low"] - 0.3 < 100 * truth < row["high"] + 0.3
            assert (row["low"] > 0) == (truth > 0)
        gap = found.loc["gap"]
        assert gap["low_items"] < gap["low"] + 0.2
        assert gap["low_items"] < gap["difference"] < gap["high_items"]


def test_tasks_keep_their_own_noise():
    task = Digits()
    other = perturbed(task, Size("noise", 0.4))
    assert (task.noise_sd, other.noise_sd) == (0.2, 0.4)
    assert "perturb" not in copy.copy(task).__dict__


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--noise", "x"], "--noise must be positive numbers"),
        (["--noise", "-1"], "--noise must be positive numbers"),
        (["--noise", "", "--shift", ""], "nothing to do"),
        (["--noise", "", "--shift", "8"], "a shift must be from 1 to 7"),
        (["--rules", "bptt"], "it takes two rules"),
    ],
)
def test_bad_input_is_named(study, options, says, capsys):
    assert main(["stress", str(study), *options, "--out", str(study / "other")]) == 2
    assert says in capsys.readouterr().err
