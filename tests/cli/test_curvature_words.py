"""What is said below the tables of `bpgen sharpness` and `bpgen stability`."""

import math

import numpy as np
import pytest

from bpgen.cli.curvature_words import STABILITY_LEGEND, density_plot, stability_verdict
from bpgen.cli.stability import _SHOWN

ROW = {"lr": 0.1, "momentum": 0.0, "edge": 0.4, "mu": [[3.0, 0.0]], "converged": True}


@pytest.mark.parametrize(
    ("largest", "said"),
    [(0.7, "Stable"), (1.00001, "At the edge"), (1.2, "Not stable: a step"), (math.nan, "No verdict")],
)
def test_the_verdict_follows_the_largest_multiplier(largest, said):
    text = stability_verdict("rflo", {**ROW, "max_multiplier": largest})
    assert text.startswith(said)
    assert "rflo" in text


def test_the_verdict_says_what_limits_it():
    text = stability_verdict("rflo", {**ROW, "max_multiplier": 1.3, "mu": [[-3.0, 0.0]], "converged": False})
    assert "at any learning rate" in text  # 1 + 0.3 > 1, however small the rate
    assert "overshoots" not in text
    assert "with care" in text
    assert "β" not in text
    assert "β = 0.9" in stability_verdict("bptt", {**ROW, "max_multiplier": 0.9, "momentum": 0.9})


def test_the_legend_names_every_row():
    for name in _SHOWN.values():
        assert name.split("_")[0].strip("|") in STABILITY_LEGEND


def test_a_density_is_drawn_where_it_is():
    """Two peaks, the left one a thousand times as high; the mark stands below the right one."""
    grid = np.linspace(0, 10, 400)
    heights = np.exp(-(((grid - 1) / 0.1) ** 2)) + 1e-3 * np.exp(-(((grid - 9) / 0.1) ** 2))
    *rows, marks, ends, legend = density_plot(
        {"eigenvalue": grid.tolist(), "height": heights.tolist()}, [9.0]
    ).splitlines()
    assert len(rows) == 3
    assert max(map(len, rows)) <= 80
    tall = [i for i, c in enumerate(rows[0]) if c != " "]
    assert 2 + 72 * 0.05 < min(tall) <= max(tall) < 2 + 72 * 0.2  # only the left peak reaches the top
    assert abs(marks.index("▴") - (2 + 72 * 0.9)) <= 1
    assert rows[2][marks.index("▴")] != " "
    assert ends.split() == ["0", "10"]
    assert "1 largest" in legend
