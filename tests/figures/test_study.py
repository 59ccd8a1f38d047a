"""Every figure says what it shows: axes with units, panels with their n, one colour a rule."""

import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from bpgen.figures.study import PANELS, study_figures
from bpgen.figures.style import Style, log_axis, on_lines, styles
from bpgen.papers.liu2022 import Liu2022
from tests.analysis.planted import study
from tests.analysis.test_verdicts import YES

UNIT = re.compile(
    r"\((points|ratio|updates|dimensionless|loss per weight²|nats or ½·error²|½·error²)\)|at training loss"
)


@pytest.fixture(scope="module")
def figures():
    settings = ((1.0, "digits"), (0.5, "digits"))
    return study_figures(study(np.random.default_rng(0), 5, YES, settings=settings), panels=Liu2022.figures)


def test_all_figures_are_drawn(figures):
    assert list(figures) == [*PANELS, "remedies"]


@pytest.mark.parametrize("name", [*PANELS, "remedies"])
def test_axes_have_labels_with_units_and_panels_their_n(figures, name):
    assert len(figures[name].axes) == 2
    for ax in figures[name].axes:
        assert UNIT.search(ax.get_xlabel()), ax.get_xlabel()
        assert UNIT.search(ax.get_ylabel()), ax.get_ylabel()
        assert "n = 5 seeds a rule" in ax.get_title()
        assert r"$\alpha$ = " in ax.get_title()
        assert ax.lines


def test_a_panel_with_unequal_seeds_says_so():
    table = study(np.random.default_rng(0), 5, YES)
    table = table[~((table["rule"] == "mdgl") & (table["seed"] > 2))]
    for figure in study_figures(table).values():
        assert "n = 3 to 5 seeds a rule" in figure.axes[0].get_title()


def test_two_seeds_have_no_mark_for_what_takes_three():
    drawn = {n: study_figures(study(np.random.default_rng(0), n, YES)) for n in (2, 5)}
    for name in ("gap_by_rule", "gap_against_sharpness"):
        said = {n: [t.get_text() for legend in f[name].legends for t in legend.get_texts()] for n, f in drawn.items()}
        assert any("95 % interval" in text for text in said[5])
        assert not any("95 % interval" in text for text in said[2])


@pytest.mark.parametrize(
    "settings", [((0.2, "delayed_match_to_sample"),), ((1.0, "digits"), (0.5, "delayed_match_to_sample"))]
)
def test_nothing_is_cut_off(settings):
    rules = {**YES, "three_factor, early lr": YES["three_factor"], "rflo": YES["three_factor"]}
    table = study(np.random.default_rng(0), 11, rules, settings=settings)
    table = table[(table["rule"] != "rflo") | (table["seed"] < 10)]  # the longest of titles
    for name, figure in study_figures(table, panels=Liu2022.figures).items():
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        labels = [label for ax in figure.axes for label in (ax.title, ax.xaxis.label, ax.yaxis.label)]
        parts = [figure.legends[0], *labels]
        for part in parts:
            box = part.get_window_extent(renderer)
            assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, (name, part)
            assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, (name, part)


@pytest.mark.parametrize(
    ("low", "high"), [*((0.6, 1.6), (19, 42), (30, 60), (3, 90), (0.01, 5000)), *((2.5, 7.5), (5.1, 5.9), (6.2, 6.7))]
)
def test_a_log_axis_has_a_few_numbers(low, high):
    figure = Figure()
    ax = figure.subplots()
    ax.plot([low, high], [low, high])
    log_axis(ax, "x")
    figure.draw(FigureCanvasAgg(figure).get_renderer())
    inside = [t for t in ax.get_xticklabels(which="both") if low <= t.get_position()[0] <= high and t.get_text()]
    assert 2 <= len(inside) <= 8


def test_a_rule_has_its_colour_in_whatever_company():
    fixed = Liu2022.styles
    alone, together = styles(["rflo"], fixed), styles(["mine", "bptt", "rflo", "yours"], fixed)
    assert alone["rflo"] == together["rflo"]
    assert len({style[:2] for style in together.values()}) == 4
    assert list(together) == ["mine", "bptt", "rflo", "yours"]
    assert len({style[:2] for style in styles("abcdefghijklmn").values()}) == 14
    assert styles(["a"], {"a": Style("red", "x", "rule A")})["a"].label == "rule A"
    assert styles(["a"])["a"].label == "a"


def test_colours_differ_in_lightness_or_hue_for_the_colour_blind():
    """Deuteranopes' two axes: luminance and blue against yellow."""
    seen = []
    for colour, _, _ in styles([*YES, "rflo"]).values():
        r, g, b = to_rgb(colour)
        luminance, blue = 0.2126 * r + 0.7152 * g + 0.0722 * b, b - (r + g) / 2
        seen.append((luminance, blue))
    for i, one in enumerate(seen):
        for other in seen[:i]:
            assert max(abs(one[0] - other[0]), abs(one[1] - other[1])) > 0.04


def test_diverged_runs_and_empty_tables_draw_nothing():
    table = study(np.random.default_rng(0), 3, YES)
    assert study_figures(table.assign(status="diverged")) == {}


def test_long_names_do_not_meet_below_an_axis():
    assert on_lines("bptt") == "bptt"
    assert on_lines("three_factor, early lr") == "three_\nfactor,\nearly lr"
    assert on_lines("bptt, a quarter of the rate") == "bptt,\na quarter\nof the\nrate"
