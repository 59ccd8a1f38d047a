"""Diffusing neuromodulators: verdicts on planted tables, the plans' time constants, and what is drawn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bpgen.analysis.settings import BLOCK, SHARPNESS, SURROGATE, with_surrogates
from bpgen.analysis.verdicts import judge
from bpgen.cli import main
from bpgen.cli.options import resolve
from bpgen.figures.study import study_figures
from bpgen.papers.barretto2026 import BPTT, DIFFUSION, EPROP, PERMUTED, REPORTED, Barretto2026
from bpgen.papers.reproduce import plan_of, size_of
from tests.analysis.planted import LOSS

# rule: final accuracy, λ_max and gap at equal loss, cosine
RIGHT = {BPTT: (98, 1, 1, 1.0), DIFFUSION: (93, 2, 3, 0.9), PERMUTED: (88, 2, 3, 0.8), EPROP: (86, 4, 6, 0.7)}
WRONG = {BPTT: (86, 4, 6, 1.0), DIFFUSION: (88, 2, 3, 0.7), PERMUTED: (93, 2, 3, 0.8), EPROP: (98, 1, 1, 0.9)}


def planted(rules, n=8, tasks=("cue_accumulation", "pattern_generation")):
    """Runs whose loss falls alike under every rule; pattern generation has no accuracy, and its loss is 100 - that."""
    rng, rows = np.random.default_rng(0), []
    for task in tasks:
        for rule, (accuracy, sharp, gap, cosine) in rules.items():
            for seed in range(n):
                off, right = 0.05 * rng.normal(size=5), accuracy + 0.3 * rng.normal()
                for k, loss in enumerate(LOSS):
                    key = {"condition": rule, "rule": rule, "alpha": 0.4, "task": task, "seed": seed, "step": 10 * k}
                    row = {"status": "finished", "lr": 0.01, "train/loss": loss, "alignment/cosine/W_rec": cosine}
                    row |= {"sharpness/lambda_max": sharp * math.exp(off[0]), "alignment/cosine": cosine}
                    row |= {"alignment/rho": cosine, "reuses_training": task == "pattern_generation"}
                    row["alignment/cosine/W_rec"] += 0.01 * off[1]
                    gaps = {kind: gap / 100 * math.exp(off[2]) for kind in ("gap", "gap_noisy")}
                    if task == "cue_accumulation":
                        row |= {f"{kind}/accuracy": value for kind, value in gaps.items()}
                        row |= {"test/accuracy": right / 100, "test/loss": loss}
                    else:
                        row |= {f"{kind}/loss": value for kind, value in gaps.items()}
                        row |= {"test/accuracy": math.nan, "test/loss": (100 - right) / 100}
                    rows.append(key | row)
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def verdicts():
    return {right: judge(Barretto2026().checks(planted(RIGHT if right else WRONG))) for right in (True, False)}


def test_verdicts_follow_the_table(verdicts):
    decided = {right: [v.decision for v in of if v.check.kind != "description"] for right, of in verdicts.items()}
    assert set(decided[True]) == {"supported"}
    assert set(decided[False]) == {"not supported"}
    assert len(decided[True]) == (2 + 1 + 2 + 3 + 6) + (2 + 1 + 2 + 3 + 3)  # a clean gap where trials are new


def test_what_is_reported_stands_beside_what_came_out(verdicts):
    said = {v.check.text: v.check.effect.estimate for v in verdicts[True] if v.check.kind == "description"}
    assert said["diffusion: test accuracy in the end (reported 92.9 %)"] == pytest.approx(93, abs=0.5)
    assert said["permuted diffusion: test accuracy in the end"] == pytest.approx(88, abs=0.5)
    assert said["e-prop: test loss in the end"] == pytest.approx(0.14, abs=0.005)


def test_the_figure_has_the_reported_numbers():
    figure = study_figures(planted(RIGHT), Barretto2026.styles, Barretto2026.figures)["performance_by_rule"]
    accuracy, loss = figure.axes
    marks = [line.get_ydata()[0] for line in accuracy.lines if line.get_marker() == "D" and len(line.get_ydata()) == 1]
    assert set(REPORTED["cue_accumulation"].values()) <= set(marks)
    assert "loss" in loss.get_ylabel()


TAUS = {"cue_accumulation": (20, 2000), "spiking_delayed_match": (20, 1400), "pattern_generation": (30, 2000)}  # ms


@pytest.mark.parametrize("size", ["quick", "default", "full"])
def test_plans_have_the_published_time_constants(size):
    (experiment,) = size_of(Barretto2026(), size).experiments
    plan = plan_of(experiment)
    first, *others = plan.axes["rule"]
    assert first == ("bptt" if size == "quick" else {"name": "bptt", "set": {"neuron.reset": "attached"}})
    assert all(rule["feedback"] == "symmetric" for rule in others)
    for condition in replace(plan, axes={**plan.axes, "rule": [first]}).conditions(resolve):
        config, dt = condition.config, 10.0 if size == "quick" else 1.0
        tau, tau_a = TAUS[config.task.name]
        neuron, network = config.neuron.options, config.network
        assert config.task.options.get("dt", 10.0) == dt
        assert neuron["alpha"] == pytest.approx(-math.expm1(-dt / tau), rel=1e-4)
        assert network["kappa"] == pytest.approx(math.exp(-dt / tau), rel=1e-4)
        lif = config.task.name == "pattern_generation"
        assert neuron["adaptive"] == (0 if lif else 0.5)
        assert lif or 1 - neuron["rho"] == pytest.approx(-math.expm1(-dt / tau_a), rel=1e-3)
        assert network["readout_density"] == 0.1
        assert (network["input_density"], network["rescale"]) == ((1.0, True) if size == "quick" else (0.1, False))
        assert neuron["reset"] == ("detached" if size == "quick" else "attached")


def test_it_is_listed_with_its_times(capsys):
    with pytest.raises(SystemExit):
        main(["reproduce", "barretto2026", "--help"])
    assert "about 5 days" in " ".join(capsys.readouterr().out.split())


def test_curvature_of_spiking_networks_is_the_surrogates():
    table = pd.DataFrame({SHARPNESS: [math.nan, 2.0], SURROGATE: [3.0, math.nan], BLOCK: ["W_rec", "W_rec"]})
    found = with_surrogates(table)
    assert found[SHARPNESS].tolist() == [3, 2]
    assert found[BLOCK].tolist() == ["W_rec of the surrogate network", "W_rec"]
    assert with_surrogates(table[[SHARPNESS, BLOCK]]).equals(table[[SHARPNESS, BLOCK]])
