"""`bpgen fit --seeds`: what several seeds leave is what each leaves alone."""

import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch

from bpgen.cli import main
from bpgen.cli.options import resolve
from bpgen.errors import RuleError
from bpgen.run import together
from bpgen.run.config import Config
from bpgen.run.fit import fit
from bpgen.run.folder import RunFolder
from bpgen.run.replay import load_run
from bpgen.run.resume import resume
from bpgen.run.together import fit_seeds

SMALL = ["--rule", "rflo", "--trainer.max_steps", "40", "--evaluation.every", "20", "--network.n_rec", "12"]
SMALL += ["--wandb", "off", "--threads", "1", "--sharpness.samples", "64", "--gap.train_samples", "64"]
SEEDS = (2, 3, 4)


def config(place, *options):
    return resolve([*SMALL, "--out", str(place), *options])


def of_seed(config, seed):
    return Config.of({**config.plain(), "seed": seed})


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def runs(tmp_path_factory, said):
    """Three seeds at once, and the same alone."""
    place = tmp_path_factory.mktemp("runs")
    at_once = fit_seeds(config(place / "together"), SEEDS, say=said.append, draw=False)
    alone = [fit(of_seed(config(place / "alone"), seed), say=lambda line: None, draw=False) for seed in SEEDS]
    return at_once, alone


def weights(folder):
    return [torch.load(file, weights_only=True) for file in folder.weights().values()]


def test_each_seed_has_the_folder_that_it_would_have_alone(runs, said):
    assert said[0] == "3 seeds are trained at once: 2, 3, 4"
    for together_, alone in zip(*runs, strict=True):
        here, there = together_.folder, alone.folder
        assert here.path.name == there.path.name
        assert sorted(p.relative_to(here.path) for p in here.path.rglob("*")) == sorted(
            p.relative_to(there.path) for p in there.path.rglob("*")
        )
        assert here.config().hash == there.config().hash
        pd.testing.assert_frame_equal(pd.DataFrame(here.rows()), pd.DataFrame(there.rows()), rtol=1e-4, atol=1e-5)
        for own, other in zip(weights(here), weights(there), strict=True):
            assert own["step"] == other["step"]
            for name, W in other["network"].items():
                assert torch.allclose(own["network"][name], W, atol=1e-5)
            assert torch.equal(own["rule"]["feedback.weight"], other["rule"]["feedback.weight"])
        for file in here.weights().values():  # not the weights of all seeds
            assert file.stat().st_size < 1.1 * there.weights()[0].stat().st_size
        assert here.checkpoint.stat().st_size < 1.1 * there.checkpoint.stat().st_size
    rows = [run.folder.rows()[-1]["train/loss"] for run in runs[0]]
    assert len(set(rows)) == len(SEEDS)
    assert np.std(rows) > 1e-2


def test_the_summary_says_who_was_trained_beside_it(runs):
    summary, alone = (found[0].folder.summary() for found in runs)
    assert summary["together"] == list(SEEDS)
    assert set(summary) - {"together"} == set(alone)
    assert summary["status"] == "finished"
    assert summary["config_hash"] == alone["config_hash"]
    assert summary["seconds"]["total"] == pytest.approx(
        summary["seconds"]["training"] + sum(summary["seconds"]["measuring"].values()), abs=0.01
    )


def test_its_network_loads(runs):
    found = load_run(runs[0][1].folder.path)
    assert torch.equal(found.network.W_rec, weights(runs[0][1].folder)[-1]["network"]["W_rec"])


def test_an_interrupted_seed_goes_on_alone(tmp_path, runs):
    def stop_at(line):
        if "seed 4: epoch" in line and "step 20" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    endings = fit_seeds(config(tmp_path), SEEDS, say=stop_at, draw=False)
    assert [ending.status for ending in endings] == ["interrupted"] * 3
    assert {ending.exit_code for ending in endings} == {143}
    for ending, alone in zip(endings, runs[1], strict=True):
        assert f"bpgen fit --resume {ending.folder.path}" in ending.message
        went_on = resume(str(ending.folder.path), say=lambda line: None, draw=False)
        assert went_on.status == "finished"
        own, other = weights(went_on.folder)[-1], weights(alone.folder)[-1]
        assert own["step"] == 40
        for name, W in other["network"].items():
            assert torch.allclose(own["network"][name], W, atol=1e-5)


@pytest.mark.parametrize("options", [["--optimizer.name", "adam"], ["--optimizer.momentum", "0.9"]])
def test_an_interrupted_seed_has_the_state_of_its_own_optimizer(tmp_path, options):
    options = [*options, "--optimizer.lr", "0.01", "--sharpness.samples", "0"]

    def stop_at(line):
        if "seed 3: epoch" in line and "step 20" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    endings = fit_seeds(config(tmp_path / "together", *options), SEEDS[:2], say=stop_at, draw=False)
    for seed, ending in zip(SEEDS, endings, strict=False):
        went_on = resume(str(ending.folder.path), say=lambda line: None, draw=False)
        alone = fit(of_seed(config(tmp_path / "alone", *options), seed), say=lambda line: None, draw=False)
        own, other = (weights(run.folder)[-1] for run in (went_on, alone))
        assert own["step"] == other["step"] == 40
        for name, W in other["network"].items():
            assert torch.allclose(own["network"][name], W, atol=1e-5)


def test_a_seed_that_diverges_ends_alone(tmp_path, monkeypatch, runs):
    def built(*arguments, build=together._built):
        experiments = build(*arguments)
        with torch.no_grad():
            experiments[1].module.network.W_out.fill_(1e38)
        return experiments

    monkeypatch.setattr(together, "_built", built)
    endings = fit_seeds(config(tmp_path), SEEDS, say=lambda line: None, draw=False)
    assert [ending.status for ending in endings] == ["finished", "diverged", "finished"]
    assert "Try a smaller --optimizer.lr" in endings[1].message
    assert [ending.folder.summary()["status"] for ending in endings] == ["finished", "diverged", "finished"]
    assert all("together" in ending.folder.summary() for ending in endings)
    last, alone = endings[2].folder.rows()[-1], runs[1][2].folder.rows()[-1]
    assert last["train/loss"] == pytest.approx(alone["train/loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--trainer.chunk", "4"], "chunks of a sequence"),
        (["--trainer.patience", "5"], "each ends by itself"),
        (["--network.n_rec", "256"], "keep a processor busy"),
        (["--preconditioned.samples", "8", "--optimizer.name", "adam"], "asks the trainer of each (preconditioned)"),
    ],
)
def test_what_cannot_be_or_is_no_faster_is_looped_and_said(tmp_path, options, reason):
    said = []
    options = [*options, "--trainer.max_steps", "1", "--sharpness.samples", "0", "--alignment.samples", "0"]
    endings = fit_seeds(config(tmp_path, *options), SEEDS[:2], say=said.append, draw=False)
    assert said[0].startswith("2 seeds, one after the other: ")
    assert reason in said[0]
    assert [ending.status for ending in endings] == ["finished"] * 2
    assert "together" not in endings[0].folder.summary()


@pytest.mark.pictures
def test_the_command_shows_the_seeds_together(tmp_path, capsys):
    assert main(["fit", *SMALL, "--seeds", "2", "--seed", "7", "--name", "pilot", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "2 seeds are trained at once: 7, 8" in shown
    assert "2 seeds at their last evaluation" in shown
    accuracy = [RunFolder(tmp_path / f"pilot-seed{s}").rows()[-1]["test/accuracy"] for s in (7, 8)]
    assert f"{np.mean(accuracy):.1%}" in shown
    assert (tmp_path / "pilot-seed8" / "figures" / "overview.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "pilot-seed8" / "summary.json").read_text())["seed"] == 8


@pytest.mark.parametrize("given", [["--seeds"], ["--seeds", "0"], ["--seeds=x"], ["--seeds", "2", "--seeds", "3"]])
def test_a_number_of_seeds_is_a_number(given, capsys):
    assert main(["fit", *given]) == 2
    assert "--seeds needs a number of seeds" in capsys.readouterr().err


def test_what_goes_wrong_in_all_ends_all(tmp_path, monkeypatch):
    def broken(self, *given):
        if self.global_step == 3:
            raise RuleError("no gradient any more")
        return step(self, *given)

    step = together.SeedsTraining.training_step
    monkeypatch.setattr(together.SeedsTraining, "training_step", broken)
    endings = fit_seeds(config(tmp_path), SEEDS[:2], say=lambda line: None, draw=False)
    assert [ending.status for ending in endings] == ["failed"] * 2
    assert all("no gradient any more" in ending.message for ending in endings)
