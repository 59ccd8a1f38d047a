"""Alignment of a rule's gradient with the true gradient of the same batch, without regulariser.

The numbers are those of `bpgen.stability.alignment`: overall, over all parameters, and for each weight under
alignment/<number>/<weight>.
"""

from __future__ import annotations

import torch

from bpgen.callbacks.measurement import Measurement, Moment, size_of
from bpgen.stability.alignment import alignment
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
        true = problem.gradient()
        row: dict[str, float | int] = {}
        overall = alignment(*(torch.cat([grads[n].flatten() for n in true]) for grads in (estimate, true)))
        row.update({f"alignment/{key}": value for key, value in overall.items()})
        for name in true:
            row.update({f"alignment/{k}/{name}": v for k, v in alignment(estimate[name], true[name]).items()})
        return row
