"""Seeds added in looks until decided: levels against another computation, error rates and seeds spent by simulation."""

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bpgen.analysis import sequential, spending
from bpgen.analysis.statistics import mean_effect
from bpgen.analysis.verdicts import ALPHA, Check, judge
from bpgen.papers.liu2022 import Liu2022
from bpgen.study.conclusions import conclusions, undecided
from tests.analysis import planted

LOOKS = [5, 10, 20, 40, 64]
ALLOWED = 0.035  # as in test_simulations.py, where 2.5 % are meant
SD = 2.0  # of the differences, in smallest effects of interest: 64 seeds have 90 % power


def test_looks_double_and_end_with_the_most():
    assert spending.planned_looks(64) == LOOKS
    assert spending.planned_looks(20) == [5, 10, 20]
    assert spending.planned_looks(4) == [4]


@pytest.mark.parametrize("alpha", [0.025, 0.001])
@pytest.mark.parametrize("looks", [LOOKS, [10, 11, 60], [7]])
def test_what_is_spent_is_what_the_multivariate_normal_says(looks, alpha):
    """Genz's integration of the first crossing at each look, apart from the recursion over looks."""
    bounds = stats.norm.isf(spending.levels(looks, alpha))
    n = np.array(looks, float)
    correlation = np.sqrt(np.minimum.outer(n, n) / np.maximum.outer(n, n))
    crossed = 0.0  # summed over looks: 1 - the chance of none would leave no digit of a small one
    for k, spent in enumerate(spending.spent(looks, alpha), 1):
        joint = stats.multivariate_normal(cov=correlation[:k, :k], abseps=1e-10, releps=1e-5, maxpts=1_000_000)
        lower, upper = np.full(k, -np.inf), np.array(bounds[:k])
        lower[-1], upper[-1] = upper[-1], np.inf
        crossed += joint.cdf(upper, lower_limit=lower)
        assert crossed == pytest.approx(spent, rel=1e-3)
    assert spending.spent(looks, alpha)[-1] == alpha


def test_the_p_value_of_looks_is_where_the_levels_meet():
    for alpha in (0.2, 0.025, 0.0031):
        at = spending.levels(LOOKS, alpha)
        for k in range(5):
            assert spending.p_value(LOOKS, [0.9] * k + [at[k]]) == pytest.approx(alpha, rel=1e-3)
            assert spending.p_value(LOOKS, [*[0.9] * k, at[k], *[0.9] * (4 - k)]) == pytest.approx(alpha, rel=1e-3)
    assert spending.p_value(LOOKS, [1.0] * 5) == 1
    table = spending._table(tuple(LOOKS))
    assert (np.diff(table, axis=0) > 0).all()  # in α: what Holm's correction over such p-values stands on


def test_skewness_is_removed_as_hall_says():
    x = np.random.default_rng(0).exponential(size=12) - 0.4
    effect = mean_effect(dict(enumerate(x)), 12)
    n, m, s = 12, x.mean(), x.std(ddof=1)
    g = n / ((n - 1) * (n - 2)) * (((x - m) / s) ** 3).sum()
    t = math.sqrt(n) * (m / s + g * (m / s) ** 2 / 3 + g**2 * (m / s) ** 3 / 27 + g / (6 * n))
    assert sequential.without_skewness(effect, "above", 0.0) == pytest.approx(stats.t.sf(t, n - 1))
    mirrored = mean_effect(dict(enumerate(-x)), 12)
    assert sequential.without_skewness(mirrored, "below", 0.0) == pytest.approx(stats.t.sf(t, n - 1))
    assert sequential.without_skewness(effect, "above", 0.0) < effect.p_above(0.0)  # a tail towards the alternative


def check(x, name="t", kind="larger", conditions=()):
    return Check("a", "s", name, mean_effect(dict(enumerate(x)), len(x)), kind, 1.0, "u", "f", conditions=conditions)


def until_decided(x, kind="larger"):
    """The verdict, and the seeds it took."""
    study = sequential.Looking(LOOKS)
    for n in LOOKS:
        (verdict,) = study.look([check(x[:n], kind=kind)])
        if verdict.decision != "undecided":
            break
    return verdict, n


NOISE = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy tails": lambda rng, n: rng.standard_t(3, size=n) / math.sqrt(3),
    "skewed": lambda rng, n: rng.exponential(size=n) - 1,  # the other way round: the same at δ minus the effect
}
FALSE = {0.0: "supported", 0.5: None, 1.0: "not supported", 2.0: "not supported"}


@pytest.mark.parametrize("draws", [pytest.param(40, id="fast"), pytest.param(2000, id="long", marks=pytest.mark.slow)])
@pytest.mark.parametrize("effect", FALSE)
@pytest.mark.parametrize("noise", NOISE)
def test_false_verdicts_are_rare_and_seeds_are_saved(noise, effect, draws):
    """At none, half, all and twice the smallest effect of interest."""
    rng, count, seeds = np.random.default_rng(7), Counter(), 0
    for _ in range(draws):
        verdict, n = until_decided(effect + SD * NOISE[noise](rng, 64))
        count[verdict.decision] += 1
        seeds += n
    wrong = count[FALSE[effect]] if FALSE[effect] else 0
    print(f"{noise}, effect {effect}: {wrong / draws:.2%} false, {dict(count)}, {seeds / draws:.1f} seeds")
    assert wrong / draws <= ALLOWED + (0 if draws > 1000 else 3 * math.sqrt(ALLOWED / draws))
    assert seeds / draws < (64 if effect in (0.5, 0.0) else 62)


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISE)
def test_fewer_seeds_than_the_fixed_design_of_the_same_power(noise):
    """The fixed number of seeds at which one look supports the smallest effect of interest as often; by halving."""
    rng, draws, effect = np.random.default_rng(8), 2000, 1.0
    samples = [effect + SD * NOISE[noise](rng, 80) for _ in range(draws)]
    looked = [until_decided(x[:64]) for x in samples]
    power = np.mean([v.decision == "supported" for v, _ in looked])
    mean = np.mean([n for _, n in looked])
    low, high = 4, 80
    while high - low > 1:
        n = (low + high) // 2
        fixed = np.mean([judge([check(x[:n])])[0].decision == "supported" for x in samples])
        low, high = (n, high) if fixed < power else (low, n)
    print(f"{noise}, effect {effect}: power {power:.1%} with {mean:.1f} seeds on average, {high} in the fixed design")
    assert mean < high


@pytest.mark.parametrize("draws", [pytest.param(30, id="fast"), pytest.param(2000, id="long", marks=pytest.mark.slow)])
def test_all_checks_of_a_claim_together(draws):
    """Three statements without an effect, all looked at as long as one is undecided: 5 % for both sides of all."""
    rng, wrong = np.random.default_rng(9), 0
    for _ in range(draws):
        x, study = SD * rng.normal(size=(3, 64)), sequential.Looking(LOOKS)
        for n in LOOKS:
            verdicts = study.look([check(row[:n], str(i)) for i, row in enumerate(x)])
        wrong += any(v.decision == "supported" for v in verdicts)
    print(f"{wrong / draws:.2%} of claims with a false verdict")
    assert wrong / draws <= ALLOWED + (0 if draws > 1000 else 3 * math.sqrt(ALLOWED / draws))


def test_looking_without_the_levels_would_err(monkeypatch):
    """The negative control: 2.5 % at every look makes more errors than are allowed."""
    monkeypatch.setattr(sequential, "p_value", lambda looks, p: min(p))
    monkeypatch.setattr(sequential, "levels", lambda looks, alpha: [alpha] * len(looks))
    rng = np.random.default_rng(7)
    wrong = sum(until_decided(SD * rng.normal(size=64))[0].decision == "supported" for _ in range(300))
    assert wrong / 300 > ALLOWED


def test_what_is_decided_stays_decided_and_says_at_which_look():
    rng = np.random.default_rng(1)
    x = np.concatenate([3 + 0.5 * rng.normal(size=20), -1 + 0.5 * rng.normal(size=44)])
    study, found = sequential.Looking(LOOKS), []
    for n in LOOKS:
        (verdict,) = study.look([check(x[:n])])
        found.append((verdict.decision, verdict.remark))
    assert [d for d, _ in found][2:4] == ["supported"] * 2
    assert found[0] == ("undecided", "after look 1 of 5")
    assert found[3][1].startswith("at look ")
    low, high = verdict.bounds
    plain = verdict.check.effect.bounds(1 - ALPHA)
    assert low < plain[0]
    assert high > plain[1]


def table(rng, rules, n=64):
    return sequential.with_looks(planted.study(rng, n, rules), LOOKS)


def seen(found, n):
    """As it would be after the look at n seeds, for all conditions."""
    return found[found["seed"] < n]


def test_conditions_stop_one_by_one():
    """rflo is far from bptt and is decided early; three_factor is like bptt, and its gap never is."""
    rules = {"bptt": (0.05, 4.0, 1, 0.0, 1.0), "three_factor": (0.0505, 4.0, 1, 0.0, 1.0), "rflo": (0.09, 6.0, 1, 0, 1)}
    whole = table(np.random.default_rng(3), rules)
    assert undecided(seen(whole, 5)) == {"bptt", "three_factor", "rflo"}
    assert undecided(seen(whole, 20)) == {"bptt", "three_factor"}
    stopped = whole[(whole["condition"] != "rflo") | (whole["seed"] < 20)]
    assert undecided(stopped) == {"bptt", "three_factor"}
    of_rflo = [c for c in conclusions(stopped) if "rflo" in c.conditions]
    assert [(c.verdict, c.planned) for c in of_rflo] == [("larger", 20)] * 2  # nobody misses its later seeds
    at = [sorted(part.groupby("condition")["seed"].nunique()) for part in sequential.as_looked_at(stopped)]
    assert at == [[5] * 3, [10] * 3, [20] * 3, [40] * 2, [64] * 2]
    said = sequential.spending_in_words(stopped)
    assert "5 of 5 looks" in said
    assert "spent 2.5 of 2.5 %" in said
    assert "1 at 20, 2 at 64" in said


def test_claims_of_a_paper_are_judged_at_the_looks_of_the_table():
    rules = {"bptt": (0.05, 4.0, 1, 0.0, 1.0), "three_factor": (0.09, 6.0, 1, 0.0, 0.1)}
    whole = table(np.random.default_rng(4), rules, 20)
    verdicts = sequential.judge_study(Liu2022().checks, whole)
    names = [v.check.text.partition(",")[0] for v in verdicts]
    assert names == [c.text.partition(",")[0] for c in Liu2022().checks(whole)]
    gap = next(v for v in verdicts if "larger gap" in v.check.text)
    assert (gap.decision, gap.check.effect.planned) == ("supported", 20)
    assert gap.remark.startswith("at look ")
    assert sequential.undecided(verdicts, whole) <= {"bptt", "three_factor"}
    fixed = sequential.judge_study(Liu2022().checks, whole.drop(columns=["look", "looks"]))
    assert not any("look" in v.remark for v in fixed)


def test_a_table_without_looks_has_none():
    assert sequential.planned(pd.DataFrame({"seed": [0]})) == []
    assert sequential.spending_in_words(pd.DataFrame({"seed": [0]})) == ""
