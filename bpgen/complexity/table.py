"""The table of all complexity measures: name, what figures call it, which way it is said to point, its function."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from bpgen.complexity import curvature, function, neighbourhood, weights
from bpgen.complexity.trained import Trained


class Measure(NamedTuple):
    """One complexity measure.

    label: in tables and figures.
    of: its function; the first line of its docstring says what it is, and whose.
    sign: 1 where a larger value is said to mean a larger gap, -1 where it is said to mean a smaller one.
    log: whether it is positive, so that its logarithm is interpolated and compared.
    """

    label: str
    of: Callable[[Trained], float]
    sign: int = 1
    log: bool = True

    @property
    def name(self) -> str:
        """The name of its function, and of its column."""
        return self.of.__name__

    @property
    def text(self) -> str:
        """What it is, and whose, in a line."""
        return (self.of.__doc__ or "").strip().splitlines()[0]


SHARPNESS = "lambda_rec"  # what all others are compared with
MEASURES = (
    Measure("λ₁ of W_rec", curvature.lambda_rec),
    Measure("λ₁ of all weights", curvature.lambda_all),
    Measure("trace", curvature.trace),
    Measure("Frobenius norm", curvature.frobenius),
    Measure("λ₁ ‖θ‖²", curvature.lambda_theta),
    Measure("adaptive sharpness", curvature.adaptive),
    Measure("Fisher-Rao norm", curvature.fisher_rao),
    Measure("worst case in a ball", neighbourhood.worst_case),
    Measure("loss under weight noise", neighbourhood.under_noise),
    Measure("distance from start", weights.distance, log=False),
    Measure("effective rank of W - W₀", weights.effective_rank),
    Measure("spectral radius", weights.spectral_radius),
    Measure("margin", function.margin, sign=-1, log=False),
    Measure("input gradient", function.input_gradient),
    Measure("state Jacobian", function.state_jacobian),
)


def measured(net: Trained) -> dict[str, float]:
    """All measures of a network by name; nan where its weights or its loss are not finite."""
    if not all(bool(w.isfinite().all()) for w in net.problem.params.values()):
        return {measure.name: math.nan for measure in MEASURES}
    return {measure.name: measure.of(net) for measure in MEASURES}
