"""Base of the tasks whose trials are drawn from a description rather than read from a file."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from numpy.typing import NDArray

from bpgen.errors import require
from bpgen.memory import require_bytes
from bpgen.streams import generator
from bpgen.tasks.base import SPLITS, Split, SplitName, Task

DataSeed = int | Literal["run"]
_MANY = 10**6  # trials that may be too many for memory
_AT_ONCE = 500  # trials that the ideal observer looks at: a bound of memory


class TrialTask(Task):
    """Trials drawn once, the same in every run whatever its seed; a subclass writes `trials`.

    One that writes `ideal_answer` too has an ideal accuracy.

    Args:
        n_train: training trials.
        n_val: validation trials.
        n_test: test trials.
        data_seed: which trials; a number does not depend on the seed of the run, "run" is that seed: then what
            differs between seeds includes the sampling of data.
        noise_sd: standard deviation of the Gaussian noise added to test inputs, in input units.
    """

    def __init__(
        self,
        n_train: int = 2000,
        n_val: int = 500,
        n_test: int = 1000,
        data_seed: DataSeed = 0,
        noise_sd: float = 0.2,
    ) -> None:
        super().__init__(noise_sd)
        for name, n in (("n_train", n_train), ("n_val", n_val), ("n_test", n_test)):
            require(n >= 1, f"task.{name} must be a positive number of trials, got {n}.")
        self.sizes = dict(zip(SPLITS, (n_train, n_val, n_test), strict=True))
        self.data_seed = fixed(data_seed)

    def trials(self, n: int, random: torch.Generator) -> Split:
        """`n` independent trials."""
        raise NotImplementedError

    def conditions(self, n: int, random: torch.Generator) -> dict[str, torch.Tensor]:
        """What `n` trials are drawn from, [n,...] by name; nothing by default.

        It comes first out of the random stream of `trials`, which calls it: so it is known without the trials.
        """
        return {}

    def load(self) -> dict[SplitName, Split]:
        """Every split from a random stream of its own, so that more training trials leave the test set as it is."""
        if sum(self.sizes.values()) > _MANY:
            one = sum(part.nbytes for part in self.trials(1, generator(0, "size")) if part is not None)
            many = f"{sum(self.sizes.values()):,} trials of {type(self).__name__} need memory"
            require_bytes(one * sum(self.sizes.values()), many, "Take fewer, e.g. --task.n_train 2000.")
        return {name: Split(*self.trials(n, self._random(name))) for name, n in self.sizes.items()}

    def trial_info(self, name: SplitName) -> dict[str, NDArray[Any]]:
        """See `Task.trial_info`: the `conditions` of the trials."""
        super().trial_info(name)
        return {key: v.numpy() for key, v in self.conditions(self.sizes[name], self._random(name)).items()}

    def _random(self, name: SplitName) -> torch.Generator:
        """Where the trials of a split are drawn from."""
        return generator(self.data_seed, f"{type(self).__name__} {name}")

    def ideal_accuracy(self, noisy: bool, n: int = 10_000) -> float:
        """See `Task.ideal_accuracy`: `ideal_answer` is asked about `n` new trials, always the same ones."""
        random = generator(0, f"{type(self).__name__} ideal")
        right: list[torch.Tensor] = []
        for first in range(0, n, _AT_ONCE):
            x, target, mask = Split(*self.trials(min(_AT_ONCE, n - first), random))
            seen = self.perturb(x, random) if noisy else x
            answer = self.ideal_answer(seen, self.noise_sd if noisy else 0.0)
            if answer is None:
                return math.nan
            if target.is_floating_point():
                hit = ((answer - target).abs() <= (self.tolerance or 0)).all(-1)
            else:
                hit = answer == target
            right.append(hit[mask > 0] if mask is not None else hit)
        return float(torch.cat(right).double().mean())


def fixed(data_seed: DataSeed) -> int:
    """The seed of the data as a number: `bpgen fit` has replaced "run" by that of the run.

    Raises:
        BpgenError: it is still "run", or nothing that can be a seed.
    """
    require(
        isinstance(data_seed, int),
        f"task.data_seed must be a whole number here, got {data_seed!r}: 'run' is the seed of a run, here is none.",
    )
    return int(data_seed)


def clean_gap_of(different: int, trained: int) -> bool | str:
    """`Task.clean_gap` of trials drawn from so many different ones: undefined where most tested ones were trained."""
    seen = -math.expm1(trained * math.log1p(-1 / different)) if different > 1 else 1.0
    return True if seen < 0.5 else f"{seen:.0%} of the {different} different trials are trained"


def at_steps(n_steps: int, n: int, first: int, last: int | None = None) -> torch.Tensor:
    """Step weights [T,n] that count steps first..last (the end by default) equally, and no other: they sum to 1."""
    last = n_steps if last is None else last
    mask = torch.zeros(n_steps, n)
    mask[first:last] = 1 / (last - first)
    return mask


def coin(n: int, random: torch.Generator, p: float | torch.Tensor = 0.5) -> torch.Tensor:
    """Independent Bernoulli(p) numbers 0 or 1, int64 [n]."""
    return (torch.rand(n, generator=random) < p).long()
