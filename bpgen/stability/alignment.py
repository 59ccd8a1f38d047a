"""Alignment of a rule's gradient ĝ with the true gradient g.

    ρ = ⟨ĝ, g⟩ / ‖g‖²        cosine = ⟨ĝ, g⟩ / (‖ĝ‖ ‖g‖)        orthogonal = ‖ĝ - ρ g‖ / ‖g‖
ρ is the step along the gradient that the theorem of Liu et al. 2022 is about. Without a gradient (‖g‖ = 0) all three
are undefined: nan. The true gradient of a problem is `Problem.gradient`.
"""

from __future__ import annotations

import math

from torch import Tensor


def alignment(estimate: Tensor, true: Tensor) -> dict[str, float]:
    """ρ, cosine and orthogonal remainder of ĝ against g, of the same shape, in double precision; nan where g = 0."""
    estimate, true = estimate.double().flatten(), true.double().flatten()
    rho = ratio(estimate @ true, true @ true)
    return {
        "rho": rho,
        "cosine": ratio(estimate @ true, estimate.norm() * true.norm()),
        "orthogonal": ratio((estimate - rho * true).norm(), true.norm()),
    }


def ratio(above: Tensor, below: Tensor) -> float:
    """The quotient of two 0-d tensors; nan unless the lower one is positive."""
    return float(above / below) if below > 0 else math.nan
