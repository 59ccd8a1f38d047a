"""Flip-flop: remember the sign of the last pulse of each of several channels.

Source: D. Sussillo and O. Barak (2013), Opening the black box, Neural Computation 25:626 (three bits, fixed points at
the corners of a cube).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch

from bpgen.errors import require
from bpgen.tasks.base import Split
from bpgen.tasks.trials import TrialTask, at_steps


class FlipFlop(TrialTask):
    """Flip-flop: rare pulses of +1 or -1 on each channel; each output holds the sign of its channel's last pulse.

    Every channel has a pulse at the first step, so that there is always something to hold. A step is right when
    every output is within 0.5 of its target; always answering 0 is never right and has the loss bits/2.

    Args:
        bits: number of channels.
        length: steps T.
        p_pulse: probability of a pulse, by channel and step.
        **trials: see `TrialTask`.
    """

    loss: ClassVar[Literal["cross_entropy", "mse"]] = "mse"
    when: ClassVar[Literal["last", "all"]] = "all"
    tolerance = 0.5

    def __init__(
        self, bits: int = 3, length: int = 30, p_pulse: float = 0.1, noise_sd: float = 0.1, **trials: Any
    ) -> None:
        super().__init__(noise_sd=noise_sd, **trials)
        require(bits >= 1, f"task.bits must be positive, got {bits}.")
        require(length >= 1, f"task.length must be a positive number of steps, got {length}.")
        require(0 < p_pulse <= 1, f"task.p_pulse must be in (0, 1], got {p_pulse}.")
        self.n_in = self.n_out = bits
        self.input_names = [f"channel {i}" for i in range(bits)]
        self.n_steps, self.p_pulse = length, p_pulse

    def trials(self, n: int, random: torch.Generator) -> Split:
        """x and target [T,n,bits]."""
        shape = (self.n_steps, n, self.n_in)
        sign = 2.0 * torch.randint(0, 2, shape, generator=random) - 1
        pulse = torch.rand(shape, generator=random) < self.p_pulse
        pulse[0] = True
        steps = torch.arange(self.n_steps).view(-1, 1, 1).expand(shape)
        latest = torch.where(pulse, steps, 0).cummax(0).values
        return Split(sign * pulse, sign.gather(0, latest), at_steps(self.n_steps, n, 0))

    def ideal_answer(self, x: torch.Tensor, noise_sd: float) -> torch.Tensor:
        """The likelier sign held on each channel, by Bayes' rule step by step, as an online observer knows it."""
        p, sd = self.p_pulse, max(noise_sd, 1e-9)
        up, none, down = (torch.exp(-0.5 * ((x.double() - pulse) / sd) ** 2) for pulse in (1, 0, -1))
        held, answers = torch.full_like(up[0], 0.5), []
        for t in range(len(x)):
            pulse, still = (1.0, 0.0) if t == 0 else (p, 1 - p)  # the first step has a pulse on every channel
            plus = pulse / 2 * up[t] + still * held * none[t]
            minus = pulse / 2 * down[t] + still * (1 - held) * none[t]
            held = plus / (plus + minus).clamp_min(1e-300)
            answers.append(torch.where(held >= 0.5, 1.0, -1.0))
        return torch.stack(answers).to(x.dtype)
