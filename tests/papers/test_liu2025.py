"""Networks matched at a loss, their comparisons, and verdicts that follow the table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import bpgen
from bpgen.analysis.verdicts import judge
from bpgen.papers import liu2025_networks as networks
from bpgen.papers.liu2025 import Liu2025
from bpgen.papers.liu2025_networks import KINDS, WAYS, Kind, Trained, Training, compared, conditions, train
from bpgen.similarity import procrustes
from bpgen.streams import generator
from bpgen.tasks.context_decision import ContextDecision

SMALL = Training(24, 30)
TASK = ContextDecision(max_evidence=0.5, evidence_sd=0.25)


@pytest.fixture(scope="module")
def rows():
    return compared(3, SMALL)


def test_conditions_are_those_of_the_task_without_noise():
    x = conditions(TASK)
    assert x.shape == (72, TASK.n_steps, 5)
    assert len(np.unique(x.reshape(72, -1), axis=0)) == 72
    answers = TASK.ideal_answer(torch.from_numpy(x).transpose(0, 1), 0.0)[0].numpy()
    context, evidence = x[:, 0, 3].astype(int), x[:, 0, :2]
    np.testing.assert_array_equal(answers, evidence[np.arange(72), context] > 0)
    drawn = TASK.trials(50, torch.Generator().manual_seed(0)).x
    assert ((drawn[:, :, 2:].std(0) > 0) == torch.from_numpy(x[0, :, 2:].std(0) > 0)).all()  # the same courses


def test_all_kinds_of_a_seed_start_with_the_same_weights_and_another_seed_with_others():
    first = {name: train(kind, 5, Training(16, 1)).weights(0) for name, kind in KINDS.items()}
    W = first["BPTT"]["W_rec"]
    for name, kind in KINDS.items():
        torch.testing.assert_close(first[name]["W_rec"], kind.gain * W)
        assert torch.equal(first[name]["W_out"], first["BPTT"]["W_out"])
    assert W.std() == pytest.approx(1.5 / 4, rel=0.15)
    assert not torch.allclose(train(KINDS["BPTT"], 6, Training(16, 1)).weights(0)["W_rec"], W)


def test_the_first_step_is_adams_on_the_rules_gradient():
    batch = TASK.trials(networks.BATCH, generator(2, "batch", 0))
    found = {}
    for name in ("eprop", "bptt", "readout_only"):
        trained = train(Kind(name), 2, Training(16, 1))
        net, before, after = trained.network, trained.weights(0), trained.weights(1)
        net.load_state_dict(before, strict=False)
        g = bpgen.gradients(name, net, batch.x, batch.target, "cross_entropy", "all", mask=batch.mask).grads
        for weight, w in before.items():
            step = -1e-3 * g[weight] / (g[weight].abs() + 1e-8)
            torch.testing.assert_close(after[weight] - w, step, atol=1e-6, rtol=1e-3)
        found[name] = after["W_rec"]
    assert torch.equal(found["readout_only"], before["W_rec"])
    assert not torch.allclose(found["eprop"], found["bptt"])


def test_losses_fall_and_are_the_same_again():
    trained, again = train(Kind("eprop"), 2, SMALL), train(Kind("eprop"), 2, SMALL)
    assert trained.losses == again.losses
    assert trained.losses[-1] < 0.95 * trained.losses[0]
    faster = train(Kind("eprop", faster=10), 2, SMALL)
    assert faster.losses[-1] < 0.5 * trained.losses[0]


def test_a_network_is_taken_at_its_first_look_at_the_level_or_below():
    trained = Trained.__new__(Trained)
    trained.losses = [0.7, 0.4, 0.5, 0.3, 0.6]
    assert [trained.first_at(level) for level in (0.7, 0.45, 0.4, 0.35, 0.3)] == [0, 1, 1, 3, 3]
    with pytest.raises(StopIteration):  # never an untrained network in its stead
        trained.first_at(0.29)


def test_rounding_puts_no_level_out_of_reach(monkeypatch):
    """Levels are powers of losses: the last one is the lowest loss itself."""
    seen = []
    monkeypatch.setattr(networks, "MEASURES", {})
    monkeypatch.setattr(networks, "_places", lambda *_: {})
    monkeypatch.setattr(Trained, "activity", lambda *_: None)

    def fake(kind, seed, how):
        trained = Trained.__new__(Trained)
        trained.losses = [0.7 + 0.01 * seed, *np.random.default_rng([seed, len(str(kind))]).uniform(0.01, 0.5, 20)]
        return trained

    monkeypatch.setattr(networks, "train", fake)
    for seed in range(60):
        seen += networks.compared(seed, SMALL)
    table = pd.DataFrame(seen).query("condition != 'untrained'")
    assert len(table) == 60 * (len(KINDS) - 1) * len(WAYS)
    assert (table[["loss", "loss_bptt"]].max(axis=1) <= table["level"]).all()


def test_kinds_are_compared_with_bptt_between_different_initial_weights_at_equal_losses(rows):
    row = next(r for r in rows if r["condition"] == "e-prop" and r["way"] == 1)
    pair = [train(KINDS["e-prop"], s, SMALL) for s in (6, 7)]
    bptt = [train(KINDS["BPTT"], s, SMALL) for s in (6, 7)]
    level = max(min(t.losses) for t in (*pair, *bptt))
    assert row["level"] == pytest.approx(level)
    at = [next(i for i, v in enumerate(t.losses) if v <= level) for t in (*pair, *bptt)]
    assert row["loss"] == pytest.approx(np.mean([t.losses[i] for t, i in zip(pair, at[:2], strict=True)]))
    k_A, k_B, A, B = (t.activity(i) for t, i in zip((*pair, *bptt), at, strict=True))
    assert row["angle"] == pytest.approx((procrustes(k_A, B) + procrustes(k_B, A)) / 2)
    assert row["angle_bptt"] == pytest.approx(procrustes(A, B))
    assert row["angle_same_start"] == pytest.approx((procrustes(k_A, A) + procrustes(k_B, B)) / 2)
    assert row["angle_same_start"] < 0.7 * row["angle"]  # what pairs of one start would have shown


def test_rows_are_of_every_kind_and_loss(rows):
    table = pd.DataFrame(rows)
    trained = [name for name in KINDS if name != "BPTT"]
    assert len(table) == len(trained) * len(WAYS) + 1
    assert (table["loss"] <= table["level"] * (1 + 1e-9))[table["condition"] != "untrained"].all()
    for _, own in table[table["condition"] != "untrained"].groupby("condition"):
        assert own["level"].is_monotonic_decreasing
    assert table[table["way"] == 1]["place"].notna().all()


def planted(further):
    """A table in which kinds are so many times as far from BPTT as BPTT is."""
    out = []
    for seed in range(10):
        for kind in (*(k for k in KINDS if k != "BPTT"), "untrained"):
            r = np.random.default_rng([seed, len(kind)])
            own, ratio = 0.3 + 0.01 * r.standard_normal(), further.get(kind, 1.0) * (1 + 0.01 * r.standard_normal())
            for way in WAYS if kind != "untrained" else (1.0,):
                row = {f"{m}_bptt": own for m in networks.MEASURES}
                row |= {f"{m}{to}": own * ratio for m in networks.MEASURES for to in ("", "_same_start")}
                place = {"place": 0.3 * (ratio - 1), "place_bptt": 0.0, "baseline": 0.5 + 0.01 * r.standard_normal()}
                out.append({"seed": seed, "condition": kind, "way": way, "level": 0.1, **row, **place})
    return pd.DataFrame(out)


TESTED = ("tanh", "a third of the gain", "twice the gain", "readout only", "untrained")


def test_verdicts_follow_the_table():
    paper = Liu2025()
    as_said = [v.decision for v in judge(paper.checks(planted(dict.fromkeys(TESTED, 1.5))))]
    assert as_said == ["supported"] * 2 + ["described"] * 6 + ["supported"] * 6
    not_so = [v.decision for v in judge(paper.checks(planted({"e-prop": 1.5})))]
    assert not_so == ["not supported"] * 2 + ["described"] * 6 + ["not supported"] * 5 + ["supported"]


def test_its_table_is_judged_and_drawn(rows):
    paper = bpgen.registry.find("paper", "liu2025").load()()
    assert set(paper.sizes) == {"quick", "default", "full"}
    table = pd.concat([pd.DataFrame(rows).assign(seed=s) for s in (0, 1)])
    assert len(judge(paper.checks(table))) == 14
    for draw in paper.sizes["quick"].simulation.figures.values():
        assert draw(table).axes[0].get_title()
