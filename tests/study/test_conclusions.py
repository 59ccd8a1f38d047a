"""What a study found, in sentences: they follow planted differences, and are silent or undecided where they must be."""

import numpy as np
import pytest

from bpgen.analysis.statistics import mean_effect
from bpgen.study.conclusions import conclusions, few_pairs, in_words
from tests.analysis import planted

RULES = {"bptt": (0.03, 3.0, 1, 0, 1.0), "rflo": (0.06, 4.4, 1, 0, 0.05)}  # twice the gap, four times as sharp


def found(seeds, rules=RULES, number=0):
    return conclusions(planted.study(np.random.default_rng(number), seeds, rules))


def test_planted_differences_are_said_with_their_size():
    gap, sharp = found(8)
    assert (gap.measure, gap.verdict, sharp.measure, sharp.verdict) == ("gap", "larger", "sharpness", "larger")
    assert gap.text.startswith("rflo has a larger gap than bptt at training loss ")
    assert sharp.text.startswith("rflo is sharper than bptt at training loss ")
    assert float(sharp.effect.removesuffix(" times")) == pytest.approx(4, rel=0.5)
    assert "n = 7 of 8" in sharp.text  # 80 % of the runs reach the matched loss
    low, high = map(float, sharp.interval.split(" to "))
    assert low < float(sharp.effect.removesuffix(" times")) < high


def test_the_sign_follows_the_order():
    gap, sharp = found(8, dict(reversed(RULES.items())))
    assert (gap.verdict, sharp.verdict) == ("smaller", "smaller")
    assert "bptt is flatter than rflo" in sharp.text


def test_nothing_is_found_where_nothing_is():
    """At 5 % a measure; over forty studies no more than chance allows (P(> 6) < 0.5 %)."""
    alike = {"bptt": (0.03, 3.0, 1, 0, 1.0), "rflo": (0.03, 3.0, 1, 0, 1.0)}
    decided = sum(found(5, alike, number)[1].verdict != "undecided" for number in range(40))
    assert decided <= 6


def test_two_seeds_decide_nothing():
    assert {c.verdict for c in found(2)} == {"undecided"}
    assert in_words(found(2))[1].startswith("  undecided whether rflo differs from bptt in gap")


def test_one_condition_says_nothing():
    assert found(5, {"bptt": RULES["bptt"]}) == []


def test_what_few_pairs_cannot_show_is_said():
    """Of three pairs there are eight patterns of signs, two of which are the most extreme: p = 2/8 at best."""
    for few in ([1.0, 2.0, 3.0], [0.1, 0.4, 0.2, 0.7], [1.0, 2.0, 3.0, 4.0, 5.0]):
        effect = mean_effect(dict(enumerate(few)), len(few))
        assert f"with {len(few)} pairs a permutation p is at least {effect.p_permutation:.2g}" == few_pairs(len(few))
    assert few_pairs(6) == few_pairs(1) == few_pairs(0) == ""
    assert "with 3 pairs a permutation p is at least 0.25" in found(3)[1].text
    assert "permutation" not in found(8)[1].text
