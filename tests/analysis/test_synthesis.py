"""Random-effects means: a published analysis, limits, and coverage."""

import numpy as np
import pytest

from bpgen.analysis.synthesis import random_effects

# BCG vaccine against tuberculosis, 13 trials: cases and others, vaccinated and not (Colditz et al. 1994)
BCG = [
    *((4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619), (33, 5036, 47, 5761)),
    *((180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892), (29, 7470, 45, 7232)),
    *((17, 1699, 65, 1600), (186, 50448, 141, 27197), (5, 2493, 3, 2338), (27, 16886, 29, 17825)),
]


def bcg():
    a, b, c, d = np.array(BCG, dtype=float).T
    return np.log(a / (a + b) / (c / (c + d))), np.sqrt(1 / a - 1 / (a + b) + 1 / c - 1 / (c + d))


def test_a_published_analysis():
    """Viechtbauer 2010, Journal of Statistical Software 36(3): log risk ratio -0.7145, τ² 0.3132, I² 92.22 %."""
    found = random_effects(*bcg())
    assert found.mean == pytest.approx(-0.7145, abs=1e-4)
    assert found.tau**2 == pytest.approx(0.3132, abs=1e-4)
    assert found.i2 == pytest.approx(0.9222, abs=1e-4)
    assert (found.low, found.high) == pytest.approx((-1.108, -0.321), abs=2e-3)  # Hartung and Knapp
    assert found.k == 13
    assert found.next_low < found.low < found.high < found.next_high


def test_equal_effects_have_the_mean_of_fixed_effects():
    found = random_effects([0.5, 0.5, 0.5, 0.5], [0.1, 0.2, 0.1, 0.4])
    assert (found.mean, found.tau, found.i2) == (pytest.approx(0.5), 0.0, 0.0)
    exact = 1 / np.sqrt(np.sum(1 / np.array([0.1, 0.2, 0.1, 0.4]) ** 2))
    assert found.high - found.mean == pytest.approx(3.182446 * exact, rel=1e-5)  # Student with 3 degrees of freedom


def test_with_tiny_errors_it_is_students_interval_of_the_effects():
    y = [0.1, 0.9, -0.4, 0.3, 1.2]
    found = random_effects(y, [1e-6] * 5)
    assert found.mean == pytest.approx(np.mean(y))
    assert found.high - found.mean == pytest.approx(2.776445 * np.std(y, ddof=1) / 5**0.5, rel=1e-4)
    assert found.i2 == pytest.approx(1)


@pytest.mark.parametrize("draws", [pytest.param(400, id="fast"), pytest.param(5000, id="long", marks=pytest.mark.slow)])
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_intervals_cover(tau, draws):
    """Six settings of unequal precision, around 0; at the rates that the module states."""
    rng, missed, beyond = np.random.default_rng(0), 0, 0
    se = np.array([0.2, 0.3, 0.5, 0.5, 1.0, 1.5])
    for _ in range(draws):
        found = random_effects(tau * rng.normal(size=6) + se * rng.normal(size=6), se)
        missed += not found.low <= 0 <= found.high
        beyond += not found.next_low <= tau * rng.normal() <= found.next_high
    for count, stated in ((missed, 0.07), (beyond, 0.14)):
        assert count / draws <= stated + (3 * (stated / draws) ** 0.5 if draws < 1000 else 0)


@pytest.mark.parametrize(("y", "se"), [([1, 2], [1, 1]), ([1, 2, 3], [1, 0, 1]), ([1, np.nan, 3], [1, 1, 1])])
def test_what_cannot_be_put_together_is_refused(y, se):
    with pytest.raises(ValueError, match="needs 3 effects"):
        random_effects(y, se)
