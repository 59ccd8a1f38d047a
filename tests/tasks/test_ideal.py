"""The ideal observer of each task: its simulated accuracy is that of a formula, and nothing simpler does better."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bpgen.registry import find, plugins
from bpgen.streams import generator
from bpgen.tasks.adding import expected_in_unit
from bpgen.tasks.digits import Digits

N = 10_000
FROM_FILES = {"npz", "seqmnist", "spike_events"}
NOISES = (0.0, 0.1, 0.3, 1.0)


def task(name, **options):
    return find("task", name).load()(**options)


def below(z):
    """The standard normal distribution function."""
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def sides(z):
    """How often the sign of a sum is right whose mean is z standard deviations from 0."""
    return float(np.mean([below(each) for each in np.ravel(z)]))


def _adding(made, sd):  # of one who adds what was seen, without knowing that numbers lie in [0, 1]
    return 1.0 if sd == 0 else math.erf(made.tolerance / (2 * sd))


def _context(made, sd):
    strengths = made.max_evidence * (0.2 + 0.8 * (np.arange(1000) + 0.5) / 1000)
    each = sides(strengths * math.sqrt(made.stimulus) / math.hypot(made.evidence_sd, sd))
    told = 1.0 if sd == 0 else below(math.sqrt(made.n_steps / 2) / sd)
    return told * each + (1 - told) / 2


def _perceptual(made, sd):
    return sides(
        np.array(made.coherences) * math.sqrt(made.stimulus) / (math.sqrt(2) * math.hypot(made.evidence_sd, sd))
    )


def _romo(made, sd):
    return below(made.difference / 24 * math.sqrt(made.stimulus) / math.hypot(made.evidence_sd, sd))


def _match(made, sd):
    cue = below(float(made._bump.norm()) / 2 / math.hypot(made.evidence_sd, sd))
    return cue**2 + (1 - cue) ** 2


def _largest(others, sd):
    """How often 1 + noise exceeds so many other noises."""
    if sd == 0:
        return 1.0
    z = np.linspace(-8, 8, 4001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return float(np.sum(density * np.array([below(each + 1 / sd) for each in z]) ** others) * (z[1] - z[0]))


def _largest_clipped(others, sd):
    """The same where all inputs are cut to [0, 1]: those at a bound cannot be told apart."""
    if sd == 0:
        return 1.0
    z = np.linspace(-1 / sd, 0, 4001)  # of noise that leaves the right input inside
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    inside = float(np.trapezoid(density * np.array([below(each + 1 / sd) for each in z]) ** others, z))
    beyond = below(-1 / sd)  # how often another input is at 1, and how often the right one is at 0
    at_one = sum(math.comb(others, k) * beyond**k * (1 - beyond) ** (others - k) / (k + 1) for k in range(others + 1))
    return inside + 0.5 * at_one + beyond * 0.5**others / (others + 1)


FORMULAS = {
    "context_decision": _context,
    "perceptual_decision": _perceptual,
    "romo": _romo,
    "delayed_match_to_sample": _match,
    "copy_memory": lambda made, sd: _largest(made.n_out - 1, sd),
    "delayed_recall": lambda made, sd: _largest_clipped(made.n_out - 1, sd),
}


@pytest.mark.parametrize("sd", NOISES)
@pytest.mark.parametrize("name", FORMULAS)
def test_simulation_and_formula_agree(name, sd):
    made = task(name, noise_sd=sd)
    expected = FORMULAS[name](made, sd)
    error = 4 * math.sqrt(max(expected * (1 - expected), 1e-4) / N)
    assert made.ideal_accuracy(noisy=True, n=N) == pytest.approx(expected, abs=error)
    clean = FORMULAS[name](made, 0.0)
    assert made.ideal_accuracy(noisy=False, n=N) == pytest.approx(clean, abs=4 * math.sqrt(0.25 / N))


@pytest.mark.parametrize("sd", [0.005, 0.01, 0.03, 0.1, 0.3])
def test_adding_is_at_least_as_good_as_to_add_what_was_seen(sd):
    made = task("adding", noise_sd=sd)
    found, naive = made.ideal_accuracy(noisy=True, n=N), _adding(made, sd)
    assert found > naive - 4 * math.sqrt(naive * (1 - naive) / N) - 1e-3
    assert found < naive + 0.05
    assert made.ideal_accuracy(noisy=False, n=1000) == 1


def test_what_is_expected_of_a_number_in_the_unit_interval():
    seen = torch.tensor([-0.3, -0.05, 0.2, 0.5, 0.97, 1.4])
    v = torch.linspace(0, 1, 20001, dtype=torch.float64)
    for sd in (0.03, 0.2, 1.0):
        weight = torch.exp(-0.5 * ((seen.double().unsqueeze(1) - v) / sd) ** 2)
        expected = (weight * v).sum(1) / weight.sum(1)
        torch.testing.assert_close(expected_in_unit(seen, sd).double(), expected, rtol=0, atol=3e-3)
    assert torch.equal(expected_in_unit(seen, 0.0), seen)


@pytest.mark.parametrize(("sd", "lowest", "highest"), [(0.0, 1, 1), (0.1, 0.999, 1), (0.3, 0.6, 0.9), (1.0, 0.1, 0.5)])
def test_a_flip_flop_is_held_by_bayes_rule_better_than_by_a_threshold(sd, lowest, highest):
    made = task("flip_flop", noise_sd=sd)
    found = made.ideal_accuracy(noisy=True, n=2000)
    assert lowest <= found <= highest
    split = made.trials(2000, generator(1, "threshold"))
    x = made.perturb(split.x, generator(1, "noise"))
    held, right = torch.zeros(2000, 3), []
    for t in range(len(x)):
        held = torch.where(x[t].abs() > 0.5, x[t].sign(), held)
        right.append((held == split.target[t]).all(-1))
    assert found >= float(torch.stack(right).double().mean()) - 0.01


@pytest.mark.parametrize(("noise", "lowest"), [(0.0, 0.999), (0.2, 0.999), (0.6, 0.9), (0.9, 0.55)])
def test_cues_are_counted_in_spikes(noise, lowest):
    made = task("cue_accumulation", noise_sd=noise)
    found = made.ideal_accuracy(noisy=True, n=1000)
    assert found >= lowest
    assert found > 0.72 or noise > 0.8  # of the last cue alone


@pytest.mark.parametrize("name", [n for n in plugins("task") if n not in {*FROM_FILES, "digits", "encoded"}])
def test_every_drawn_task_states_it_and_is_solved_by_it_without_noise(name):
    """On its own test set: what is reported beside a gap."""
    made = task(name)
    split = made.split("test")
    answer = made.ideal_answer(split.x, 0.0)
    if name == "pattern_generation":
        assert answer is None
        assert math.isnan(made.ideal_accuracy(noisy=True))
        return
    assert answer.shape == split.target.shape
    clean, noisy = made.ideal_accuracy(noisy=False, n=2000), made.ideal_accuracy(noisy=True, n=2000)
    floor = {"context_decision": 0.93, "perceptual_decision": 0.83}.get(name, 0.999)
    assert floor < clean <= 1
    assert noisy <= clean + 0.01
    assert made.ideal_accuracy(noisy=True, n=2000) == noisy  # always the same trials


def test_of_handwriting_nobody_knows():
    assert math.isnan(Digits().ideal_accuracy(noisy=False))
    assert Digits().ideal_answer(torch.zeros(8, 1, 8), 0.0) is None


CLEAN_GAP = {"pattern_generation": "very patterns", "delayed_match_to_sample": "four different trials"}


@pytest.mark.parametrize("name", [n for n in plugins("task") if n not in FROM_FILES])
def test_every_task_says_whether_it_has_a_clean_gap(name):
    made = task(name)
    if name in CLEAN_GAP:
        assert CLEAN_GAP[name] in made.clean_gap
    else:
        assert made.clean_gap is True
        assert not made.reuses_training


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("perceptual_decision", {"evidence_sd": 0.0}),
        ("delayed_match_to_sample", {"evidence_sd": 0.0}),
        ("delayed_recall", {"n_steps": 5}),
        ("copy_memory", {"symbols": 2, "length": 2}),
    ],
)
def test_with_too_few_different_trials_it_is_not_defined(name, options):
    made = task(name, **options)
    assert isinstance(made.clean_gap, str)
    assert made.reuses_training
