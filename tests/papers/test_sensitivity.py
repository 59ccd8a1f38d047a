"""Verdicts with losses matched elsewhere."""

import numpy as np
import pytest

from bpgen.analysis.matching import LEAST_ERROR, Level, on_error
from bpgen.analysis.verdicts import judge
from bpgen.papers.claims import OTHER_LEVELS, at_other_levels
from bpgen.papers.liu2022 import Liu2022
from tests.analysis import planted

RULES = {"bptt": (0.03, 3.0, 1, 0, 1.0), "three_factor": (0.03, 3.0, 1, 0, 0.05)}


def table_where_rules_part_late():
    """Twelve seeds; the local rule is 4 times as sharp, with 5 points more gap, below a loss of 0.4 only."""
    table = planted.study(np.random.default_rng(0), 12, RULES)
    late = (table["rule"] == "three_factor") & (table["train/loss"] < 0.4)
    table.loc[late, "sharpness/lambda_max"] *= 4
    table.loc[late, "gap_noisy/accuracy"] += 0.05
    return table


def test_a_difference_that_comes_late_is_not_there_half_way():
    table = table_where_rules_part_late()
    rows = at_other_levels(Liu2022(), judge(Liu2022().checks(table)), table)
    said = {row[0].check.text.split(", at training")[0]: [v.decision for v in row] for row in rows.values()}
    for text in ("three_factor has a larger gap than bptt (noisy test inputs)", "three_factor is sharper than bptt"):
        assert said[text][0] == said[text][2] == "supported"
        assert said[text][1] != "supported"
    assert not any("settles" in text or "at the end" in text for text in said)  # nothing there is matched


def test_levels():
    table = table_where_rules_part_late()
    lowest = table.groupby(["rule", "seed"])["train/loss"].min()
    start = table.groupby(["rule", "seed"])["train/loss"].first().min()
    assert Level(share=1).of(table) == pytest.approx(lowest.max())
    tenth = lowest.groupby("seed").max().nsmallest(10).max()  # 80 % of 12 seeds have it under both rules
    assert Level().of(table) == pytest.approx(tenth)
    assert Level(way=0.5).of(table) == pytest.approx(np.sqrt(start * tenth))
    assert Level(way=0.0).of(table) == pytest.approx(start)


def test_at_the_same_accuracy_a_rule_that_is_only_less_sure_is_no_sharper():
    """Curvature follows the training error in both rules; the local rule's loss is twice as large at the same error."""
    table = planted.study(np.random.default_rng(0), 12, RULES)
    local = table["rule"] == "three_factor"
    error = table["train/loss"] / table["train/loss"].max()
    by_run = table.groupby(["rule", "seed"]).ngroup().map(dict(enumerate(np.random.default_rng(1).normal(0, 0.02, 24))))
    table = table.assign(**{"train/accuracy": 1 - error, "sharpness/lambda_max": 10 * error**-1.5 * np.exp(by_run)})
    table.loc[local, "train/loss"] *= 2
    rows = at_other_levels(Liu2022(), judge(Liu2022().checks(table)), table).values()
    sharper = next(
        row for row in rows if row[0].check.text.startswith("three_factor is sharper than bptt, at training")
    )
    said = dict(zip(["loss", *OTHER_LEVELS], sharper, strict=True))
    assert not any("at the end" in row[0].check.text for row in rows)  # given the loss itself
    assert said["loss"].decision == "supported"
    assert said["loss"].check.effect.estimate == pytest.approx(1.5 * np.log(2), rel=0.1)
    assert said["at the same accuracy"].decision == "not supported"
    assert said["at the same accuracy"].check.effect.estimate == pytest.approx(0, abs=0.02)


def test_the_error_takes_the_place_of_the_loss():
    table = planted.study(np.random.default_rng(0), 3, RULES)
    assert on_error(table) is table  # no accuracy
    table["train/accuracy"] = np.where(table["train/loss"] < 1, 1.0, 0.4)
    blown = (table["rule"] == "bptt") & (table["seed"] == 1)
    table.loc[blown & (table["step"] == table["step"].max()), "train/loss"] = 1e6
    errors = on_error(table)
    assert set(errors["train/loss"].round(6)) == {0.6, LEAST_ERROR}
    assert errors["status"].eq("diverged").equals(blown)
    assert Level(on="error").of(errors) == pytest.approx(LEAST_ERROR)
