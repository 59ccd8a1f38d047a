"""Matched losses by hand, and every statistic against scipy or a case whose answer is known."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bpgen.analysis import matching
from bpgen.analysis import statistics as st
from bpgen.analysis.correlation import correlation
from bpgen.analysis.variability import Spread, spread


def run(loss, values, condition="a", seed=0, column="sharpness/x"):
    return pd.DataFrame(
        {
            **{"condition": condition, "rule": condition, "seed": seed, "step": np.arange(len(loss)) * 10.0},
            **{"train/loss": loss, column: values, "status": "finished"},
        }
    )


def test_matched_values_are_interpolated_in_the_logarithm_of_the_loss():
    table = run([2.0, 1.0, 0.25], [10.0, 40.0, 90.0])
    at = matching.at_loss(table, 0.5, ["sharpness/x"]).iloc[0]
    assert at["sharpness/x"] == pytest.approx(60.0)  # halfway in log loss: geometric mean of 40 and 90
    assert at["step"] == pytest.approx(15.0)
    gap = matching.at_loss(run([2.0, 1.0, 0.25], [10.0, 40.0, 90.0], column="gap/x"), 0.5, ["gap/x"]).iloc[0]
    assert gap["gap/x"] == pytest.approx(65.0)  # not a sharpness: arithmetic


def test_the_first_crossing_counts_even_when_the_loss_rises_again():
    table = run([2.0, 0.5, 3.0, 0.4], [1.0, 2.0, 50.0, 60.0])
    assert matching.at_loss(table, 0.5, ["sharpness/x"])["sharpness/x"].iloc[0] == pytest.approx(2.0)


def test_a_loss_of_zero_is_a_loss():
    table = pd.concat([run([2.0, 1.0, 0.0, 0.0], [1, 2, 4, 8.0], c, s) for c in "ab" for s in range(3)])
    values = matching.at_loss(table, 1e-6, ["sharpness/x"])
    assert values["sharpness/x"].tolist() == pytest.approx([2 ** (1 + 0.5)] * 6)  # halfway down to the least loss
    assert matching.LOWEST_COMMON.of(table) == matching.LEAST
    along = matching.along_loss(table, matching.LEAST, "sharpness/x")
    assert np.isfinite(along["sharpness/x"]).all()


def test_never_reached_is_counted_and_not_guessed():
    table = pd.concat([run([2, 1, 0.5], [1, 2, 4.0], c, s) for c in "ab" for s in range(4)])
    table = pd.concat([table, run([2, 1.9, 1.8], [1, 2, 4.0], "b", 4), run([2, 1, 0.5], [1, 2, 4.0], "a", 4)])
    level = matching.Level().of(table)
    assert level == 0.5  # one of five runs that does not learn does not move it
    values = matching.at_loss(table, level, ["sharpness/x"])
    assert values["reached"].sum() == 9
    effect = st.paired(values, "sharpness/x", "b", "a", log=True)
    assert (effect.n, effect.planned) == (4, 5)
    assert "never reached the matched loss: 1 of b" in effect.note


def test_a_difference_that_only_stems_from_unequal_losses_is_gone_when_matched():
    steps = np.geomspace(2, 0.5, 9), np.geomspace(2, 0.1, 9)
    table = pd.concat(
        [run(x, 3 * x**0.5, c, s) for c, x in zip("ab", steps, strict=True) for s in range(3)], ignore_index=True
    )
    last = table.groupby(["condition", "seed"]).tail(1)
    assert (
        last.groupby("condition")["sharpness/x"].mean()["a"] > 2 * last.groupby("condition")["sharpness/x"].mean()["b"]
    )
    values = matching.at_loss(table, matching.Level().of(table), ["sharpness/x"])
    assert st.paired(values, "sharpness/x", "b", "a", log=True).estimate == pytest.approx(0, abs=1e-12)


def test_paired_effect_against_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(1, 1, 9), rng.normal(0, 1, 9)
    values = pd.concat([pd.DataFrame({"condition": c, "seed": range(9), "v": v}) for c, v in (("x", x), ("y", y))])
    effect = st.paired(values, "v", "x", "y")
    test = stats.ttest_rel(x, y)
    interval = test.confidence_interval(0.95)
    assert effect.interval() == pytest.approx((interval.low, interval.high))
    assert effect.p_above(0) == pytest.approx(stats.ttest_rel(x, y, alternative="greater").pvalue)
    assert effect.p_below(0) == pytest.approx(stats.ttest_rel(x, y, alternative="less").pvalue)
    assert effect.p_wilcoxon == pytest.approx(stats.wilcoxon(x - y).pvalue)
    low, high = effect.bca
    assert low < effect.estimate < high
    assert high - low < interval.high - interval.low  # the bootstrap of few seeds is too narrow, hence not the judge


def test_the_sign_flip_test_is_exact():
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert st.mean_effect(dict(enumerate(x)), 5).p_permutation == pytest.approx(2 / 2**5)


def test_spread_is_the_brown_forsythe_test_and_its_interval_inverts_it():
    rng = np.random.default_rng(1)
    x, y = 3 * rng.normal(size=25), rng.normal(size=25)
    effect = Spread.of(x, y, 25)
    two_sided = 2 * min(effect.p_above(0), effect.p_below(0))
    assert two_sided == pytest.approx(stats.levene(x, y, center="median").pvalue)
    low, high = effect.interval()
    assert low < math.log(3) < high
    for bound in (low, high):
        p = stats.levene(x, y * math.exp(bound), center="median").pvalue
        assert p == pytest.approx(0.05, abs=1e-6)


def test_spread_says_that_it_has_little_power_below_20_seeds():
    values = pd.DataFrame({"condition": ["a", "b"] * 5, "seed": np.repeat(range(5), 2), "v": np.arange(10.0) ** 2})
    assert "little power" in spread(values, "v", "a", "b").note


def test_simpsons_paradox():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, 12))
    parts = [
        pd.DataFrame({"condition": str(c), "seed": range(12), "x": 5 * c + x[c], "y": 5 * c - x[c]}) for c in range(3)
    ]
    values = pd.concat(parts)
    assert math.tanh(correlation(values, "x", "y").estimate) > 0.8
    within = correlation(values, "x", "y", within=True)
    assert math.tanh(within.estimate) < -0.99
    assert within.p_permutation < 0.01


def test_a_correlation_that_stems_from_the_loss_is_gone_given_the_loss():
    rng = np.random.default_rng(3)
    loss, e, f = rng.normal(size=(3, 40))
    values = pd.DataFrame({"condition": "a", "seed": range(40), "x": loss + 0.3 * e, "y": loss + 0.3 * f, "loss": loss})
    assert math.tanh(correlation(values, "x", "y").estimate) > 0.8
    given = correlation(values, "x", "y", given="loss")
    residuals = [v - np.polyval(np.polyfit(loss, v, 1), loss) for v in (values["x"], values["y"])]
    assert math.tanh(given.estimate) == pytest.approx(stats.pearsonr(*residuals).statistic)
    assert abs(math.tanh(given.estimate)) < 0.3


def test_spearman_is_scipys():
    rng = np.random.default_rng(4)
    x = rng.normal(size=20)
    values = pd.DataFrame({"condition": "a", "seed": range(20), "x": x, "y": np.exp(3 * x) + rng.normal(size=20)})
    ours = math.tanh(correlation(values, "x", "y", rank=True).estimate)
    assert ours == pytest.approx(stats.spearmanr(values["x"], values["y"]).statistic)


def test_holm_against_a_worked_example():
    assert st.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
