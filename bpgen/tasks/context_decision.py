"""Context-dependent decision: of two streams of noisy evidence, judge the one that the context names.

Source: V. Mante, D. Sussillo, K. V. Shenoy and W. T. Newsome (2013), Nature 503:78 (motion and colour), with inputs as
in their network: one signed, noisy evidence for each modality and one constant input for each context.
Their readout is a saddle-node memory with two targets; here the class is asked at the last steps.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch

from bpgen.errors import require
from bpgen.tasks.base import Split
from bpgen.tasks.trials import TrialTask, at_steps, coin


class ContextDecision(TrialTask):
    """Context-dependent decision: the class is the sign of the evidence in the modality that the context names.

    The class is the side that the evidence was drawn from. Chance is 50 %; judging the wrong modality, or both, gives
    50 % or 75 % at best.

    Args:
        max_evidence: means of the evidence are drawn uniformly from ±[0.2, 1] times this.
        stimulus: steps of evidence.
        decision: steps at which the answer counts, with a go signal and no evidence.
        evidence_sd: standard deviation of the evidence at each step.
        **trials: see `TrialTask`.
    """

    n_in = 5
    n_out = 2
    input_names = ("modality 0", "modality 1", "context 0", "context 1", "go")
    when: ClassVar[Literal["last", "all"]] = "all"

    def __init__(
        self,
        max_evidence: float = 0.5,
        stimulus: int = 20,
        decision: int = 5,
        evidence_sd: float = 0.5,
        noise_sd: float = 0.5,
        **trials: Any,
    ) -> None:
        super().__init__(noise_sd=noise_sd, **trials)
        require(max_evidence > 0, f"task.max_evidence must be > 0, got {max_evidence}.")
        require(
            stimulus >= 1 and decision >= 1,
            f"task.stimulus and task.decision must be positive, got {stimulus} and {decision}.",
        )
        require(evidence_sd >= 0, f"task.evidence_sd must be >= 0, got {evidence_sd}.")
        self.max_evidence, self.stimulus, self.evidence_sd = max_evidence, stimulus, evidence_sd
        self.n_steps = stimulus + decision

    def conditions(self, n: int, random: torch.Generator) -> dict[str, torch.Tensor]:
        """The modality that counts [n], and the evidence of both [n,2], > 0 for class 1."""
        sides = coin(2 * n, random).view(n, 2)
        strength = self.max_evidence * (0.2 + 0.8 * torch.rand(n, 2, generator=random))
        context = coin(n, random)
        return {"context": context, "evidence": strength * (2 * sides - 1)}

    def trials(self, n: int, random: torch.Generator) -> Split:
        """x [T,n,5]: evidence of modality 0 and 1, context 0 and 1, go signal. target int64 [T,n]."""
        context, evidence = self.conditions(n, random).values()
        x = torch.zeros(self.n_steps, n, self.n_in)
        noise = self.evidence_sd * torch.randn(self.stimulus, n, 2, generator=random)
        x[: self.stimulus, :, :2] = evidence + noise
        x[:, torch.arange(n), 2 + context] = 1
        x[self.stimulus :, :, 4] = 1
        side = (evidence.gather(1, context.unsqueeze(1)).squeeze(1) > 0).long()
        return Split(x, side.expand(self.n_steps, n).contiguous(), at_steps(self.n_steps, n, self.stimulus))

    def ideal_answer(self, x: torch.Tensor, noise_sd: float) -> torch.Tensor:
        """The sign of the summed evidence in the modality whose context was larger in sum."""
        context = x[..., 2:4].sum(0).argmax(-1, keepdim=True)
        evidence = x[: self.stimulus, :, :2].sum(0).gather(1, context).squeeze(1)
        return (evidence > 0).long().expand(self.n_steps, -1)
