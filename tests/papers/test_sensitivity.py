"""Verdicts with losses matched elsewhere."""

import numpy as np
import pytest

from bpgen.analysis.matching import Level
from bpgen.analysis.verdicts import judge
from bpgen.papers.claims import at_other_levels
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
