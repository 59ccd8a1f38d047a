"""Delayed match to sample: were two cues, with a delay between them, the same?

Source: the "delayed XOR" task in the released code of Y. H. Liu et al. (2022), Biologically-plausible backpropagation
through arbitrary timespans via local neuromodulators, NeurIPS (arXiv:2206.01338): 100 steps of cue, 700 of delay, 100
of cue, a bump of amplitude 2 and sd 25 steps on a baseline of 0.02, and input noise of sd 0.01. That is
cue=100, delay=700 here; the default is the same trial scaled down to 10, 10, 10 steps, which trains in a minute.
"""

from __future__ import annotations

from typing import Any

import torch

from bpgen.errors import require
from bpgen.tasks.base import Split
from bpgen.tasks.trials import TrialTask, coin

_BASELINE = 0.02


class DelayedMatchToSample(TrialTask):
    """Delayed match to sample: two binary cues, the first on input 0, the second on input 1; class 1 if they match.

    A cue of 1 is a Gaussian bump, a cue of 0 its absence; the class is asked at the last step. Chance is 50 %, also
    for anyone who sees one cue only: the classes are those of XOR.

    Args:
        cue: steps of each cue; a bump has a standard deviation of a quarter of it.
        delay: steps between the cues.
        evidence_sd: standard deviation of the noise of all inputs at each step.
        **trials: see `TrialTask`.
    """

    n_in = 2
    n_out = 2
    input_names = ("first cue", "second cue")
    clean_gap = "there are four different trials, up to the noise of their inputs: every test trial was trained"

    def __init__(
        self, cue: int = 10, delay: int = 10, evidence_sd: float = 0.01, noise_sd: float = 0.1, **trials: Any
    ) -> None:
        super().__init__(noise_sd=noise_sd, **trials)
        require(cue >= 2, f"task.cue must be at least 2 steps, got {cue}.")
        require(delay >= 0, f"task.delay must be >= 0, got {delay}.")
        require(evidence_sd >= 0, f"task.evidence_sd must be >= 0, got {evidence_sd}.")
        self.cue, self.delay, self.evidence_sd = cue, delay, evidence_sd
        self.reuses_training = evidence_sd == 0
        self.n_steps = 2 * cue + delay

    def conditions(self, n: int, random: torch.Generator) -> dict[str, torch.Tensor]:
        """Both cues, 0 or 1 [n]."""
        first, second = coin(2 * n, random).view(2, n)
        return {"cue_1": first, "cue_2": second}

    def trials(self, n: int, random: torch.Generator) -> Split:
        """x [T,n,2], target int64 [n]."""
        cues = list(self.conditions(n, random).values())
        x = torch.full((self.n_steps, n, 2), _BASELINE)
        for channel, start in enumerate(self._starts):
            x[start : start + self.cue, :, channel] += self._bump.unsqueeze(1) * cues[channel]
        x += self.evidence_sd * torch.randn(x.shape, generator=random)
        return Split(x, (cues[0] == cues[1]).long())

    def ideal_answer(self, x: torch.Tensor, noise_sd: float) -> torch.Tensor:
        """Whether both cues, or none, look more like a bump than like its absence."""
        first, second = (
            ((x[start : start + self.cue, :, channel] - _BASELINE) * self._bump.unsqueeze(1)).sum(0)
            > self._bump.square().sum() / 2
            for channel, start in enumerate(self._starts)
        )
        return (first == second).long()

    @property
    def _starts(self) -> tuple[int, int]:
        """The first step of each cue."""
        return 0, self.cue + self.delay

    @property
    def _bump(self) -> torch.Tensor:
        """What a cue of 1 adds to its input [cue]."""
        steps = torch.arange(self.cue, dtype=torch.float32)
        return 2 * torch.exp(-(((steps - (self.cue - 1) / 2) / (self.cue / 4)) ** 2) / 2)
