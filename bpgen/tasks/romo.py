"""Frequency discrimination: hold the first of two vibration frequencies and say whether it was the higher one.

Source: R. Romo, C. D. Brody, A. Hernández and L. Lemus (1999), Nature 399:470. As in the networks of O. Barak,
D. Sussillo, R. Romo, M. Tsodyks and L. F. Abbott (2013), Prog. Neurobiol. 103:214, the stimulus is the firing rate of
neurons that encode frequency: one input rises with it and one falls.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch

from bpgen.errors import require
from bpgen.tasks.base import Split
from bpgen.tasks.trials import TrialTask, at_steps, coin

_RANGE = (10.0, 34.0)  # Hz, of the monkeys' stimuli


class Romo(TrialTask):
    """Frequency discrimination (Romo 1999): two stimuli of 10 to 34 Hz with a delay between; class 1 if f1 > f2.

    Chance is 50 %. Looking at the second stimulus alone is right in about 75 % of the trials.

    Args:
        stimulus: steps of each stimulus.
        delay: steps between them.
        decision: steps at which the answer counts.
        difference: f1 and f2 differ by this many Hz; the less, the harder.
        evidence_sd: standard deviation of the noise of the inputs at each step of a stimulus, in units of the range.
        **trials: see `TrialTask`.
    """

    n_in = 3
    n_out = 2
    input_names = ("rises with frequency", "falls with frequency", "go")
    when: ClassVar[Literal["last", "all"]] = "all"

    def __init__(
        self,
        stimulus: int = 5,
        delay: int = 10,
        decision: int = 5,
        difference: float = 8.0,
        evidence_sd: float = 0.05,
        noise_sd: float = 0.2,
        **trials: Any,
    ) -> None:
        super().__init__(noise_sd=noise_sd, **trials)
        require(
            stimulus >= 1 and delay >= 0 and decision >= 1,
            "task.stimulus and task.decision must be positive and task.delay >= 0, "
            f"got {stimulus}, {decision} and {delay}.",
        )
        require(0 < difference <= 20, f"task.difference must be in (0, 20] Hz, got {difference}.")
        require(evidence_sd >= 0, f"task.evidence_sd must be >= 0, got {evidence_sd}.")
        self.stimulus, self.delay, self.difference, self.evidence_sd = stimulus, delay, difference, evidence_sd
        self.go = 2 * stimulus + delay
        self.n_steps = self.go + decision

    def conditions(self, n: int, random: torch.Generator) -> dict[str, torch.Tensor]:
        """Both frequencies in Hz, and whether the first is higher [n]."""
        low, high = _RANGE
        first_higher = coin(n, random)
        lower = low + (high - low - self.difference) * torch.rand(n, generator=random)
        first, second = lower + self.difference * first_higher, lower + self.difference * (1 - first_higher)
        return {"f1": first, "f2": second, "first_higher": first_higher}

    def trials(self, n: int, random: torch.Generator) -> Split:
        """x [T,n,3]: rate that rises with the frequency, rate that falls, go signal. target int64 [T,n]."""
        low, high = _RANGE
        first, second, first_higher = self.conditions(n, random).values()
        x = torch.zeros(self.n_steps, n, self.n_in)
        for start, frequency in ((0, first), (self.stimulus + self.delay, second)):
            rate = (frequency - low) / (high - low)
            noise = self.evidence_sd * torch.randn(self.stimulus, n, 2, generator=random)
            x[start : start + self.stimulus, :, :2] = torch.stack([rate, 1 - rate], -1) + noise
        x[self.go :, :, 2] = 1
        return Split(x, first_higher.expand(self.n_steps, n).contiguous(), at_steps(self.n_steps, n, self.go))

    def ideal_answer(self, x: torch.Tensor, noise_sd: float) -> torch.Tensor:
        """The stimulus whose rising input minus falling input is larger in sum."""
        signed = x[..., 0] - x[..., 1]
        start = self.stimulus + self.delay
        first, second = signed[: self.stimulus].sum(0), signed[start : start + self.stimulus].sum(0)
        return (first > second).long().expand(self.n_steps, -1)
