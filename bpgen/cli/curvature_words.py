"""What commands that measure saved networks say below their tables: legends, verdicts, a density in characters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

STABILITY_LEGEND = """\
λ_1        largest eigenvalue of the Hessian of the loss over all trained weights
|μ_1|      size of the leading eigenvalue of the rule's own Jacobian Dĝ; for BPTT it is λ_1
2/η        bound on λ_1 for BPTT, 2(1+β)/η with momentum β
2/(ηρ_1)   bound on λ_1 for this rule, if it only shrinks the gradient along the top eigenvector by ρ_1
ρ, cosine  of the rule's gradient with the true one: <ĝ,g>/‖g‖² and the cosine; ρ_1 along the top eigenvector
edge       λ_1 over 2/η; edge·ρ_1 over 2/(ηρ_1): 1 is the edge of stability
μ_1, ...   the eigenvalues of Dĝ found, by size, complex ones in pairs
max |1-ημ| the largest multiplier of a step (with momentum its root): below 1 a fixed point here would be stable
asymmetry  share of Dĝ that no loss has: 0 is a gradient flow, 1 a pure rotation"""
_EDGE = 1e-4  # multipliers this close to one neither shrink nor grow anything within a run
_BARS = " ▁▂▃▄▅▆▇█"


def stability_verdict(rule: str, row: Mapping[str, Any]) -> str:
    """One sentence: whether steps shrink, overshoot or leave along a direction of negative curvature; bound; doubts."""
    largest = row["max_multiplier"]
    rate = f"η = {row['lr']:g}" + (f", β = {row['momentum']:g}" if row["momentum"] else "")
    if not math.isfinite(largest):
        return f"No verdict: no eigenvalue of {rule}'s Jacobian was found that is not zero ({rate})."
    worst = max((complex(*mu) for mu in row["mu"]), key=lambda mu: abs(1 - row["lr"] * mu))
    if largest < 1:
        said = f"Stable along what was found: a step of {rule} shrinks every leading direction"
    elif largest - 1 <= _EDGE:
        said = f"At the edge: a step of {rule} leaves a leading direction as large as it was"
    elif worst.real < 0:
        said = (
            f"Not stable, but no step is too large: {rule} leaves along a direction with Re μ = {worst.real:.2g} < 0, "
            f"at any learning rate"
        )
    else:
        said = f"Not stable: a step of {rule} overshoots along a leading direction"
    doubt = "" if row["converged"] else "; not all eigenvalues were found to the tolerance, so take it with care"
    return f"{said} (max |1-ημ| = {largest:.4g} at {rate}; λ_1 is {row['edge']:.2g} times 2/η{doubt})."


def density_plot(density: Mapping[str, Sequence[float]], eigenvalues: Sequence[float], width: int = 72) -> str:
    """The spectral density in characters: height by its logarithm over six decades; marks are leading eigenvalues."""
    grid, heights = density["eigenvalue"], density["height"]
    low, high = grid[0], grid[-1]
    size = (high - low) / width or 1.0
    columns = [0.0] * width
    for x, y in zip(grid, heights, strict=True):
        i = min(width - 1, int((x - low) / size))
        columns[i] = max(columns[i], y)
    top = max(columns)
    shown = [max(0.0, 1 + math.log10(y / top) / 6) if y > 0 else 0.0 for y in columns]
    lines = []
    for level in (2, 1, 0):  # three rows of eight steps each
        cells = [round(min(1.0, max(0.0, 3 * v - level)) * 8) for v in shown]
        lines.append("  " + "".join(_BARS[c] for c in cells))
    marks = [" "] * width
    for value in eigenvalues:
        marks[max(0, min(width - 1, int((value - low) / size)))] = "▴"
    lines.append("  " + "".join(marks))
    ends = f"{low:.3g}", f"{high:.3g}"
    lines.append("  " + ends[0] + ends[1].rjust(width - len(ends[0])))
    lines.append(
        f"  density of eigenvalues, logarithmic over six decades; ▴ the {len(eigenvalues)} largest found one by one"
    )
    return "\n".join(lines)
