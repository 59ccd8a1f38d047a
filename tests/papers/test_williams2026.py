"""The linear theory: its equations against sums and autograd, networks in training against its flow, its report."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

import bpgen
from bpgen.analysis.verdicts import judge
from bpgen.cli import main
from bpgen.papers.linear_theory import Aligned, Training, flow, rule_of, velocity
from bpgen.papers.williams2026 import ALPHA, Williams2026

TEACHER = np.array([[1.1, 0.9], [0.8, 1.2], [0.6, 0.35]])
STUDENT = np.array([[0.5, -0.7], [0.9, 0.4], [0.2, -0.3]])
FEEDBACK, V = np.array([0.7, -0.9]), 0.6
LAGS = 400


def by_sums(rule):
    """Gradients of E ½(y - y*)² on white noise from impulse responses: h_t = Σ_k b w^k x_{t-k}, lag by lag."""
    k = np.arange(LAGS)
    total = np.zeros_like(STUDENT)
    for m in range(STUDENT.shape[1]):
        (a, b, w), (A, B, W), f = STUDENT[:, m], TEACHER[:, m], FEEDBACK[m]
        h, error = b * w**k, a * b * w**k - A * B * W**k  # responses to x of k steps ago
        total[0, m] = error @ h
        f, v = (a, 0.0) if rule == "tbptt" else (f, V)
        before = np.concatenate([[0.0], h[:-1]])  # h_{t-1}
        p_b, p_w = v**k, np.zeros(LAGS)  # eligibility traces Σ_s v^s x_{t-s}, Σ_s v^s h_{t-1-s}
        for s in range(LAGS):
            p_w[s:] += v**s * before[: LAGS - s]
        total[1, m], total[2, m] = f * (error @ p_b), f * (error @ p_w)
    return total


def by_autograd():
    a, b, w = (torch.tensor(x, requires_grad=True) for x in STUDENT)
    A, B, W = (torch.tensor(x) for x in TEACHER)
    loss = 0.5 * (a * b) ** 2 / (1 - w**2) - a * b * A * B / (1 - w * W) + 0.5 * (A * B) ** 2 / (1 - W**2)
    return torch.stack(torch.autograd.grad(loss.sum(), (a, b, w))).numpy()


def test_the_equations_are_those_of_long_sequences_of_white_noise():
    np.testing.assert_allclose(velocity("bptt", STUDENT, TEACHER), by_autograd(), rtol=1e-10)
    for rule in ("rflo", "tbptt"):
        got = velocity(rule, STUDENT, TEACHER, FEEDBACK, V)
        np.testing.assert_allclose(got, by_sums(rule), rtol=1e-10)
    assert np.abs(velocity("rflo", STUDENT, TEACHER, FEEDBACK, V) - by_autograd())[1:].min() > 0.01


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_of_the_feedback_decides_whether_a_solution_attracts(sign):
    for m in range(2):
        teacher, f = TEACHER[:, m : m + 1], sign * np.abs(FEEDBACK[m : m + 1])
        columns = []
        for k in range(3):
            step = 1e-6 * np.eye(3)[:, k : k + 1]
            up, down = (velocity("rflo", teacher + s * step, teacher, f, V) for s in (1, -1))
            columns.append((up - down).ravel() / 2e-6)
        values = -np.linalg.eigvals(np.array(columns).T).real  # of the flow
        values = values[np.abs(values).argsort()]
        assert abs(values[0]) < 1e-6  # ab = AB is a line
        assert (values[1:] < 0).all() if sign > 0 else values.max() > 0.05


def test_weights_with_modes_have_these_modes():
    aligned = Aligned.drawn(2, ALPHA, seed=3)
    params = aligned.weights(STUDENT)
    modes, between = aligned.modes(params)
    np.testing.assert_allclose(modes, STUDENT, atol=1e-12)
    assert between < 1e-7
    params["W_rec"] = params["W_rec"] + 0.5
    assert aligned.modes(params)[1] > 0.1


@pytest.mark.parametrize("rule", ["bptt", "rflo", "tbptt"])
def test_networks_in_training_follow_the_flow_of_their_rule_and_of_no_other(rule):
    aligned, training = Aligned.drawn(2, ALPHA, seed=1), Training(50, every=25, batch=24, T=60)
    start, feedback = np.array([[0.5, 0.6], [0.7, 0.5], [0.1, 0.2]]), np.array([1.4, 1.3])
    got, between = training.run(
        aligned, rule_of(rule, aligned.feedback(feedback) if rule == "rflo" else None), start, TEACHER, seed=1
    )
    errors = {}
    for name in ("bptt", "rflo", "tbptt"):
        said = flow(name, start, TEACHER, training.looks * training.rate, feedback, 1 - ALPHA)
        errors[name] = float(np.linalg.norm(got - said) / np.linalg.norm(said - said[0]))
    assert errors.pop(rule) < 0.03
    assert min(errors.values()) > 0.1
    assert between < 0.01


def planted(right=True):
    """A table as the simulations write it: everything as the theory says, or nothing."""
    rows = []
    for seed in range(8):
        noise = 0.01 * seed
        for label in ("BPTT", "RFLO", "tBPTT(1)"):
            rows.append({"part": "learning", "condition": label, "error": noise / 10 if right else 0.3 + noise})
        for label, sign in (("same", -1), ("opposite", 1)):
            moved = sign * (3 + noise) * (1 if right else -1)
            rows.append({"part": "solution", "condition": label, "moved": moved, "flow_moved": sign * 3})
        for label, share in (("RFLO", 0.0 if right else 0.1), ("BPTT", 0.1 if right else 0.0), ("RFLO, tanh", 0.01)):
            share = share * (1 + noise) + 1e-12 * seed
            rows.append({"part": "rank", "condition": label, "beyond_W": share, "beyond_B": share})
        for row in rows[-8:]:
            row["seed"] = seed
    return pd.DataFrame(rows)


def test_verdicts_follow_the_table():
    decisions = {right: [v.decision for v in judge(Williams2026().checks(planted(right)))] for right in (True, False)}
    assert decisions[True] == ["supported"] * 11 + ["described"] * 2
    assert "supported" not in decisions[False]
    assert decisions[False].count("not supported") >= 9


STRANGER = '''
"""A theory of one's own."""
import pandas as pd
from matplotlib.figure import Figure
from bpgen.analysis.statistics import mean_effect
from bpgen.analysis.verdicts import Check
from bpgen.papers import Claim, Paper, Simulation, Size

def of_seed(seed):
    return pd.DataFrame([{"seed": seed, "found": 2 + 0.1 * (seed % 3)}])

class Theory(Paper):
    title = "Two"
    citation = "Smith 2031"
    claims = {"a": Claim("it is positive", "two")}
    remark = "No run at all."
    sizes = {"default": Size([], "no time", Simulation(of_seed, 6, {"nothing": lambda table: Figure()}))}

    def checks(self, table, level=None):
        effect = mean_effect(dict(zip(table["seed"], table["found"])), len(table))
        return [Check("a", "anywhere", "it is positive", effect, "larger", 1.0, "of it", "nothing")]
'''


def test_a_strangers_simulations_are_judged(install, tmp_path, monkeypatch, capsys):
    install("theory", {"smith2031": "theory_paper:Theory"}, "bpgen.papers", theory_paper=STRANGER)
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "smith2031", "--dry-run"]) == 0
    assert capsys.readouterr().out == "6 seeds; no time\n"
    assert main(["reproduce", "smith2031", "--jobs", "1", "--seeds", "7"]) == 0
    captured = capsys.readouterr()
    assert "seed 7 of 7 done" in captured.err
    for part in (
        "- (a) it is positive; reported: two",
        "| (a)   | anywhere | it is positive | supported",
        "No run at all.",
    ):
        assert part in captured.out
    folder = tmp_path / "studies" / "smith2031"
    assert len(pd.read_csv(folder / "table.csv")) == 7
    assert pd.read_csv(folder / "verdicts.csv")["verdict"].tolist() == ["supported"]
    assert (folder / "figures" / "nothing.png").is_file()
    assert (folder / "summary.md").read_text() == captured.out[:-1]
    assert main(["reproduce", "smith2031", "--seeds", "0"]) == 2
    for option in (["--set", "optimizer.lr=1"], ["--until", "decided"], ["--retry"], ["--data-dir", "."]):
        capsys.readouterr()
        assert main(["reproduce", "smith2031", *option]) == 2
        assert f"{option[0]} is for runs, and this paper has simulations of its own" in capsys.readouterr().err


def test_it_is_a_paper_like_others():
    paper = bpgen.registry.find("paper", "williams2026").load()
    assert set(paper.sizes) == {"quick", "default", "full"}
    assert json.dumps({letter: claim.text for letter, claim in paper.claims.items()})
