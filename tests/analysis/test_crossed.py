"""Intervals over seeds and test items: an independent two-way formula, and coverage where items are few."""

import math

import numpy as np
import pytest

from bpgen.analysis.crossed import crossed_interval
from bpgen.analysis.statistics import mean_effect


def planted(rng, seeds, items, of_seed, of_item, noise):
    """Differences whose mean over all seeds and items that there could be is 0."""
    return (
        of_seed * rng.normal(size=(seeds, 1))
        + of_item * rng.normal(size=(1, items))
        + noise * rng.normal(size=(seeds, items))
    )


def test_the_standard_error_is_that_of_two_way_resampling():
    """Its variance, worked out: (n-1)/n of rows + (m-1)/m of columns, and both of what is left."""
    rng = np.random.default_rng(0)
    x = planted(rng, 12, 40, 1.0, 2.0, 3.0)
    n, m = x.shape
    rows, columns = x.mean(1) - x.mean(), x.mean(0) - x.mean()
    rest = x - x.mean() - rows[:, None] - columns
    variance = np.mean(rows**2) / n + np.mean(columns**2) / m + np.mean(rest**2) / (n * m)
    low, high = crossed_interval(x, draws=40_000)
    from scipy import stats

    half = stats.t.ppf(0.975, n - 1) * math.sqrt(variance * n / (n - 1))
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)
    assert (high + low) / 2 == pytest.approx(x.mean())


@pytest.mark.parametrize("draws", [pytest.param(150, id="fast"), pytest.param(2000, id="long", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("of_seed", "of_item"), [(1.0, 0.0), (1.0, 5.0), (0.2, 5.0)])
def test_it_covers_what_an_interval_over_seeds_does_not(of_seed, of_item, draws):
    """Five images of three hundred: all seeds agree on them, so that seeds alone are too sure."""
    rng, missed, alone = np.random.default_rng(1), 0, 0
    for _ in range(draws):
        x = planted(rng, 10, 60, of_seed, of_item, 1.0)
        low, high = crossed_interval(x, draws=400)
        missed += not low <= 0 <= high
        low, high = mean_effect(dict(enumerate(x.mean(1))), 10).interval()
        alone += not low <= 0 <= high
    assert missed / draws <= 0.07 + 3 * math.sqrt(0.05 / draws) * (draws < 1000)
    if of_item:
        assert alone > 2 * missed


def test_too_few_seeds_have_no_interval():
    assert crossed_interval(np.zeros((2, 50))) == (-math.inf, math.inf)
