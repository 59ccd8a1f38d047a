"""Divergence by rule: exact where it can be, Tango's score test elsewhere, at the stated error rates."""

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar

from bpgen.analysis.divergence import diverged, divergence
from bpgen.analysis.verdicts import judge
from bpgen.papers.liu2022 import Liu2022
from tests.analysis import planted
from tests.analysis.test_simulations import DRAWS, assert_rare, decision


def runs(rule, reference):
    """A table of two evaluations a run, of seeds that diverge (1) or not (0); None did not end."""
    rows = []
    for condition, fates in (("a", rule), ("b", reference)):
        for seed, fate in enumerate(fates):
            status = {0: "finished", 1: "diverged", None: "interrupted"}[fate]
            rows += [
                {"condition": condition, "seed": seed, "step": k, "train/loss": 1.0, "status": status} for k in (0, 1)
            ]
    return pd.DataFrame(rows)


def slow_score(b, c, n, d):
    """(b - c - n d) over its standard error at the most likely shares with that difference."""

    def unlikely(q):
        return -sum(k * math.log(max(p, 1e-300)) for k, p in ((b, q + d), (c, q), (n - b - c, 1 - 2 * q - d)))

    low, high = max(0.0, -d), (1 - d) / 2
    q = minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-10}).x
    return (b - c - n * d) / math.sqrt(n * (2 * q + d - d * d))


@pytest.mark.parametrize(("b", "c", "n"), [(5, 1, 20), (2, 3, 10), (12, 4, 30), (6, 0, 9)])
@pytest.mark.parametrize("d", [-0.3, 0.1, 0.25, 0.4])
def test_the_score_is_that_of_the_most_likely_shares(b, c, n, d):
    effect = divergence(runs([1] * b + [0] * (n - b), [0] * b + [1] * c + [0] * (n - b - c)), "a", "b")
    assert effect.estimate == pytest.approx((b - c) / n)
    assert effect.p_above(d) == pytest.approx(stats.norm.sf(slow_score(b, c, n, d)), abs=1e-5)
    assert effect.p_below(d) == pytest.approx(stats.norm.cdf(slow_score(b, c, n, d)), abs=1e-5)
    low, high = effect.interval()
    assert low < effect.estimate < high
    assert effect.p_above(low) == pytest.approx(0.025, abs=1e-6) or low == -1
    assert effect.p_below(high) == pytest.approx(0.025, abs=1e-6) or high == 1


def test_against_no_difference_it_is_exact():
    effect = divergence(runs([1] * 6 + [0] * 14, [0] * 6 + [1] + [0] * 13), "a", "b")
    assert effect.p_above(0) == pytest.approx(stats.binomtest(6, 7, alternative="greater").pvalue)
    assert effect.p_below(0) == pytest.approx(stats.binomtest(6, 7, alternative="less").pvalue)
    assert effect.note == "diverged: 6 of a, 1 of b"
    assert divergence(runs([0, 0, 0], [0, 0, 0]), "a", "b").note == ""


def test_what_blew_up_has_diverged_and_what_did_not_end_says_nothing():
    table = runs([1, 0, 0, None], [0, 0, 0, 0])
    table.loc[(table["condition"] == "a") & (table["seed"] == 1) & (table["step"] == 1), "train/loss"] = 1e5
    assert diverged(table)["a"].fillna(-1).tolist() == [1, 1, 0, -1]
    effect = divergence(table, "a", "b")
    assert (effect.n, effect.planned) == (3, 4)
    assert effect.estimate == pytest.approx(2 / 3)


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize("n", [10, 20, 40])
@pytest.mark.parametrize(
    ("often", "rarely", "wrong"),
    [(0.1, 0.1, "supported"), (0.4, 0.4, "supported"), (0.3, 0.1, "not supported"), (0.2, 0.0, "not supported")],
)
def test_divergence_is_judged_at_its_rates(n, often, rarely, wrong, draws):
    """The smallest difference of interest is one run in five more."""
    rng, count = np.random.default_rng(0), Counter()
    for _ in range(draws):
        fates = [(rng.random(n) < p).astype(int).tolist() for p in (often, rarely)]
        count[decision(divergence(runs(*fates), "a", "b"), smallest=0.2)] += 1
    assert_rare(count, wrong, draws)


def test_a_rule_that_diverges_is_found_and_none_where_nothing_does():
    rules = dict.fromkeys(("bptt", "three_factor"), (0.05, 4.0, 1, 0.0, 1.0))
    table = planted.study(np.random.default_rng(0), 20, rules)
    assert not any(v.check.claim == "h" for v in judge(Liu2022().checks(table)))
    table.loc[(table["rule"] == "three_factor") & (table["seed"] < 9), "status"] = "diverged"
    (found,) = (v for v in judge(Liu2022().checks(table)) if v.check.claim == "h")
    assert (found.decision, found.check.effect.n) == ("supported", 20)
