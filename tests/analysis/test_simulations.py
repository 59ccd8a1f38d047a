"""Error rates of verdicts in situations that are not the textbook's: at most 3.5 % where 2.5 % is stated.

Each situation in a fast form, and in a long one with many more draws (`slow`).
"""

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from bpgen.analysis.correlation import correlation
from bpgen.analysis.verdicts import Check, judge

STATED, ALLOWED = 0.025, 0.035
DRAWS = [pytest.param(100, id="fast"), pytest.param(2000, id="long", marks=pytest.mark.slow)]


def decision(effect, kind="larger", smallest=0.1):
    return judge([Check("a", "setting", "text", effect, kind, smallest, "ratio", "figure")])[0].decision


def assert_rare(count, what, draws):
    """Of `draws` verdicts, no more wrong ones than the allowed rate gives by chance (three standard errors)."""
    most = ALLOWED + 3 * math.sqrt(ALLOWED * (1 - ALLOWED) / draws) if draws < 1000 else ALLOWED
    assert count[what] / draws <= most, f"{count[what]} of {draws} {what}"


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize(("n", "rules"), [(10, 2), (20, 3)])
def test_rules_whose_means_differ_by_chance_show_no_correlation(n, rules, draws):
    """Means of sharpness and gap that are unrelated, three standard deviations apart; no relation within."""
    rng, within, pooled = np.random.default_rng(0), Counter(), Counter()
    for _ in range(draws):
        means = 3 * rng.normal(size=(2, rules))
        parts = [
            pd.DataFrame(
                {
                    "condition": str(c),
                    "seed": range(n),
                    "x": rng.normal(means[0, c], size=n),
                    "y": rng.normal(means[1, c], size=n),
                }
            )
            for c in range(rules)
        ]
        values = pd.concat(parts)
        within[decision(correlation(values, "x", "y", within=True), smallest=math.atanh(0.3))] += 1
        pooled[decision(correlation(values, "x", "y"), "description")] += 1
    assert_rare(within, "supported", draws)
    assert pooled == {"described": draws}


@pytest.mark.parametrize("draws", DRAWS)
def test_a_correlation_at_the_smallest_of_interest_is_not_denied(draws):
    """r = 0.3 within two rules."""
    rng, count = np.random.default_rng(1), Counter()
    for _ in range(draws):
        x = rng.normal(size=(2, 15))
        y = 0.3 * x + math.sqrt(1 - 0.3**2) * rng.normal(size=(2, 15))
        values = pd.DataFrame({"condition": np.repeat(["a", "b"], 15), "seed": [*range(15)] * 2, "x": x.ravel()})
        effect = correlation(values.assign(y=y.ravel()), "x", "y", within=True)
        count[decision(effect, smallest=math.atanh(0.3))] += 1
    assert_rare(count, "not supported", draws)


def test_a_correlation_must_show_under_permutation():
    """Two seeds far out, in both measures: the interval excludes zero, the permutation does not."""
    rng = np.random.default_rng(14)
    seen = 0
    for _ in range(300):
        x, y = rng.standard_t(2, size=(2, 2, 6))
        values = pd.DataFrame({"condition": np.repeat(["a", "b"], 6), "seed": [*range(6)] * 2, "x": x.ravel()})
        effect = correlation(values.assign(y=y.ravel()), "x", "y", within=True)
        if effect.interval()[0] > 0 and effect.p_permutation > 0.06:
            seen += 1
            assert decision(effect) != "supported"
    assert seen > 0
