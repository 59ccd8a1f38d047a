"""Adding problem: remember two marked numbers of a long sequence and say their sum.

Source: S. Hochreiter and J. Schmidhuber (1997), Long short-term memory, Neural Computation 9:1735, experiment 4, in
the form of Q. V. Le, N. Jaitly and G. E. Hinton (2015), arXiv:1504.00941: one marker in each half, no padding.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch

from bpgen.errors import require
from bpgen.tasks.base import Split
from bpgen.tasks.trials import TrialTask


class Adding(TrialTask):
    """Adding problem: two inputs, a random number in [0, 1] and a marker; the sum of the two marked numbers at the end.

    A trial is right when the error is below 0.04 (Hochreiter and Schmidhuber 1997). Always answering 1, the mean,
    gives the loss 1/12 = 0.083 and is right in 8 % of the trials. Noise of sd σ on the inputs leaves an error of √2 σ
    to whoever adds the right numbers: at 0.01 (the default) 99.5 % of the trials are still right, at 0.1 23 %.

    Args:
        length: steps T; the longer, the harder.
        **trials: see `TrialTask`.
    """

    n_in = 2
    input_names = ("number", "marker")
    n_out = 1
    loss: ClassVar[Literal["cross_entropy", "mse"]] = "mse"
    tolerance = 0.04

    def __init__(self, length: int = 20, noise_sd: float = 0.01, **trials: Any) -> None:
        super().__init__(noise_sd=noise_sd, **trials)
        require(length >= 2, f"task.length must be at least 2 steps, got {length}.")
        self.n_steps = length

    def trials(self, n: int, random: torch.Generator) -> Split:
        """x [T,n,2], target [n,1]."""
        T, half = self.n_steps, self.n_steps // 2
        value = torch.rand(T, n, generator=random)
        each = torch.arange(n)
        marker = torch.zeros(T, n)
        marker[torch.randint(0, half, (n,), generator=random), each] = 1
        marker[torch.randint(half, T, (n,), generator=random), each] = 1
        return Split(torch.stack([value, marker], -1), (value * marker).sum(0).unsqueeze(-1))

    def ideal_answer(self, x: torch.Tensor, noise_sd: float) -> torch.Tensor:
        """The sum of what is expected of the two numbers, given what was seen at the steps that look most marked."""
        T, half = self.n_steps, self.n_steps // 2
        value, marker = x.unbind(-1)
        marked = [part.argmax(0) + start for part, start in ((marker[:half], 0), (marker[half:T], half))]
        seen = torch.stack([value.gather(0, step.unsqueeze(0)).squeeze(0) for step in marked])
        return expected_in_unit(seen, noise_sd).sum(0).unsqueeze(-1)


def expected_in_unit(seen: torch.Tensor, sd: float) -> torch.Tensor:
    """E[v | v + noise] of a v uniform on [0, 1]: the mean of a normal distribution cut at 0 and 1."""
    if sd == 0:
        return seen
    seen = seen.clamp(-6 * sd, 1 + 6 * sd)  # nothing further out is ever seen
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    low, high = -seen.double() / sd, (1 - seen.double()) / sd
    density = normal.log_prob(low).exp() - normal.log_prob(high).exp()
    return (seen + sd * density / (normal.cdf(high) - normal.cdf(low)).clamp_min(1e-12)).clamp(0, 1).to(seen.dtype)
