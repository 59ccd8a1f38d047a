"""Delayed match with spikes: were two cues, each a burst of spikes or none, the same?

Source: V. Barretto-Bittar et al. 2026, arXiv 2603.08949, and the authors' code: a fixation of 50 ms, a cue of 150 ms, a
delay of 700 ms, a cue of 150 ms, and a recall period of 50 ms in which the class is asked at every step; four groups of
ten input neurons (first cue, second cue, recall, background) that fire Poisson spikes at 40 Hz when active, the
background at 10 Hz. A cue of 0 is silence. The task is that of Y. H. Liu et al. 2022 (`delayed_match_to_sample`), whose
inputs are numbers and whose class is asked once.
Difference: time steps of 10 ms by default instead of 1 ms; an input is the number of spikes in a step, 0 or 1.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch

from bpgen.errors import require
from bpgen.tasks.base import Split
from bpgen.tasks.spikes import perturbed
from bpgen.tasks.trials import TrialTask, at_steps, coin

_FIXATION, _CUE = 50.0, 150.0  # ms
_GROUP = 10  # input neurons of each kind
_RATE, _BACKGROUND = 0.040, 0.010  # spikes per ms


class SpikingDelayedMatch(TrialTask):
    """Delayed match (Barretto-Bittar 2026): two spiking cues, there or not; class 1 if both or none were there.

    Chance is 50 %, also for anyone who sees one cue only: the classes are those of XOR. Inputs are spikes, and
    perturbed as spikes: some are deleted, and as many, on average over trials, are inserted anywhere.

    Args:
        delay: ms between the cues.
        window: ms of recall at the end; the class is asked at each of its steps.
        dt: ms in a step; the published one is 1.
        noise_sd: how strong the perturbation is: the probability that a spike is deleted.
        **trials: see `TrialTask`.
    """

    n_in = 4 * _GROUP
    n_out = 2
    when: ClassVar[Literal["last", "all"]] = "all"

    def __init__(
        self, delay: float = 700.0, window: float = 50.0, dt: float = 10.0, noise_sd: float = 0.2, **trials: Any
    ) -> None:
        super().__init__(noise_sd=noise_sd, **trials)
        require(delay >= 0, f"task.delay must be >= 0 ms, got {delay:g}.")
        require(0 < dt <= _FIXATION, f"task.dt must be in (0, {_FIXATION:g}] ms, got {dt:g}.")
        require(window >= dt, f"task.window must be at least a step of {dt:g} ms, got {window:g}.")
        require(noise_sd <= 1, f"task.noise_sd is the probability that a spike is deleted, got {noise_sd}.")
        self.dt, fixation, cue = dt, round(_FIXATION / dt), round(_CUE / dt)
        second = fixation + cue + round(delay / dt)
        self._cues = slice(fixation, fixation + cue), slice(second, second + cue)
        self.recall = second + cue
        self.n_steps = self.recall + round(window / dt)

    def conditions(self, n: int, random: torch.Generator) -> dict[str, torch.Tensor]:
        """Both cues, 0 or 1 [n]."""
        first, second = coin(2 * n, random).view(2, n)
        return {"cue_1": first, "cue_2": second}

    def trials(self, n: int, random: torch.Generator) -> Split:
        """x [T,n,40] of spikes, target int64 [T,n], mask on the steps of recall."""
        first, second = self.conditions(n, random).values()
        rate = torch.zeros(self.n_steps, n, 4)
        for group, (steps, cue) in enumerate(zip(self._cues, (first, second), strict=True)):
            rate[steps, :, group] = _RATE * cue.float()
        rate[self.recall :, :, 2] = _RATE
        rate[:, :, 3] = _BACKGROUND
        p = 1 - torch.exp(-rate * self.dt)
        spikes = torch.rand(self.n_steps, n, self.n_in, generator=random) < p.repeat_interleave(_GROUP, -1)
        target = (first == second).long().expand(self.n_steps, n).contiguous()
        return Split(spikes.float(), target, at_steps(self.n_steps, n, self.recall))

    def perturb(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Every spike is deleted with probability `noise_sd`, and so many are inserted that their number stays."""
        return perturbed(x, self.noise_sd, generator).clamp(max=1)

    def ideal_answer(self, x: torch.Tensor, noise_sd: float) -> torch.Tensor:
        """Whether both cues, or none, have more spikes than half of what a cue of 1 has."""
        half = _GROUP * round(_CUE / self.dt) * -math.expm1(-_RATE * self.dt) / 2
        groups = (x[steps, :, i * _GROUP : (i + 1) * _GROUP] for i, steps in enumerate(self._cues))
        first, second = (spikes.sum((0, -1)) > half for spikes in groups)
        return (first == second).long().expand(self.n_steps, -1)
