"""Alignment of a rule's gradient ĝ with the true gradient g of the same batch, without regulariser.

    ρ = ⟨ĝ, g⟩ / ‖g‖²        cosine = ⟨ĝ, g⟩ / (‖ĝ‖ ‖g‖)        orthogonal = ‖ĝ - ρ g‖ / ‖g‖
ρ is the step along the gradient that the theorem of Liu et al. 2022 is about. Overall, over all parameters, and
for each weight under alignment/<number>/<weight>. Without a gradient (‖g‖ = 0) all three are undefined: nan.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bpgen.callbacks.measurement import Measurement, Moment, size_of
from bpgen.tasks import Task


class Alignment(Measurement):
    """Alignment of the rule's gradient with BPTT's on a fixed training batch.

    Args:
        samples: size of the batch; 0 switches the measurement off.
    """

    name = "alignment"

    def __init__(self, samples: int = 256) -> None:
        super().__init__()
        self.samples = size_of("alignment.samples", samples) or 0

    @property
    def enabled(self) -> bool:
        """Switched off by samples = 0."""
        return self.samples > 0

    def describe(self, task: Task) -> str:
        """Which batch."""
        whole = task.split("train").size
        return (
            f"alignment: rule against BPTT on {min(self.samples, whole)} of {whole} train samples, without regulariser"
        )

    def measure(self, moment: Moment) -> dict[str, float | int]:
        """ρ, cosine and orthogonal remainder, overall and per weight."""
        module = moment.module
        split = self.subset(moment, "train", self.samples)
        problem, draws = module.problem(split, module.loss.without_regulariser(), "alignment", moment.step)
        with torch.no_grad():
            estimate = module.rule.gradients(problem, draws).grads
        params, true = problem.params, problem.gradient()
        row: dict[str, float | int] = {}
        overall = alignment(
            torch.cat([estimate[n].flatten() for n in params]), torch.cat([true[n].flatten() for n in params])
        )
        row.update({f"alignment/{key}": value for key, value in overall.items()})
        for name in params:
            row.update({f"alignment/{k}/{name}": v for k, v in alignment(estimate[name], true[name]).items()})
        return row


def alignment(estimate: Tensor, true: Tensor) -> dict[str, float]:
    """ρ, cosine and orthogonal of two gradients of the same shape; see the module's docstring."""
    g_hat, g = estimate.double().flatten(), true.double().flatten()
    norm, size = g.norm(), g_hat.norm()
    if norm == 0:
        return dict.fromkeys(("rho", "cosine", "orthogonal"), float("nan"))
    rho = (g_hat @ g) / norm**2
    return {
        "rho": float(rho),
        "cosine": float(rho * norm / size) if size > 0 else float("nan"),
        "orthogonal": float((g_hat - rho * g).norm() / norm),
    }
