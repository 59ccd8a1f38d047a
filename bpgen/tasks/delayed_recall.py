"""Delayed recall: name the symbol that was shown some steps ago; a task with an endless stream.

At every step one of `symbols` symbols is shown (one-hot), and the symbol of `delay` steps before is to be named. The
loss is taken at all steps but the first `delay`. Chance is log(symbols) and an accuracy of 1/symbols. It is the delayed
copy of the reservoir literature (memory capacity: Jaeger 2001, GMD report 152), with classes in place of a value.

The symbol at time t is a function of (seed, t): the stream is a generator of one step at a time, so that nothing that
reads it can look ahead, and it continues at any t without a memory of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bpgen.errors import require
from bpgen.streams import generator
from bpgen.tasks.base import Split, SplitName
from bpgen.tasks.trials import TrialTask, at_steps, clean_gap_of


class DelayedRecall(TrialTask):
    """Name the symbol of some steps ago, at every step.

    Args:
        delay: how many steps ago.
        symbols: number of symbols, which is also that of inputs and of classes.
        n_steps: steps of a sequence; a stream is cut into chunks instead.
        size: training sequences; validation and test have a quarter of it each.
        noise_sd: standard deviation of the Gaussian noise added to test inputs.
    """

    when = "all"
    input_range = (0.0, 1.0)

    def __init__(
        self, delay: int = 3, symbols: int = 4, n_steps: int = 20, size: int = 1000, noise_sd: float = 0.2
    ) -> None:
        require(delay >= 0, f"task.delay must be >= 0, got {delay}.")
        require(symbols >= 2, f"task.symbols must be at least 2, got {symbols}.")
        require(n_steps > delay, f"task.n_steps must exceed task.delay {delay}, got {n_steps}.")
        require(size >= 4, f"task.size must be at least 4, got {size}.")
        super().__init__(size, size // 4, size // 4, noise_sd=noise_sd)
        self.delay, self.n_steps = delay, n_steps
        self.n_in = self.n_out = symbols
        self.input_names = [f"symbol {i}" for i in range(symbols)]
        if symbols**n_steps < 10**9:
            self.reuses_training = True
            self.clean_gap = clean_gap_of(symbols**n_steps, size)

    def trials(self, n: int, random: torch.Generator) -> Split:
        """x [T,n,symbols], target int64 [T,n], mask [T,n]."""
        shown = torch.randint(self.n_in, (self.n_steps, n), generator=random)
        target = torch.cat([shown[: self.delay] * 0, shown[: self.n_steps - self.delay]])
        return Split(F.one_hot(shown, self.n_in).float(), target, at_steps(self.n_steps, n, self.delay))

    def load(self) -> dict[SplitName, Split]:
        """The same in every run whatever its seed."""
        return {name: self.trials(n, generator(0, f"recall {name}")) for name, n in self.sizes.items()}

    def ideal_answer(self, x: Tensor, noise_sd: float) -> Tensor:
        """The largest input of `delay` steps before."""
        return x.argmax(-1).roll(self.delay, 0)

    def stream(self, batch: int, seed: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """x_t [B,symbols], target [B] and weight [B] of the steps start, start + 1, ...: one at a time, for ever."""

        def shown(t: int) -> Tensor:
            return torch.randint(self.n_in, (batch,), generator=generator(seed, "stream", t))

        def steps() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            t = start
            while True:
                known = t >= self.delay
                target = shown(t - self.delay) if known else torch.zeros(batch, dtype=torch.int64)
                yield F.one_hot(shown(t), self.n_in).float(), target, torch.full((batch,), self._weight * known)
                t += 1

        return steps()

    @property
    def _weight(self) -> float:
        """Of a step that counts, so that a sequence's weights add up to 1."""
        return 1 / (self.n_steps - self.delay)
