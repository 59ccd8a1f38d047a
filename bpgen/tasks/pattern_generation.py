"""Pattern generation: turn a frozen random input into a sum of sinusoids.

Source: W. Nicola and C. Clopath (2017), Nat. Commun. 8:2208, and G. Bellec et al. (2020), Nat. Commun. 11:3625, figure
2: a frozen input, a target that is a normalised sum of sinusoids with amplitudes of 0.5 to 2 and random phases. The
frequencies and the Gaussian input to rate networks are those recalled of Liu et al. (2022): 0.5, 1, 2, 3 and 4 Hz.
Spiking networks get Poisson spikes (Bellec et al. 2020; Barretto-Bittar et al. 2026, arXiv 2603.08949): `input_rate`.
Their settings are not published; difficulty and test noise are options here.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch

from bpgen.errors import require
from bpgen.streams import generator
from bpgen.tasks.base import Split, SplitName
from bpgen.tasks.spikes import perturbed
from bpgen.tasks.trials import DataSeed, TrialTask, at_steps

_FREQUENCIES = (0.5, 1.0, 2.0, 3.0, 4.0)  # Hz


class PatternGeneration(TrialTask):
    """Pattern generation: frozen Gaussian inputs to be turned into sums of five sinusoids, squared error at all steps.

    Validation and test sets hold the very patterns of training, test patterns many times over: what is tested is
    robustness to noise on the frozen input (gap_noisy), and the clean gap is zero by construction. A target has
    variance 1, so the output 0 has the loss 0.5. There is no accuracy.

    Args:
        patterns: how many pairs of input and target are to be learned.
        inputs: number of inputs I.
        length: steps T.
        dt: ms in a step.
        repeats: how often each pattern stands in the test set.
        data_seed: which patterns; a number does not depend on the seed of the run, "run" is that seed.
        noise_sd: standard deviation of the Gaussian noise added to test inputs, which have variance 1; of spikes the
            probability that one is deleted, and so many are inserted.
        input_rate: in Hz, of inputs that are frozen Poisson spikes, 0 or 1 in a step; none is Gaussian numbers.
    """

    n_out = 1
    reuses_training = True
    clean_gap = "validation and test hold the very patterns of training: the patterns themselves are to be learned"
    loss: ClassVar[Literal["cross_entropy", "mse"]] = "mse"
    when: ClassVar[Literal["last", "all"]] = "all"

    def __init__(
        self,
        patterns: int = 1,
        inputs: int = 20,
        length: int = 200,
        dt: float = 10.0,
        repeats: int = 50,
        data_seed: DataSeed = 0,
        noise_sd: float = 0.2,
        input_rate: float | None = None,
    ) -> None:
        require(patterns >= 1, f"task.patterns must be positive, got {patterns}.")
        require(inputs >= 1, f"task.inputs must be positive, got {inputs}.")
        require(length >= 2, f"task.length must be at least 2 steps, got {length}.")
        require(dt > 0, f"task.dt must be > 0 ms, got {dt:g}.")
        require(repeats >= 1, f"task.repeats must be positive, got {repeats}.")
        require(input_rate is None or input_rate > 0, f"task.input_rate must be > 0 Hz, got {input_rate}.")
        require(
            input_rate is None or noise_sd <= 1, f"task.noise_sd is the probability of losing a spike, got {noise_sd}."
        )
        super().__init__(patterns, patterns, patterns * repeats, data_seed, noise_sd)
        self.input_rate = input_rate
        self.n_in, self.n_steps, self.dt, self.repeats = inputs, length, dt, repeats

    def trials(self, n: int, random: torch.Generator) -> Split:
        """x [T,n,I], target [T,n,1]."""
        T, k = self.n_steps, len(_FREQUENCIES)
        if self.input_rate is None:
            x = torch.randn(T, n, self.n_in, generator=random)
        else:
            spike = -math.expm1(-self.input_rate * self.dt / 1000)
            x = (torch.rand(T, n, self.n_in, generator=random) < spike).float()
        amplitude = 0.5 + 1.5 * torch.rand(n, k, generator=random)
        phase = 2 * math.pi * torch.rand(n, k, generator=random)
        seconds = torch.arange(T).view(T, 1, 1) * self.dt / 1000
        waves = amplitude * torch.sin(2 * math.pi * torch.tensor(_FREQUENCIES) * seconds + phase)
        target = waves.sum(-1, keepdim=True)
        target = (target - target.mean(0)) / target.std(0, correction=0)
        return Split(x, target, at_steps(T, n, 0))

    def perturb(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Numbers get Gaussian noise; spikes are deleted and inserted."""
        if self.input_rate is None:
            return super().perturb(x, generator)
        return perturbed(x, self.noise_sd, generator).clamp(max=1)

    def load(self) -> dict[SplitName, Split]:
        """The same patterns in every split, `repeats` times in the test set."""
        patterns = self.trials(self.sizes["train"], generator(self.data_seed, type(self).__name__))
        again = torch.arange(self.sizes["train"]).repeat(self.repeats)
        return {"train": patterns, "val": patterns, "test": patterns.take(again)}
