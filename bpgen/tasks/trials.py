"""Base of the tasks whose trials are drawn from a description rather than read from a file."""

from __future__ import annotations

import torch

from bpgen.errors import require
from bpgen.streams import generator
from bpgen.tasks.base import SPLITS, Split, SplitName, Task


class TrialTask(Task):
    """Trials drawn once, the same in every run whatever its seed; a subclass writes `trials`.

    Args:
        n_train: training trials.
        n_val: validation trials.
        n_test: test trials.
        data_seed: which trials; it does not depend on the seed of the run.
        noise_sd: standard deviation of the Gaussian noise added to test inputs, in input units.
    """

    def __init__(
        self,
        n_train: int = 2000,
        n_val: int = 500,
        n_test: int = 1000,
        data_seed: int = 0,
        noise_sd: float = 0.2,
    ) -> None:
        super().__init__(noise_sd)
        for name, n in (("n_train", n_train), ("n_val", n_val), ("n_test", n_test)):
            require(n >= 1, f"task.{name} must be a positive number of trials, got {n}.")
        self.sizes = dict(zip(SPLITS, (n_train, n_val, n_test), strict=True))
        self.data_seed = data_seed

    def trials(self, n: int, random: torch.Generator) -> Split:
        """`n` independent trials."""
        raise NotImplementedError

    def load(self) -> dict[SplitName, Split]:
        """Every split from a random stream of its own, so that more training trials leave the test set as it is."""
        seed, own = self.data_seed, type(self).__name__
        return {name: Split(*self.trials(n, generator(seed, f"{own} {name}"))) for name, n in self.sizes.items()}


def at_steps(n_steps: int, n: int, first: int, last: int | None = None) -> torch.Tensor:
    """Step weights [T,n] that count steps first..last (the end by default) equally, and no other: they sum to 1."""
    last = n_steps if last is None else last
    mask = torch.zeros(n_steps, n)
    mask[first:last] = 1 / (last - first)
    return mask


def coin(n: int, random: torch.Generator, p: float | torch.Tensor = 0.5) -> torch.Tensor:
    """Independent Bernoulli(p) numbers 0 or 1, int64 [n]."""
    return (torch.rand(n, generator=random) < p).long()
