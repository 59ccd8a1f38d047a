"""Sections of the report that need something measured."""

import numpy as np
import pytest

from bpgen.analysis.markdown import markdown_table
from bpgen.figures.changes import Improvements
from bpgen.figures.study import study_figures
from bpgen.papers.liu2022 import Liu2022
from bpgen.study.sections import over_bounds
from tests.analysis import planted

RULES = {"bptt": (0.03, 3.0, 1, 0, 1.0), "rflo": (0.03, 3.0, 1, 0, 0.05)}


@pytest.fixture
def table():
    return planted.study(np.random.default_rng(0), 5, RULES)


def test_curvature_over_its_bounds(table):
    """Early evaluations do not count, and every ratio is over its own bound."""
    assert over_bounds(table) == []
    late, rflo = table["step"] >= 600, table["rule"] == "rflo"
    wave = table["step"].map(dict(zip(range(600, 1200, 100), (0.9, 0.95, 1, 1, 1.05, 1.1), strict=True)))  # median 1
    table["stability/edge"] = np.where(late, np.where(rflo, 3.0, 1.0) * wave, 50.0)
    table["stability/rho"] = np.where(rflo, 0.5, 1.0)
    table["stability/edge_rho"] = np.where(late, wave, 50.0)
    table["stability/mu_abs"] = np.where(late, np.where(rflo, 0.8, 1.0) * wave, 50.0) * 2 / table["lr"]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in over_bounds(table)[2].splitlines()[2:]]
    assert [row[:2] for row in rows] == [["bptt", "5"], ["rflo", "5"]]
    assert [float(cell.split()[0]) for cell in rows[0][2:]] == [1, 1, 1, 1]
    assert [float(cell.split()[0]) for cell in rows[1][2:]] == [3, 1.5, 1, 0.8]


def test_a_bar_breaks_no_table():
    lines = markdown_table(("size |μ|", "n"), [("a|b", "1")]).splitlines()
    assert [line.count("|") for line in lines] == [3, 3, 3]


def test_ratios_without_a_logarithm_are_counted(table):
    for column in ("edge", "edge_rho", "mu_abs"):
        table[f"stability/{column}"] = 1.0
    table["stability/rho"] = np.where(table["seed"] == 3, -0.1, 1.0)
    assert "1 (1 to 1, 4 seeds)" in over_bounds(table)[2]


def test_figures_of_what_was_not_measured_are_left_out(table):
    flat = table.drop(columns="sharpness/lambda_max")
    assert set(study_figures(flat)) == {"gap_by_rule", "alignment"}
    own = {**Liu2022.figures, "remedies": Improvements("bptt", ("rflo",))}
    assert set(study_figures(flat, panels=own)) == {"gap_by_rule", "alignment"}
    assert set(study_figures(table, panels=own)) >= {"sharpness_against_steps", "remedies"}


def test_a_papers_own_figure_needs_no_sharpness(table):
    def here(ax, setting, style_of):
        ax.plot([0, 1], [0, 1])

    assert set(study_figures(table.drop(columns="sharpness/lambda_max"), panels={"here": here})) >= {"here"}
