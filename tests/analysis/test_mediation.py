"""Mediation: a planted passage is found, a difference between rules alone is none, and the paths add up."""

import numpy as np
import pandas as pd
import pytest

from bpgen.analysis.mediation import mediation, mediations

DRAWS = [pytest.param(40, id="fast"), pytest.param(1000, id="long", marks=pytest.mark.slow)]


def runs(rng, n=20, a=1.0, b=0.0, direct=0.0, levels=2):
    """Two rules: M = a + own, Y = b M + direct + own; own parts of a seed are shared by half between the rules."""
    rows = []
    for seed in range(n):
        common = rng.normal(size=2)
        for rule, effect in (("bptt", 0.0), ("local", 1.0)):
            own = (common + rng.normal(size=2)) / np.sqrt(2)
            m = a * effect + own[0]
            for at in range(levels):
                row = {"setting": "digits", "condition": rule, "seed": seed, "at": at, "m": m}
                rows.append(row | {"gap": b * m + direct * effect + 0.5 * own[1] + at})
    return pd.DataFrame(rows)


def test_a_planted_passage_is_found():
    found = mediation(runs(np.random.default_rng(0), n=30, a=1.5, b=1.0), "m", "gap", "local", "bptt")
    assert found["indirect low"] > 0
    assert found["indirect low"] < 1.5 < found["indirect high"]
    assert found["direct low"] < 0 < found["direct high"]
    assert found["total"] == pytest.approx(found["direct"] + found["indirect"], abs=1e-12)
    assert found["n"] == 30


def test_a_difference_between_rules_alone_is_no_passage():
    """The rule moves the measure and the gap, each by itself: a pooled correlation would call it an explanation."""
    table = runs(np.random.default_rng(0), n=30, a=3.0, direct=3.0)
    assert np.corrcoef(table["m"], table["gap"])[0, 1] > 0.5
    found = mediation(table, "m", "gap", "local", "bptt")
    assert found["indirect low"] < 0 < found["indirect high"]
    assert found["direct low"] > 0


def test_a_driver_that_the_rule_does_not_move_passes_nothing_on():
    found = mediation(runs(np.random.default_rng(0), n=30, a=0.0, b=1.0), "m", "gap", "local", "bptt")
    assert found["indirect low"] < 0 < found["indirect high"]
    assert found["b low"] > 0


@pytest.mark.parametrize("draws", DRAWS)
def test_the_interval_of_no_passage_holds_its_rate(draws):
    missed = 0
    for seed in range(draws):
        found = mediation(runs(np.random.default_rng(seed), n=15, a=2.0, direct=1.0), "m", "gap", "local", "bptt")
        missed += not found["indirect low"] <= 0 <= found["indirect high"]
    assert missed / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


def test_seeds_that_one_rule_lost_are_left_out_and_few_seeds_say_nothing():
    table = runs(np.random.default_rng(0))
    table.loc[(table["seed"] < 4) & (table["condition"] == "local") & (table["at"] == 1), "gap"] = np.nan
    found = mediations(table, ["m"], ["gap"])
    assert found["n"].tolist() == [16]
    assert found[["rule", "reference"]].to_numpy().tolist() == [["local", "bptt"]]
    few = mediation(table[table["seed"] < 9], "m", "gap", "local", "bptt")
    assert few["n"] == 5
    assert np.isnan(few["indirect"])
