"""Alignment of a rule's gradient with the true gradient of the same batch, without regulariser.

The numbers are those of `bpgen.stability.alignment`: overall, over all parameters, and for each weight under
alignment/<number>/<weight>.
"""

from __future__ import annotations

import torch

from bpgen.callbacks.evaluation import Evaluation, Metrics
from bpgen.callbacks.measurement import Measurement, size_of
from bpgen.columns import Column
from bpgen.stability.alignment import alignment


class Alignment(Measurement):
    """Alignment of the rule's gradient with BPTT's on a fixed training batch.

    Args:
        samples: size of the batch; 0 switches the measurement off.
    """

    name = "alignment"
    columns = (
        Column("alignment/rho", "alignment with BPTT, ρ", panel="alignment", shown="{:.3f}"),
        Column("alignment/cosine", "alignment with BPTT, cosine", panel="alignment", shown="{:.3f}"),
        Column("alignment/orthogonal", "what is orthogonal to BPTT, relative to its length"),
    )

    def __init__(self, samples: int = 256) -> None:
        self.samples = size_of("alignment.samples", samples)

    @property
    def enabled(self) -> bool:
        """Switched off by samples = 0."""
        return self.samples > 0

    def describe(self, evaluation: Evaluation) -> str:
        """Which batch."""
        part = evaluation.splits.described("train", self.samples)
        return f"alignment: rule against BPTT on {part} samples, without regulariser"

    def measure(self, evaluation: Evaluation) -> Metrics:
        """ρ, cosine and orthogonal remainder, overall and per weight."""
        module, split = evaluation.module, evaluation.training(self.samples)
        problem, draws = module.problem(split, module.loss.without_regulariser(), "alignment", evaluation.step)
        with torch.no_grad():
            estimate = module.rule.gradients(problem, draws).grads
        true = problem.gradient()
        overall = alignment(*(torch.cat([grads[n].flatten() for n in true]) for grads in (estimate, true)))
        row: Metrics = dict(overall)
        for name in true:
            row.update({f"{k}/{name}": v for k, v in alignment(estimate[name], true[name]).items()})
        return self.prefixed(row)
