"""Figures of a network's curvature, as functions of numbers.

n, the number of sequences the loss is a mean of, stands on every panel. The map of the plane is cividis, which is told
apart by colour-blind readers and in grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from bpgen.figures.style import BLACK, BLUE, GREEN, PURPLE, VERMILION, log_axis, note

_LINES = ((BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (PURPLE, ":"))
_WEIGHT = "distance in weights"


def eigenvalues(ax: Axes, table: pd.DataFrame, *, block: str, n: int, surrogate: bool = False) -> Axes:
    """Leading eigenvalues along training, residuals as error bars, with 2/η where the block is all that is trained.

    Args:
        ax: where to draw.
        table: columns step, lr, lambda_0, residual_0, lambda_1, ...
        block: which weights.
        n: sequences the loss is a mean of.
        surrogate: whether it is the surrogate network's.
    """
    count = sum(column.startswith("lambda_") for column in table)
    for i in range(count):
        color, dash = _LINES[i] if i < len(_LINES) else ("0.7", "-")
        values, residuals = table[f"lambda_{i}"], table[f"residual_{i}"]
        label = rf"$\lambda_{{{i + 1}}}$" if i <= len(_LINES) else None
        ax.errorbar(table["step"], values, yerr=residuals, color=color, ls=dash, marker=".", label=label)
    if block == "all":
        ax.plot(table["step"], 2 / table["lr"], color=BLACK, ls=(0, (1, 3)), label=r"$2/\eta$ (SGD)")
    low, high = table[[f"lambda_{i}" for i in range(count)]].min().min(), table["lambda_0"].max()
    if low > 0 and high > 20 * low:
        log_axis(ax, "y")
    title = f"Leading eigenvalues{', surrogate network' if surrogate else ''}"
    ax.set(xlabel="training step", ylabel="curvature (loss per weight²)", title=title)
    ax.legend(frameon=False, ncols=2, title=f"{_of(block, n)} (bars: residuals)", title_fontsize="small")
    return ax


def density(
    ax: Axes,
    eigenvalues: ArrayLike,
    heights: ArrayLike,
    errors: ArrayLike | None = None,
    outliers: ArrayLike = (),
    *,
    block: str = "",
    n: int | None = None,
) -> Axes:
    """Spectral density against eigenvalue, with a band of one standard error, and outliers as triangles.

    Args:
        ax: where to draw.
        eigenvalues: grid [m].
        heights: density [m] per unit of eigenvalue; it integrates to one.
        errors: standard error [m] of the heights.
        outliers: eigenvalues that were found one by one.
        block: which weights.
        n: sequences the loss is a mean of.
    """
    grid, heights = np.asarray(eigenvalues, dtype=float), np.asarray(heights, dtype=float)
    floor = 1e-6 * heights.max()
    ax.plot(grid, np.maximum(heights, floor), color=BLUE, label="density")
    if errors is not None:
        spread = np.asarray(errors, dtype=float)
        low, high = np.maximum(heights - spread, floor), np.maximum(heights + spread, floor)
        ax.fill_between(grid, low, high, color=BLUE, alpha=0.25, lw=0, label="± standard error")
    found = np.asarray(outliers, dtype=float)
    if found.size:
        ax.plot(
            found,
            np.full(found.shape, 3 * floor),
            "v",
            color=VERMILION,
            ms=6,
            label=f"{found.size} largest eigenvalues",
        )
    log_axis(ax, "y")
    ax.set(ylim=(floor, 3 * heights.max()))
    ax.set(xlabel="eigenvalue (loss per weight²)", ylabel="density (per eigenvalue unit)", title="Spectrum")
    ax.legend(frameon=False, loc="upper right")
    note(ax, _of(block, n), (0.98, 0.66))
    return ax


def lines(
    ax: Axes,
    distances: Sequence[ArrayLike],
    losses: Sequence[ArrayLike],
    eigenvalues: ArrayLike,
    slopes: ArrayLike,
    *,
    n: int | None = None,
) -> Axes:
    """Loss along eigenvectors, each with its quadratic L + s a + ½ λ a² in grey.

    Args:
        ax: where to draw.
        distances: a [m], one array a direction.
        losses: L(θ + a v) [m], one array a direction; the middle one is at a = 0.
        eigenvalues: λ of each direction.
        slopes: s = <∇L, v> of each direction.
        n: sequences the loss is a mean of.
    """
    described = zip(distances, losses, np.atleast_1d(eigenvalues), np.atleast_1d(slopes), strict=True)
    for i, (a, L, value, slope) in enumerate(described):
        a, L = np.asarray(a, dtype=float), np.asarray(L, dtype=float)
        color, dash = _LINES[i % len(_LINES)]
        model = L[len(L) // 2] + slope * a + 0.5 * value * a**2
        ax.plot(a, model, color="0.6", ls=dash, lw=1, label="quadratic from λ and slope" if i == 0 else None)
        ax.plot(a, L, color=color, ls=dash, label=rf"eigenvector {i + 1}, $\lambda$ = {value:.3g}")
    ax.set(xlabel=f"{_WEIGHT} along the eigenvector", ylabel="loss", title="Loss along the top eigenvectors")
    ax.locator_params(axis="x", nbins=6)
    ax.legend(frameon=False)
    note(ax, _of("", n), (0.98, 0.02))
    return ax


def plane(
    ax: Axes, a: ArrayLike, b: ArrayLike, losses: ArrayLike, eigenvalues: Sequence[float], *, n: int | None = None
) -> Axes:
    """Loss in the plane of the top two eigenvectors, as filled contours; the network sits at the cross.

    Args:
        ax: where to draw.
        a: distances along the first eigenvector [k].
        b: distances along the second [m].
        losses: [k,m].
        eigenvalues: of both.
        n: sequences the loss is a mean of.
    """
    L = np.asarray(losses, dtype=float).T
    shapes = ax.contourf(a, b, L, levels=12, cmap="cividis")
    ax.contour(a, b, L, levels=12, colors="white", linewidths=0.4)
    ax.plot(0, 0, "+", color="white", ms=11, mew=2)
    ax.figure.colorbar(shapes, ax=ax, label="loss")
    ax.set(
        xlabel=rf"{_WEIGHT}, eigenvector 1 ($\lambda$ = {eigenvalues[0]:.3g})",
        ylabel=rf"distance, eigenvector 2 ($\lambda$ = {eigenvalues[1]:.3g})",
        title="Loss in the plane of the top two",
    )
    ax.locator_params(nbins=5)
    text = note(ax, _of("", n), (0.98, 0.02))
    text.set_bbox({"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1.5})
    return ax


def participation(ax: Axes, incoming: ArrayLike, outgoing: ArrayLike, *, block: str = "", n: int | None = None) -> Axes:
    """Share of each neuron in the top eigenvector, largest first, against an even one.

    Args:
        ax: where to draw.
        incoming: shares [N] of the weights onto each neuron.
        outgoing: shares [N] of the weights from each neuron.
        block: which weights.
        n: sequences the loss is a mean of.
    """
    shares = [np.sort(np.asarray(s, dtype=float))[::-1] for s in (incoming, outgoing)]
    N, effective = len(shares[0]), [s.sum() ** 2 / np.square(s).sum() if s.any() else 0.0 for s in shares]
    for share, mark, color, name in zip(shares, "ox", (BLUE, VERMILION), ("onto", "from"), strict=True):
        ax.plot(np.arange(1, N + 1), 100 * share, mark, ms=4, color=color, label=f"weights {name} a neuron")
    ax.axhline(100 / N, color=BLACK, ls="--", lw=1, label="even share")
    ax.set(xlabel="neuron, by rank", ylabel="share of eigenvector 1 (%)", title="Participation of neurons")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, loc="upper right")
    many = f"effective number {effective[0]:.1f} (onto), {effective[1]:.1f} (from) of {N}"
    note(ax, f"{many}\n{_of(block, n)}", (0.98, 0.52))
    return ax


def multipliers(ax: Axes, mu: Sequence[Sequence[float]], lr: float, *, n: int | None = None) -> Axes:
    """1 - η μ in the complex plane, with the unit circle inside which updates are stable (without momentum).

    Args:
        ax: where to draw.
        mu: eigenvalues of the rule's Jacobian, [real part, imaginary part] each.
        lr: η.
        n: sequences the loss is a mean of.
    """
    points = 1 - lr * np.array([complex(*pair) for pair in mu])
    angle = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(angle), np.sin(angle), color=BLACK, lw=1, label="edge of stability")
    ax.plot(
        points.real, points.imag, "o", color=BLUE, ms=4, label=rf"$1-\eta\mu$, {len(points)} found, $\eta$ = {lr:g}"
    )
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel="real part", ylabel="imaginary part", title="Multipliers of the update")
    if len(points) and np.abs(points).max() < 3:  # else the circle itself is small beside them
        _enlarged(ax, points)
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)  # nothing is safe inside
    note(ax, _of("", n), (0.98, 0.02))
    return ax


def _enlarged(ax: Axes, points: NDArray[Any]) -> None:
    """The same points in an inset of their own scale; the edge of stability where it passes through."""
    width = max(float(np.ptp(points.real)), float(np.ptp(points.imag)), 1e-3)
    inset = ax.inset_axes((0.36, 0.3, 0.33, 0.4))  # its numbers clear of the circle
    angle = np.linspace(0, 2 * np.pi, 20_000)
    inset.plot(np.cos(angle), np.sin(angle), color=BLACK, lw=1)
    inset.plot(points.real, points.imag, "o", color=BLUE, ms=3)
    for centre, limits in ((points.real, inset.set_xlim), (points.imag, inset.set_ylim)):
        middle = float(centre.max() + centre.min()) / 2
        limits(middle - 0.6 * width, middle + 0.6 * width)
    inset.tick_params(labelsize="x-small")
    inset.locator_params(nbins=3)
    ax.indicate_inset_zoom(inset, edgecolor="0.5")


def _of(block: str, n: int | None) -> str:
    which = {"": "", "all": "all weights"}.get(block, block)
    return ", ".join(part for part in (which, "" if n is None else f"n = {n} sequences") if part)
