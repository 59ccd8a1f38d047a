"""Perceptual decision: which of two noisy inputs was larger on average?

Source: K. H. Britten, M. N. Shadlen, W. T. Newsome and J. A. Movshon (1992), J. Neurosci. 12:4745 (random dots), as
a task for networks in H. F. Song, G. R. Yang and X.-J. Wang (2016), PLoS Comput. Biol. 12:e1004792, whose inputs are
(1 ± coherence)/2 with noise. Their fixation output is left out: the loss is taken at the steps of decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch

from bpgen.errors import require
from bpgen.tasks.base import Split
from bpgen.tasks.trials import TrialTask, at_steps, coin


class PerceptualDecision(TrialTask):
    """Perceptual decision: two streams of noisy evidence and a go signal; the class is the stream with more evidence.

    The class is the side that the evidence was drawn from, so single trials can mislead any observer: at the default
    difficulty an ideal one, who sums the evidence, is right in about 85 % of the trials. Chance is 50 %.

    Args:
        coherences: strengths of evidence, one is drawn for each trial.
        stimulus: steps of evidence.
        delay: silent steps between evidence and go signal.
        decision: steps at which the answer counts.
        evidence_sd: standard deviation of the evidence at each step.
        **trials: see `TrialTask`.
    """

    n_in = 3
    n_out = 2
    input_names = ("evidence for class 0", "evidence for class 1", "go")
    when: ClassVar[Literal["last", "all"]] = "all"

    def __init__(
        self,
        coherences: Sequence[float] = (0.064, 0.128, 0.256, 0.512),
        stimulus: int = 20,
        delay: int = 0,
        decision: int = 5,
        evidence_sd: float = 0.5,
        noise_sd: float = 0.5,
        **trials: Any,
    ) -> None:
        super().__init__(noise_sd=noise_sd, **trials)
        require(
            len(coherences) > 0 and all(c >= 0 for c in coherences),
            f"task.coherences must be numbers >= 0, got {list(coherences)}.",
        )
        require(
            stimulus >= 1 and delay >= 0 and decision >= 1,
            "task.stimulus and task.decision must be positive and task.delay >= 0, "
            f"got {stimulus}, {decision} and {delay}.",
        )
        require(evidence_sd >= 0, f"task.evidence_sd must be >= 0, got {evidence_sd}.")
        self.coherences, self.stimulus, self.evidence_sd = tuple(coherences), stimulus, evidence_sd
        if evidence_sd == 0:
            self.reuses_training = True
            self.clean_gap = "without noise of the evidence there is one trial for every coherence and side"
        self.go = stimulus + delay
        self.n_steps = self.go + decision

    def conditions(self, n: int, random: torch.Generator) -> dict[str, torch.Tensor]:
        """The side that the evidence is drawn from, and its strength [n]."""
        side = coin(n, random)
        drawn = torch.randint(0, len(self.coherences), (n,), generator=random)
        return {"side": side, "coherence": torch.tensor(self.coherences)[drawn]}

    def trials(self, n: int, random: torch.Generator) -> Split:
        """x [T,n,3]: evidence for class 0, evidence for class 1, go signal. target int64 [T,n]."""
        side, coherence = self.conditions(n, random).values()
        signed = coherence * (2 * side - 1)
        x = torch.zeros(self.n_steps, n, self.n_in)
        noise = self.evidence_sd * torch.randn(self.stimulus, n, 2, generator=random)
        x[: self.stimulus, :, :2] = (1 + torch.stack([-signed, signed], -1)) / 2 + noise
        x[self.go :, :, 2] = 1
        return Split(x, side.expand(self.n_steps, n).contiguous(), at_steps(self.n_steps, n, self.go))

    def ideal_answer(self, x: torch.Tensor, noise_sd: float) -> torch.Tensor:
        """The side with more evidence in sum."""
        evidence = x[: self.stimulus, :, :2].sum(0)
        return (evidence[:, 1] > evidence[:, 0]).long().expand(self.n_steps, -1)
