"""Cue accumulation: a row of cues to the left or right, a delay, and a turn to the side that had more of them.

Source: G. Bellec et al. (2020), Nat. Commun. 11:3625, figure 3 and methods, after A. S. Morcos and C. D. Harvey (2016),
Nat. Neurosci. 19:1672: seven cues of 100 ms with pauses of 50 ms, a delay of 500 to 1,500 ms, a recall period of
150 ms; four groups of ten input neurons (left, right, recall, background) that fire Poisson spikes at 40 Hz when
active, the background at 10 Hz. Each cue falls on the trial's side with probability 0.7, and the class is the
majority of the cues.
Difference: time steps of 10 ms by default instead of 1 ms; an input is the number of spikes in a step, 0 or 1.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch

from bpgen.errors import choice, require
from bpgen.tasks.base import Split
from bpgen.tasks.trials import TrialTask, at_steps, coin

Perturbation = Literal["spikes", "gaussian"]

_CUE, _PAUSE, _RECALL = 100.0, 50.0, 150.0  # ms
_GROUP = 10  # input neurons of each kind
_RATE, _BACKGROUND = 0.040, 0.010  # spikes per ms


class CueAccumulation(TrialTask):
    """Cue accumulation (Bellec 2020): spiking cues left and right, a delay; the class is the side with more cues.

    Chance is 50 %; answering with the last cue alone is right in about 72 % of the trials (66 % with coins). Inputs are
    spikes, and perturbed as spikes: some are deleted, and as many, on average over trials, are inserted anywhere.

    Args:
        cues: number of cues, odd.
        delay: ms between the last cue and recall; the published task draws 500 to 1,500.
        dt: ms in a step; the published one is 1.
        perturbation: of test inputs; "gaussian" is that of version 0.1, numbers added to the spikes.
        noise_sd: how strong it is: the probability that a spike is deleted, or the standard deviation of the numbers.
        side: probability that a cue falls on the trial's side; 0.5 tosses a coin for every cue (Barretto-Bittar 2026).
        **trials: see `TrialTask`.
    """

    n_in = 4 * _GROUP
    n_out = 2
    when: ClassVar[Literal["last", "all"]] = "all"

    def __init__(
        self,
        cues: int = 7,
        delay: float = 500.0,
        dt: float = 10.0,
        perturbation: Perturbation = "spikes",
        noise_sd: float = 0.2,
        side: float = 0.7,
        **trials: Any,
    ) -> None:
        super().__init__(noise_sd=noise_sd, **trials)
        require(cues >= 1 and cues % 2 == 1, f"task.cues must be odd, so that there is a majority, got {cues}.")
        require(delay >= 0, f"task.delay must be >= 0 ms, got {delay:g}.")
        require(0 < dt <= _PAUSE, f"task.dt must be in (0, {_PAUSE:g}] ms, got {dt:g}.")
        require(0.5 <= side <= 1, f"task.side must be a probability in [0.5, 1], got {side:g}.")
        self.cues, self.dt, self.side = cues, dt, side
        self.recall = round((cues * (_CUE + _PAUSE) + delay) / dt)
        self.n_steps = self.recall + round(_RECALL / dt)
        self.perturbation = choice("task.perturbation", perturbation, Perturbation)
        require(
            noise_sd <= 1 or perturbation == "gaussian",
            f"task.noise_sd is the probability that a spike is deleted, got {noise_sd}.",
        )

    def conditions(self, n: int, random: torch.Generator) -> dict[str, torch.Tensor]:
        """The side of every cue in their order [n,cues], 1 is right."""
        towards_right = (1 - self.side) + (2 * self.side - 1) * coin(n, random)
        return {"cues": torch.stack([coin(n, random, towards_right) for _ in range(self.cues)], 1)}

    def trials(self, n: int, random: torch.Generator) -> Split:
        """x [T,n,40] of spikes, target int64 [T,n], mask on the steps of recall."""
        sides = self.conditions(n, random)["cues"].T  # [cues,n]
        rate = torch.zeros(self.n_steps, n, 4)
        each = torch.arange(n)
        for cue, side in zip(self._cue_steps(), sides, strict=True):
            rate[cue, each, side] = _RATE
        rate[self.recall :, :, 2] = _RATE
        rate[:, :, 3] = _BACKGROUND
        p = 1 - torch.exp(-rate * self.dt)
        spikes = torch.rand(self.n_steps, n, self.n_in, generator=random) < p.repeat_interleave(_GROUP, -1)
        majority = (sides.sum(0) > self.cues / 2).long()
        return Split(
            spikes.float(), majority.expand(self.n_steps, n).contiguous(), at_steps(self.n_steps, n, self.recall)
        )

    def perturb(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Every spike is deleted with probability `noise_sd`, and so many are inserted that their number stays."""
        if self.perturbation == "gaussian":
            return super().perturb(x, generator)
        chance = torch.rand(x.shape, generator=generator, dtype=x.dtype)
        inserted = self.noise_sd * self._mean_spikes / (1 - self._mean_spikes)
        return torch.where(x > 0, chance >= self.noise_sd, chance < inserted).to(x.dtype)

    def ideal_answer(self, x: torch.Tensor, noise_sd: float) -> torch.Tensor:
        """The side with more spikes in most of the cues."""
        spikes = [x[cue, :, : 2 * _GROUP].sum(0).unflatten(-1, (2, _GROUP)).sum(-1) for cue in self._cue_steps()]
        right = torch.stack([each[:, 1] > each[:, 0] for each in spikes])
        return (right.sum(0) > self.cues / 2).long().expand(self.n_steps, -1)

    def _cue_steps(self) -> list[slice]:
        """The steps of each cue."""
        starts = [(_CUE + _PAUSE) * i for i in range(self.cues)]
        return [slice(round(start / self.dt), round((start + _CUE) / self.dt)) for start in starts]

    @property
    def _mean_spikes(self) -> float:
        """Spikes of an input in a step, on average over inputs and steps."""
        active, background = (1 - math.exp(-rate * self.dt) for rate in (_RATE, _BACKGROUND))
        steps = sum(cue.stop - cue.start for cue in self._cue_steps()) + self.n_steps - self.recall
        return (active * steps / self.n_steps + background) / 4
