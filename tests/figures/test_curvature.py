"""Figures of curvature: what is drawn are the numbers, with units and n on every panel."""

import numpy as np
import pandas as pd
import pytest
import torch

from bpgen.curvature.landscape import along, plane, span
from bpgen.figures import curvature as figures
from bpgen.figures.run import run_figures, stability
from bpgen.figures.style import sheet


def texts(ax):
    return " ".join(t.get_text() for t in (*ax.texts, *(ax.get_legend().get_texts() if ax.get_legend() else ())))


def test_the_landscape_of_a_quadratic_is_its_quadratic():
    H = torch.diag(torch.tensor([4.0, 1.0, 0.5], dtype=torch.float64))
    b = torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64)
    theta, e = torch.ones(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)

    def value(t):
        return 0.5 * t @ H @ t + b @ t

    a = torch.linspace(-2, 2, 9, dtype=torch.float64)
    slopes = H @ theta + b
    for i in range(2):
        expected = value(theta) + slopes[i] * a + 0.5 * H[i, i] * a**2
        assert torch.allclose(along(value, theta, e[i], a), expected)
    L = plane(value, theta, e[0], e[1], a, a[:5])
    assert L.shape == (9, 5)
    assert torch.isclose(L[2, 3], value(theta + a[2] * e[0] + a[3] * e[1]))
    assert not torch.isclose(L[2, 3], L[3, 2])
    assert 0.5 * 4.0 * span(1.7, 4.0) ** 2 == pytest.approx(1.7)
    assert span(1.7, -4.0) == span(1.7, 4.0)
    assert span(0.0, 4.0) == span(1.0, 0.0) == span(float("nan"), 1.0) == 1.0

    _, (lines, contours) = sheet(2, "a quadratic")
    losses = [along(value, theta, e[i], a) for i in range(2)]
    figures.lines(lines, [a, a], losses, torch.tensor([4.0, 1.0]), slopes[:2], n=5)
    model, drawn = lines.get_lines()[:2]  # of a quadratic, both are the same curve
    assert np.allclose(model.get_ydata(), drawn.get_ydata())
    assert np.allclose(drawn.get_ydata(), losses[0])
    figures.plane(contours, a, a[:5], L, [4.0, 1.0], n=5)
    for ax in (lines, contours):
        assert "n = 5 sequences" in texts(ax)
        assert ax.get_xlabel()
        assert ax.get_ylabel()


def test_spectrum_participation_and_eigenvalues_draw_their_numbers():
    figure, axes = sheet(4, "all")
    grid = np.linspace(-1, 5, 50)
    heights = np.exp(-(grid**2))
    figures.density(axes[0], grid, heights, 0.1 * heights, [3.0, 4.5], block="all", n=7)
    line, outliers = axes[0].get_lines()
    assert np.allclose(line.get_ydata()[:20], heights[:20])
    assert outliers.get_xdata().tolist() == [3.0, 4.5]
    assert "2 largest eigenvalues" in texts(axes[0])
    assert "all weights, n = 7 sequences" in texts(axes[0])
    figures.participation(axes[1], [0.1, 0.7, 0.2], [1 / 3, 1 / 3, 1 / 3], block="W_rec", n=7)
    assert axes[1].get_lines()[0].get_ydata().tolist() == pytest.approx([70, 20, 10])
    assert f"effective number {1 / (0.01 + 0.49 + 0.04):.1f} (onto), 3.0 (from) of 3" in texts(axes[1])
    columns = {"step": [0, 1], "lr": [0.1, 0.05], "lambda_0": [3.0, 50.0], "residual_0": [0.1, 0.2]}
    figures.eigenvalues(axes[2], pd.DataFrame(columns), block="all", n=7)
    bound = next(line for line in axes[2].get_lines() if "eta" in str(line.get_label()))
    assert bound.get_ydata().tolist() == [20, 40]
    figures.multipliers(axes[3], [[20.0, 0.0], [5.0, 3.0]], 0.1)
    points = axes[3].get_lines()[1]
    assert points.get_xdata().tolist() == pytest.approx([-1, 0.5])
    assert points.get_ydata().tolist() == pytest.approx([0, -0.3])
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in axes)
    figure.canvas.draw()


def test_a_run_with_stability_has_a_panel_of_it_and_others_do_not():
    columns = ("train/loss", "train/accuracy", "gap/accuracy", "gap/loss", "alignment/rho", "alignment/cosine")
    table = pd.DataFrame({"step": [0, 1], "lr": 0.1, **dict.fromkeys(columns, 0.5), "sharpness/lambda_max": None})
    assert "stability" not in run_figures(table, "none")
    stable = {"lambda_max": [30.0, 35.0], "residual": 0.5, "mu_abs": 20.0, "bound": 20.0, "bound_rho": [40.0, None]}
    for prefix in ("stability", "stability/surrogate"):
        own = table.assign(**{f"{prefix}/{k}": v for k, v in stable.items()})
        assert "stability" in run_figures(own, "some")
        ax = stability(sheet(1, "")[1][0], own)
        ydata = [line.get_ydata().tolist() for line in ax.get_lines()]
        assert [30.0, 35.0] in ydata
        assert [20.0, 20.0] in ydata
        assert "Edge of stability" in ax.get_title()
