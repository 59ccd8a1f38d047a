"""Matched losses by hand, and every statistic against scipy or a case whose answer is known."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bpgen.analysis import matching
from bpgen.analysis import statistics as st
from bpgen.analysis.correlation import PERMUTATIONS, correlation
from bpgen.analysis.variability import spread
from bpgen.study.sections import how_rough, paired_differences


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


def test_a_loss_that_jumps_is_at_the_level_where_its_monotone_curve_is():
    """By hand: the monotone curve of logs 2, 0, 1, -2 is 2, 0.5, 0.5, -2, which is at -1 in the last interval."""
    table = run(np.exp([2.0, 0.0, 1.0, -2.0]), [1.0, 2.0, 50.0, 60.0], column="gap/x")
    at = matching.at_loss(table, math.exp(-1.0), ["gap/x"]).iloc[0]
    assert at["gap/x"] == pytest.approx(50 + 0.6 * 10)
    assert at["step"] == pytest.approx(26.0)
    first = matching.at_loss(table, math.exp(0.5), ["gap/x"], "as it is").iloc[0]
    assert first["step"] == pytest.approx(7.5)  # touched for the first time
    assert matching.roughness(table).item() == pytest.approx(math.sqrt((0.25 + 0.25) / 4))
    assert matching.roughness(run([3.0, 2.0, 1.0], [1, 2, 3])).item() == 0
    smooth = run([3.0, 2.0, 1.0], [1, 2, 3], "smooth")
    assert "a 0.35, smooth 0." in how_rough(pd.concat([table, smooth]))[0]
    assert how_rough(table.assign(status="diverged")) == []


def test_a_loss_of_zero_is_a_loss():
    table = pd.concat([run([2.0, 1.0, 0.0, 0.0], [1, 2, 4, 8.0], c, s) for c in "ab" for s in range(3)])
    values = matching.at_loss(table, 1e-6, ["sharpness/x"])
    assert values["sharpness/x"].tolist() == pytest.approx([2 ** (1 + 0.5)] * 6)  # halfway down to the least loss
    assert matching.LOWEST_COMMON.of(table) == pytest.approx(matching.LEAST)
    along = matching.along_loss(table, matching.LEAST, "sharpness/x")
    assert np.isfinite(along["sharpness/x"]).all()


def test_matched_differences_say_where_in_training_they_are():
    """By hand: at a loss of 0.5, half way in its logarithm between the second evaluation and the third."""
    gaps = [0.01, 0.02, 0.03]
    runs = [
        run([2.0, 1.0, least], gaps, c, s, "gap_noisy/accuracy")
        for c, least in (("a", 0.25), ("b", 0.5))
        for s in (0, 1)
    ]
    table = pd.concat([r.assign(task="x", alpha=1.0, **{"train/accuracy": [0.1, 0.5, 0.9]}) for r in runs])
    row = next(line for line in "\n".join(paired_differences(table)).splitlines() if line.startswith("| b - a"))
    assert [cell.strip() for cell in row.split("|")[2:5]] == ["0.5", "20, 15", "90.0 %, 70.0 %"]


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


def test_the_level_is_reached_by_four_in_five_of_the_planned_seeds_under_both_rules():
    """Ten seeds: b diverges in one, never learns in another; what blew up has not finished."""
    parts = [run([2, 1, 0.1 * (s + 1)], [1, 2, 4.0], c, s) for c in "ab" for s in range(10)]
    table = pd.concat(parts, ignore_index=True)
    table.loc[(table["condition"] == "b") & (table["seed"] == 0), "status"] = "diverged"
    table.loc[(table["condition"] == "b") & (table["seed"] == 1) & (table["step"] > 0), "train/loss"] = 1.9
    assert matching.Level().of(table) == pytest.approx(1.0)  # eight seeds are left, 2 ... 9
    assert matching.Level().of(table) != matching.Level().of(table[table["condition"] == "a"]) == pytest.approx(0.8)
    table.loc[(table["condition"] == "a") & (table["seed"] == 9) & (table["step"] == 20), "train/loss"] = 770.0
    assert sorted(matching.finished(table).groupby("condition")["seed"].nunique()) == [9, 9]


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
    assert effect.student.p("above", 0) == pytest.approx(stats.ttest_rel(x, y, alternative="greater").pvalue)
    assert effect.student.p("below", 0) == pytest.approx(stats.ttest_rel(x, y, alternative="less").pvalue)
    assert effect.p_wilcoxon == pytest.approx(stats.wilcoxon(x - y).pvalue)
    low, high = effect.bca
    assert low < effect.estimate < high
    assert high - low < interval.high - interval.low  # the bootstrap of few seeds is too narrow, hence not the judge


def test_the_sign_flip_test_is_exact():
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert st.mean_effect(dict(enumerate(x)), 5).p_permutation == pytest.approx(2 / 2**5)


@pytest.mark.parametrize("n", [4, 5, 9, 20])
def test_the_trimmed_mean_against_yuen(n):
    """Without missing seeds: scipy's for two samples, of which one is many zeros; its error is that of x alone."""
    x = np.random.default_rng(n).normal(0.5, 1, n)
    effect = st.mean_effect(dict(enumerate(x)), n)
    cut, ordered = n // 5, np.sort(x)
    winsorized = ordered.clip(ordered[cut], ordered[n - cut - 1])
    t = stats.trim_mean(x, 0.2) * (1 - 2 * cut / n) * math.sqrt(n) / winsorized.std(ddof=1)
    assert effect.trimmed("above").p("above", 0.0) == pytest.approx(stats.t.sf(t, n - 2 * cut - 1))
    assert effect.trimmed("below").p("below", 0.0) == pytest.approx(stats.t.cdf(t, n - 2 * cut - 1))
    assert effect.p_above(0.0) == max(effect.student.p("above", 0.0), effect.trimmed("above").p("above", 0.0))


def test_missing_seeds_count_as_the_worst():
    x = np.random.default_rng(0).normal(3, 1, 16)
    effect = st.mean_effect(dict(enumerate(x)), 20)
    for side, far in (("above", -1e9), ("below", 1e9)):
        known = st.mean_effect(dict(enumerate([*x, far, far, far, far])), 20)
        assert effect.trimmed(side) == pytest.approx(known.trimmed(side))
    assert effect.trimmed("above").estimate < effect.estimate < effect.trimmed("below").estimate
    low, high = effect.bounds(0.95)
    assert low < effect.interval()[0] < effect.interval()[1] < high
    more = st.mean_effect(dict(enumerate(x)), 21)  # five of 21 are more than a fifth
    assert more.p_above(-10) == more.p_below(10) == 1
    assert more.bounds(0.95) == (-math.inf, math.inf)


def test_flips_of_signs_against_scipy():
    rng = np.random.default_rng(5)
    for n in (2, 5, 12):
        x = rng.normal(0.3, 1, n)
        scipys = stats.permutation_test(
            (x, 0 * x), lambda a, b: np.mean(a - b), permutation_type="samples", alternative="greater"
        )
        assert st.flip_p(x) == pytest.approx(scipys.pvalue)
    x = rng.normal(0.4, 1, 30)
    assert st.flip_p(x) == pytest.approx(stats.ttest_1samp(x, 0, alternative="greater").pvalue, abs=0.01)
    effect = st.mean_effect(dict(enumerate(x)), 30)
    assert effect.p_flips("above", 0.2) == st.flip_p(x - 0.2)
    assert effect.p_flips("below", 0.2) == st.flip_p(0.2 - x)


def spread_of(x, y):
    n = len(x)
    return spread(
        pd.DataFrame({"condition": ["x"] * n + ["y"] * n, "seed": [*range(n)] * 2, "v": [*x, *y]}), "v", "x", "y"
    )


def test_spread_is_a_jackknife_over_pairs():
    rng = np.random.default_rng(1)
    x, y = 3 * rng.normal(size=25), rng.normal(size=25)
    effect = spread_of(x, y)
    assert effect.estimate == pytest.approx(math.log(x.std(ddof=1) / y.std(ddof=1)))
    logs = [math.log(np.delete(x, i).std(ddof=1) / np.delete(y, i).std(ddof=1)) for i in range(25)]
    assert effect.se**2 == pytest.approx(24 / 25 * sum((v - np.mean(logs)) ** 2 for v in logs))
    assert effect.interval()[0] < math.log(3) < effect.interval()[1]
    many = 3 * rng.normal(size=4000), rng.normal(size=4000)  # of many normal values, as independent ones have it
    assert spread_of(*many).se == pytest.approx(1 / math.sqrt(4000), rel=0.05)


def test_spread_uses_that_seeds_are_paired():
    rng = np.random.default_rng(2)
    shared = rng.normal(size=20)
    x, y = shared + 0.3 * rng.normal(size=20), shared + 0.3 * rng.normal(size=20)
    assert spread_of(x, y).se < 0.7 * spread_of(x, rng.permutation(y)).se


def test_no_spread_below_six_seeds():
    x, y = np.random.default_rng(3).normal(size=(2, 5))
    assert spread_of(x, y).n == 5
    assert math.isnan(spread_of(100 * x, y).estimate)
    assert "below 6 seeds" in spread_of(x, y).note
    assert spread_of(np.ones(8), np.arange(8.0)).note == "no spread"


def test_spread_says_that_it_has_little_power_below_20_seeds():
    values = pd.DataFrame({"condition": ["a", "b"] * 7, "seed": np.repeat(range(7), 2), "v": np.arange(14.0) ** 2})
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


@pytest.mark.parametrize("rank", [False, True])
@pytest.mark.parametrize("given", [None, "loss"])
def test_permutations_are_those_of_a_plain_loop(given, rank):
    """Whole seeds change places, of those that all conditions have; each r by scipy, from residuals by polyfit."""
    rng = np.random.default_rng(5)
    values = pd.DataFrame(rng.normal(size=(27, 3)), columns=["x", "y", "loss"])
    values = values.assign(condition=np.repeat(["a", "b", "c"], 9), seed=[*range(9)] * 3)
    values.loc[[3, 17], "x"] = np.nan  # seeds 3 and 8 are not complete
    found = correlation(values, "x", "y", within=True, given=given, rank=rank)
    whole = values[~values["seed"].isin([3, 8])]
    wide = {c: whole.pivot(index="seed", columns="condition", values=c).to_numpy() for c in ("x", "y", "loss")}

    def r(x):
        measures = [v.ravel() for v in (x, wide["y"], wide["loss"])]
        if rank:
            measures = [stats.rankdata(v) for v in measures]
        x, y, loss = ((v.reshape(7, 3) - v.reshape(7, 3).mean(axis=0)).ravel() for v in measures)
        if given is not None:
            x, y = (v - np.polyval(np.polyfit(loss, v, 1), loss) for v in (x, y))
        return stats.pearsonr(x, y).statistic

    order = np.random.default_rng(st.RNG)
    expected = np.array([r(wide["x"][order.permutation(7)]) for _ in range(PERMUTATIONS)])
    own, permuted = found.permuted()
    assert own == pytest.approx(r(wide["x"]), abs=1e-12)
    np.testing.assert_allclose(permuted, expected, atol=1e-12)
    assert found.p_permutation == (np.sum(np.abs(expected) >= abs(own)) + 1) / (PERMUTATIONS + 1)


@pytest.mark.parametrize("rank", [False, True])
def test_what_does_not_vary_by_itself_correlates_with_nothing(rank):
    """x is what its condition and the third measure make of it: what is left is rounding."""
    rng = np.random.default_rng(6)
    values = pd.DataFrame(rng.normal(size=(20, 2)), columns=["y", "loss"])
    values = values.assign(condition=np.repeat(["a", "b"], 10), seed=[*range(10)] * 2, x=3 * values["loss"] + 1e3)
    assert correlation(values, "x", "y", given="loss", rank=rank).estimate == 0
    assert correlation(values, "x", "y", rank=rank).estimate != 0


def test_holm_against_a_worked_example():
    assert st.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
