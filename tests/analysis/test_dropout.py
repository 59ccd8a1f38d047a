"""Spreads and correlations where seeds are missing: bounds against every way to fill in, and error rates."""

import itertools
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bpgen.analysis.correlation import correlation
from bpgen.analysis.variability import spread
from bpgen.analysis.verdicts import judge
from bpgen.papers.liu2022 import Liu2022
from tests.analysis import planted
from tests.analysis.test_simulations import assert_rare, decision

SPREAD, R = math.log(1.5), math.atanh(0.3)  # the smallest of interest


def in_rows(**measures):
    """A row per run of rows [conditions, seeds]."""
    conditions, seeds = next(iter(measures.values())).shape
    table = pd.DataFrame({"condition": np.repeat([*"abc"[:conditions]], seeds), "seed": [*range(seeds)] * conditions})
    return table.assign(**{name: v.ravel() for name, v in measures.items()})


def trimmed_spread(v):
    """Log root mean square distance from the median, without the fifth that is farthest away."""
    distance = np.sort(np.abs(v - np.median(v)))
    return math.log(np.mean(distance[: len(v) - len(v) // 5] ** 2)) / 2


@pytest.mark.parametrize(("n", "missing"), [(10, 2), (11, 1), (15, 3)])
def test_no_way_to_fill_in_is_beyond_the_bounds_of_a_spread(n, missing):
    rng = np.random.default_rng(n)
    v = rng.normal(size=(2, n))
    v[0, :missing] = np.nan
    effect = spread(in_rows(v=v), "v", "a", "b")
    assert (effect.n, effect.planned) == (n - missing, n)
    low, high = (effect.locations(side)[1].estimate for side in ("above", "below"))
    present = np.sort(v[0, missing:])
    places = [-1e9, *present, *(present[1:] + present[:-1]) / 2, 1e9, *rng.uniform(present[0], present[-1], 12)]
    filled = [
        trimmed_spread(np.append(present, fill)) - trimmed_spread(v[1])
        for fill in itertools.combinations_with_replacement(places, missing)
    ]
    assert low - 1e-12 <= min(filled) < low + 0.05
    assert max(filled) == pytest.approx(high)


def test_more_than_a_fifth_missing_decides_no_spread():
    v = np.random.default_rng(0).normal(size=(2, 20)) * [[1], [1e3]]
    assert decision(spread(in_rows(v=v), "v", "b", "a"), smallest=SPREAD) == "supported"
    v[0, :4] = np.nan
    assert decision(spread(in_rows(v=v), "v", "b", "a"), smallest=SPREAD) == "supported"
    for row in range(2):
        gone = v.copy()
        gone[row, 4:9] = np.nan
        effect = spread(in_rows(v=gone), "v", "b", "a")
        assert decision(effect, smallest=SPREAD) == "undecided"
        assert effect.bounds(0.95) == (-math.inf, math.inf)


def test_nothing_is_asked_where_nobody_is_missing():
    x, y = np.random.default_rng(0).normal(size=(2, 2, 12))
    assert len(spread(in_rows(v=x), "v", "a", "b").locations("above")) == 1
    whole = correlation(in_rows(x=x, y=y), "x", "y", within=True)
    assert (len(whole.locations("above")), whole.note) == (1, "24 runs")
    y[0, 3] = np.nan
    short = correlation(in_rows(x=x, y=y), "x", "y", within=True)
    assert (len(short.locations("above")), short.note) == (2, "23 of 24 runs")
    assert len(correlation(in_rows(x=x, y=y), "x", "y").locations("above")) == 1  # a description


@pytest.mark.parametrize("side", ["above", "below"])
@pytest.mark.parametrize("missing", [1, 2])
def test_a_rank_correlation_at_its_worst_is_that_of_the_worst_places(side, missing):
    """Every way to fill in missing runs of one rule; beside a whole rule, whose ranks are as they are."""
    rng = np.random.default_rng(missing)
    x, y = rng.normal(size=(2, 2, 6))
    x[0, :missing] = y[0, :missing] = np.nan
    effect = correlation(in_rows(x=x, y=y), "x", "y", within=True)
    worst = math.tanh(effect.locations(side)[1].estimate)
    whole = stats.spearmanr(x[1], y[1]).statistic
    present = [np.sort(v[0, missing:]) for v in (x, y)]
    gaps = [[-9.0, *(v[1:] + v[:-1]) / 2, 9.0] for v in present]
    cells = list(itertools.product(*gaps))
    rs = []
    for fill in itertools.product(cells, repeat=missing):
        for tied in itertools.product((-1e-3, 1e-3), repeat=missing):  # orders of two in one gap
            u = np.append(x[0, missing:], [a + t * i for i, ((a, _), t) in enumerate(zip(fill, tied, strict=True))])
            w = np.append(y[0, missing:], [b - t * i for i, ((_, b), t) in enumerate(zip(fill, tied, strict=True))])
            rs.append((stats.spearmanr(u, w).statistic + whole) / 2)
    assert worst == pytest.approx(min(rs) if side == "above" else max(rs), abs=1e-12)


def test_a_third_measure_is_taken_away_first_and_a_rule_that_is_all_missing_is_at_its_worst():
    rng = np.random.default_rng(5)
    loss = rng.normal(size=(2, 15))
    x, y = loss + 0.2 * rng.normal(size=(2, 2, 15))
    x[0, 0] = y[0, 0] = np.nan
    table = in_rows(x=x, y=y, loss=loss)
    plain = correlation(table, "x", "y", within=True).locations("above")[1].estimate
    given = correlation(table, "x", "y", within=True, given="loss").locations("above")[1].estimate
    assert plain > 0.5 > 0.3 > given
    x[0] = np.nan
    assert correlation(in_rows(x=x, y=y, loss=loss), "x", "y", True, "loss").locations("above")[1].estimate < plain


def lost(v, by):
    """Without the fifth of a row for which `by` is largest."""
    v = v.copy()
    v[np.argsort(-by)[: len(v) // 5]] = np.nan
    return v


SHAPES = {"normal": np.random.Generator.normal, "skewed": np.random.Generator.exponential}
LONG = {"marks": pytest.mark.slow}


def found(effect, side, bound):
    """Whether all tests of an effect find it on that side of a bound, and whether that of the seeds left does."""
    each = [at.p(side, bound) <= 0.025 for at in effect.locations(side)]
    return all(each), each[0]


@pytest.mark.parametrize(
    ("far", "shape", "n", "draws"),
    [
        pytest.param("outermost", "normal", 20, 40, id="fast"),
        pytest.param("largest", "skewed", 20, 40, id="fast-skewed"),
        *(
            pytest.param(far, shape, n, 1000, **LONG)
            for far, shape, n in itertools.product(("largest", "outermost"), SHAPES, (10, 20, 40))
        ),
    ],
)
@pytest.mark.parametrize(("short", "wrong"), [(0, "not supported"), (1, "supported")])
def test_whose_gaps_are_missing_does_not_decide_a_spread(short, wrong, far, shape, n, draws):
    """One of two rules loses the fifth of its seeds with the largest gaps, or with those farthest from the middle."""
    rng, count, alone = np.random.default_rng(8), Counter(), 0
    for _ in range(draws):
        v = SHAPES[shape](rng, size=(2, n)) * [[1.5 if short == 0 else 1.0], [1.0]]
        v[short] = lost(v[short], v[short] if far == "largest" else np.abs(v[short] - np.median(v[short])))
        effect = spread(in_rows(v=v), "v", "a", "b")
        both, first = found(effect, "below", SPREAD) if short == 0 else found(effect, "above", 0.0)
        count[wrong] += both
        alone += first
    assert_rare(count, wrong, draws)
    assert alone / draws > 0.05  # of the seeds that are left


@pytest.mark.parametrize(
    ("truth", "missing", "n", "draws"),
    [
        pytest.param(0.0, "product", 20, 30, id="fast-null"),
        pytest.param(0.3, "product", 20, 30, id="fast-boundary"),
        *(pytest.param(0.0, how, n, 1000, **LONG) for how in ("sharpest", "apart", "product") for n in (10, 20, 40)),
        *(pytest.param(0.3, how, n, 1000, **LONG) for how in ("sharpest", "together", "product") for n in (10, 20, 40)),
    ],
)
def test_whose_runs_are_missing_does_not_decide_a_correlation(truth, missing, n, draws):
    """Either of two rules loses a fifth of its runs: those that speak most against what is wrong, or the sharpest.

    Without the permutation, which has to agree as well and makes errors rarer still.
    """
    rng, count, alone = np.random.default_rng(9), Counter(), 0
    sign, wrong = (1, "not supported") if truth else (-1, "supported")
    for _ in range(draws):
        x, noise = rng.normal(size=(2, 2, n))
        y = truth * x + math.sqrt(1 - truth**2) * noise
        for rule in range(2):
            u, w = x[rule], y[rule]
            by = {"sharpest": u, "product": sign * (u - u.mean()) * (w - w.mean())}.get(missing, u + sign * w)
            x[rule], y[rule] = lost(u, by), lost(w, by)
        effect = correlation(in_rows(x=x, y=y), "x", "y", within=True)
        both, first = found(effect, "below", R) if truth else found(effect, "above", 0.0)
        count[wrong] += both
        alone += first
    assert_rare(count, wrong, draws)
    assert alone / draws > 0.05 or missing != "product"  # of the runs that are left


def test_with_the_rest_missing_at_random_what_is_large_is_still_found():
    rng, seen = np.random.default_rng(10), Counter()
    for _ in range(5):
        v = rng.normal(size=(2, 40)) * [[8.0], [1.0]]
        v[0, :4] = np.nan
        seen["spread"] += decision(spread(in_rows(v=v), "v", "a", "b"), smallest=SPREAD) == "supported"
        x, noise = rng.normal(size=(2, 2, 40))
        y = x + 0.4 * noise
        x[0, :4] = np.nan
        seen["r"] += decision(correlation(in_rows(x=x, y=y), "x", "y", within=True), smallest=R) == "supported"
    assert min(seen["spread"], seen["r"]) >= 4


def test_runs_that_diverged_are_missing_in_what_is_correlated():
    """At matched loss and at the end; also a seed that diverged under every rule."""
    rules = dict.fromkeys(("bptt", "three_factor"), (0.05, 4.0, 1, 0.05, 1.0))
    table = planted.study(np.random.default_rng(0), 12, rules)
    table.loc[(table["rule"] == "three_factor") & (table["seed"] < 1), "status"] = "diverged"
    table.loc[table["seed"] == 11, "status"] = "diverged"
    within = [
        v.check.effect for v in judge(Liu2022().checks(table)) if v.check.claim == "c" and "within" in v.check.text
    ]
    assert [len(effect.locations("above")) for effect in within] == [2, 2]
    assert [effect.note for effect in within][1] == "21 of 24 runs"
