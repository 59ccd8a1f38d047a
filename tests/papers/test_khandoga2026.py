"""Causal credit over time: verdicts on planted tables, what the plans set apart, and what a forward pass is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bpgen.analysis.settings import PASSES, settings
from bpgen.analysis.verdicts import judge
from bpgen.cli import main
from bpgen.cli.options import resolve
from bpgen.figures.passes import spent
from bpgen.figures.study import study_figures
from bpgen.papers.khandoga2026 import HOSTS, Khandoga2026, at_passes
from bpgen.papers.reproduce import plan_of, size_of
from tests.analysis.planted import LOSS

SEGMENTS = 5
# weighting: how many times as many updates as uniform credit, λ_max and gap at equal loss
RIGHT = {"": (1, 1, 1), "signed": (0.1, 2, 3), "clipped": (0.1, 2, 3), "inverted": (2, 1, 1), "random": (1, 1, 1)}
WRONG = {"": (1, 2, 3), "signed": (2, 1, 1), "clipped": (2, 1, 1), "inverted": (0.5, 1, 1), "random": (2, 1, 1)}
EQUAL = dict.fromkeys(RIGHT, (1, 1, 1))


def planted(weightings, n=8, hosts=("bptt",), task="cue_accumulation", lost=()):
    """Runs whose loss falls alike, at a speed of their own; accuracy is a function of the loss. `lost` never learn."""
    rng, rows = np.random.default_rng(0), []
    for host in hosts:
        for weighting, (slowness, sharp, gap) in weightings.items():
            condition = f"{host}, {weighting}" if weighting else host
            for seed in range(n):
                off, slow = 0.02 * rng.normal(size=3), slowness * math.exp(0.02 * rng.normal())
                for step in np.linspace(0, 200, 13):
                    left = 1.0 if (condition, seed) in lost else math.exp(-step / (100 * slow))
                    loss = float(LOSS[-1] + (LOSS[0] - LOSS[-1]) * left)
                    row = {"condition": condition, "rule": condition, "alpha": 0.2, "task": task, "seed": seed}
                    row |= {"status": "finished", "step": step, "lr": 0.01, "train/loss": loss}
                    row |= {PASSES: 1 if weighting in ("", "random") else 1 + SEGMENTS, "reuses_training": False}
                    row |= {"sharpness/lambda_max": sharp * math.exp(off[0]), "test/loss": loss}
                    row |= {"test/accuracy": 1 - left / 2 + 0.01 * off[2]}
                    row |= dict.fromkeys(("alignment/rho", "alignment/cosine"), math.nan)  # not measured
                    row |= {f"{kind}/accuracy": gap / 100 * math.exp(off[1]) for kind in ("gap", "gap_noisy")}
                    rows.append(row)
    return pd.DataFrame(rows)


def judged(table):
    return [v for v in judge(Khandoga2026().checks(table)) if v.check.kind != "description"]


CHECKS = 2 * 2 + 2 + 2 + 1 + 2 + 2 * 2  # of a host


def test_verdicts_follow_the_table():
    for host, weightings, decision in zip(HOSTS, (RIGHT, WRONG), ("supported", "not supported"), strict=True):
        found = judged(planted(weightings, hosts=(host,)))
        assert len(found) == CHECKS
        assert {v.decision for v in found} == {decision}, [v.check.text for v in found if v.decision != decision]


def test_where_nothing_differs_only_random_weights_are_supported_and_passes_count_against_the_others():
    found = judged(planted(EQUAL))
    assert {v.check.claim for v in found if v.decision == "supported"} == {"d"}
    by_passes = [v for v in found if v.check.claim == "a"]
    assert {v.decision for v in by_passes} == {"not supported"}
    ratios = [v.check.effect.estimate for v in by_passes if v.check.unit == "ratio"]
    assert ratios == pytest.approx([-math.log(1 + SEGMENTS)] * 2, abs=0.15)
    by_updates = [v.check.effect.estimate for v in found if v.check.claim == "b"]
    assert by_updates == pytest.approx([0.0] * 2, abs=0.15)


def test_half_the_updates_do_not_pay_for_six_times_the_passes():
    found = {v.check.text.split(", at")[0]: v for v in judged(planted({"": (1, 1, 1), "signed": (0.5, 1, 1)}))}
    assert found["bptt, signed needs fewer updates than bptt"].decision == "supported"
    slower = found["bptt, signed needs fewer forward passes than bptt"]
    assert slower.decision == "not supported"
    assert math.exp(slower.check.effect.estimate) == pytest.approx(2 / (1 + SEGMENTS), rel=0.1)


def test_a_run_that_never_learns_counts_against_the_claim():
    two = {"": (1, 1, 1), "signed": (0.1, 1, 1)}
    one = next(v for v in judged(planted(two, lost={("bptt, signed", 3)})) if v.check.claim == "b")
    assert (one.check.effect.n, one.check.effect.planned) == (7, 8)
    assert "never reached the matched loss: 1 of bptt, signed" in one.check.effect.note
    many = next(v for v in judged(planted(two, lost={("bptt, signed", s) for s in range(4)})) if v.check.claim == "b")
    assert many.decision == "undecided"


def test_a_condition_all_of_whose_runs_diverge_is_undecided():
    table = planted({"": (1, 1, 1), "signed": (1, 1, 1)}, n=3)
    for lost in (["bptt, signed"], ["bptt", "bptt, signed"]):
        gone = table["condition"].isin(lost)
        other = planted({"": (1, 1, 1)}, n=3, hosts=("e-prop",))  # so that something has finished
        found = judged(pd.concat([table.assign(status=table["status"].mask(gone, "diverged")), other]))
        assert {v.decision for v in found} == {"undecided"}


def test_values_at_equal_passes_are_those_of_the_cheaper_conditions_last_update():
    (setting,) = settings(planted({"": (1, 1, 1), "signed": (1, 1, 1)}, n=3))
    values = at_passes(setting, "bptt, signed", "bptt")
    assert set(values["budget"]) == {200}
    table = setting.table.assign(passes=spent(setting, setting.table))
    for row in values.itertuples():
        run = table[(table["condition"] == row.condition) & (table["seed"] == row.seed)]
        below, above = run[run["passes"] <= 200].iloc[-1], run[run["passes"] >= 200].iloc[0]
        accuracy = values.loc[row.Index, "test/accuracy"]
        assert below["test/accuracy"] - 0.01 <= accuracy <= above["test/accuracy"] + 0.01


def test_a_table_that_does_not_say_what_an_update_costs_is_not_judged():
    assert Khandoga2026().checks(planted(EQUAL, n=3).drop(columns=PASSES)) == []


def test_figures_have_the_cost_in_them():
    two = {"": (1, 1, 1), "signed": (1, 1, 1)}
    figures = study_figures(planted(two, n=3), Khandoga2026.styles, Khandoga2026.figures)
    (ax,) = figures["loss_against_passes_bptt"].axes
    assert sorted({float(line.get_xdata()[-1]) for line in ax.lines}) == [200, 200 * (1 + SEGMENTS)]
    assert "alignment" not in figures  # nobody measured it
    (ax,) = figures["speed_ups"].axes
    bars = [float(np.mean(c.lines[0].get_ydata())) for c in ax.containers]
    signed = bars  # updates, then passes
    assert signed[0] - signed[1] == pytest.approx(math.log10(1 + SEGMENTS))


def test_plans_weigh_the_credit_of_both_hosts():
    for host, plan in zip(HOSTS, map(plan_of, size_of(Khandoga2026(), "quick").experiments), strict=True):
        short = replace(plan, axes={**plan.axes, "task": plan.axes["task"][-1:]})
        rules = {str(c.factors["rule"]): c.config.rule.make() for c in short.conditions(resolve)}
        assert set(rules) == {name for name in Khandoga2026.styles if name.split(", ")[0] == host}
        for label, rule in rules.items():
            weighting = label.removeprefix(host).removeprefix(", ")
            assert rule.forward_passes == (1 if weighting in ("", "random") else 1 + SEGMENTS)
            if weighting:
                assert type(rule.host) is type(rules[host])
                assert rule.form == ("clipped" if weighting == "clipped" else "signed")
                assert rule.control == (weighting if weighting in ("inverted", "random") else "none")


@pytest.mark.parametrize("size", ["quick", "default", "full"])
def test_plans_differ_in_size_alone_and_evaluate_where_passes_are_equal(size):
    experiments = size_of(Khandoga2026(), size).experiments
    quick = size_of(Khandoga2026(), "quick").experiments
    for plan, short in zip(map(plan_of, experiments), map(plan_of, quick), strict=True):
        assert plan.axes["rule"] == short.axes["rule"]
        tasks = plan.axes["task"]
        assert [task["name"] for task in tasks] == ["cue_accumulation", "delayed_match_to_sample", "adding"]
        for task in tasks:
            steps, every = task["set"]["trainer.max_steps"], task["set"]["evaluation.every"]
            assert steps % ((1 + SEGMENTS) * every) == 0
    first, second = map(plan_of, experiments)
    assert {**first.axes, "rule": []} == {**second.axes, "rule": []}


def test_it_is_listed_with_its_times(capsys):
    with pytest.raises(SystemExit):
        main(["reproduce", "khandoga2026", "--help"])
    assert "about 6 minutes on 2 cores" in " ".join(capsys.readouterr().out.split())
