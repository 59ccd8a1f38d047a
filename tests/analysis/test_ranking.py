"""The ranking of measures: Kendall's τ against scipy, planted explanations, confounds, and error rates."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bpgen.analysis.granulated import ACROSS, ALONG, WITHIN, Granules, Partial, resamples
from bpgen.analysis.ranking import ALL, beside_levels, levels, ranking, tables
from tests.analysis.networks import networks

MEASURES = {"m0": 1, "m1": 1, "m2": 1}
DRAWS = [pytest.param(20, id="fast"), pytest.param(1000, id="long", marks=pytest.mark.slow)]


def ranked(table, measures=MEASURES, sharpness="m2"):
    found = ranking(tables(table, [*measures, "gap"]), measures, ["gap"], sharpness)
    return found[found["setting"] == found["setting"].iloc[-1]].set_index("measure")


def granule_table(rng, n=7):
    rows = [
        {"setting": s, "condition": c, "seed": k, "at": a, "x": rng.normal(), "y": rng.normal(), "z": rng.normal()}
        for s in "AB"
        for c in "uvw"
        for k in range(n)
        for a in range(2)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("view", [WITHIN, ACROSS, ALONG])
def test_tau_is_the_mean_of_scipys_over_granules(view):
    table = granule_table(np.random.default_rng(0))
    granules = Granules(table, view)
    true = np.mean([stats.kendalltau(own["x"], own["y"]).statistic for _, own in table.groupby(list(view.granule))])
    tau = granules.tau("x", "y")
    assert tau(np.ones((1, 7)))[0] == pytest.approx(true, abs=1e-12)
    without = table[table["seed"] != 3]
    left_out = np.mean([stats.kendalltau(o["x"], o["y"]).statistic for _, o in without.groupby(list(view.granule))])
    assert tau(1.0 - np.eye(7)[[3]])[0] == pytest.approx(left_out, abs=1e-12)
    assert left_out != pytest.approx(true, abs=1e-3)


def test_a_seed_drawn_twice_makes_no_pair_with_itself():
    table = granule_table(np.random.default_rng(0))
    table["y"] = table["x"]
    taus = Granules(table, WITHIN).tau("x", "y")(resamples(7))
    assert np.allclose(taus, 1)


def test_networks_that_are_missing_make_no_pairs():
    table = granule_table(np.random.default_rng(0))
    table.loc[table["seed"] == 2, "y"] = np.nan
    for view in (WITHIN, ACROSS):
        with_gap, without = Granules(table, view), Granules(table[table["seed"] != 2], view)
        assert with_gap.tau("x", "y")(np.ones((1, 7)))[0] == pytest.approx(
            without.tau("x", "y")(np.ones((1, 6)))[0], abs=1e-12
        )


def test_partial_is_that_of_residuals_of_ranks():
    table = granule_table(np.random.default_rng(0), n=12)
    table["x"] += table["z"]
    granules = Granules(table, WITHIN)
    ranks = [stats.rankdata(granules.values(c), axis=1) for c in "xyz"]
    x, y, z = ((r - r.mean(1, keepdims=True)).ravel() for r in ranks)
    x, y = (v - z * (v @ z) / (z @ z) for v in (x, y))
    partial = Partial(*(granules.values(c) for c in "xyz"))
    assert partial(np.ones((1, 12)))[0] == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-10)
    twice = np.ones((1, 12))
    twice[0, 4] = 2
    assert partial(twice)[0] != pytest.approx(partial(np.ones((1, 12)))[0], abs=1e-4)


def test_permutations_agree_with_the_statistic_they_permute():
    table = granule_table(np.random.default_rng(0))
    for view in (WITHIN, ACROSS):
        granules = Granules(table, view)
        first = granules.permuted(["x", "z"], ["y"])[0]
        assert first[:, 0] == pytest.approx([granules.tau(c, "y")(np.ones((1, 7)))[0] for c in "xz"], abs=1e-12)
    assert len(Granules(table, ACROSS).permuted(["x"], ["y"])) == 6  # 3 rules


def test_the_measure_that_drives_the_gap_is_found_and_beats_sharpness():
    found = ranked(networks(np.random.default_rng(0), within=0.8, settings=(1.0, 0.5)))
    assert found["setting"].iloc[0] == ALL
    assert found.index[0] == "m0"
    assert found.loc["m0", "verdict"] == "explains"
    assert bool(found.loc["m0", "beats sharpness"])
    assert found.loc["m0", "partial low"] > 0
    assert found.loc["m0", "worst rule"] > 0
    for other in ("m1", "m2"):
        assert found.loc[other, "verdict"] == "undecided"
        assert not found.loc[other, "beats sharpness"]
        assert found.loc[other, "along"] > 0.8  # all grow along training: no explanation


def test_p_values_are_corrected_for_the_other_measures():
    table = networks(np.random.default_rng(0), within=0.3, measures=12)
    few, many = (ranked(table, {f"m{i}": 1 for i in range(count)}, "m1") for count in (2, 12))
    assert few.loc["m0", "within"] == pytest.approx(many.loc["m0", "within"])
    assert few.loc["m0", "within p"] < 0.7 * many.loc["m0", "within p"]


def test_a_measure_that_points_the_other_way_is_reversed():
    found = ranked(networks(np.random.default_rng(0), within=0.8), {"m0": -1, "m1": 1, "m2": 1})
    assert found.loc["m0", "verdict"] == "reversed"
    assert found.index[-1] == "m0"


@pytest.mark.parametrize("seed", range(3))
def test_a_difference_between_rules_is_no_explanation(seed):
    """The confound of the pooled correlation: the sharper rules have the larger gaps, within rules there is nothing."""
    found = ranked(networks(np.random.default_rng(seed), between=5.0))
    assert found.loc["m0", "across"] > 0.95
    assert found.loc["m0", "across p"] >= 2 / 24  # four rules: their order, and its reverse, of 24
    assert found.loc["m0", "verdict"] == "between rules only"
    assert found.loc[["m1", "m2"], "verdict"].eq("undecided").all()
    assert abs(found.loc["m0", "within"]) < 0.3


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize("n", [8, 20])
def test_where_nothing_drives_the_gap_the_rates_hold(draws, n):
    """5 % for any measure to be called an explanation; intervals of τ and partial cover zero in 95 % of studies."""
    wrong = covered = covered_partial = beaten = 0
    for seed in range(draws):
        found = ranked(networks(np.random.default_rng(seed), n=n, between=3.0, share=0.8))
        wrong += found["verdict"].isin(["explains", "reversed"]).any()
        beaten += found["beats sharpness"].any()
        low, high = found.loc["m0", ["within low", "within high"]]
        covered += low <= 0 <= high
        low, high = found.loc["m0", ["partial low", "partial high"]]
        covered_partial += low <= 0 <= high
    slack = 3 * math.sqrt(0.05 * 0.95 / draws)
    assert wrong / draws <= 0.05 + slack
    assert beaten / draws <= 0.05 + slack
    assert covered / draws >= 0.95 - slack
    assert covered_partial / draws >= 0.95 - slack


def test_levels_and_the_networks_beside_them():
    table = networks(np.random.default_rng(0), n=6, settings=(1.0, 0.5))
    wanted = levels(table[table["alpha"] == 1.0])
    assert np.allclose(np.diff(np.log(wanted)), np.diff(np.log(wanted))[0])
    beside = beside_levels(table)
    assert table.loc[beside].groupby(["alpha", "condition", "seed"]).size().between(2, 8).all()
    thinned = table.copy()
    thinned.loc[~table.index.isin(beside), [*MEASURES, "gap"]] = np.nan
    assert thinned["gap"].isna().any()
    whole, part = (tables(t, [*MEASURES, "gap"]).matched for t in (table, thinned))
    pd.testing.assert_frame_equal(whole, part)
    assert whole["gap"].notna().any()
