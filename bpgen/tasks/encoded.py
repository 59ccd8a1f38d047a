"""Any other task with its inputs as spikes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bpgen.errors import choice, require
from bpgen.registry import find
from bpgen.streams import generator
from bpgen.tasks.base import SPLITS, Split, SplitName, Task
from bpgen.tasks.spikes import Encoder, encoded, perturbed


class Encoded(Task):
    """Another task's inputs as spike trains: each of its steps becomes several, with a spike or none of every input.

    Inputs are first brought to [0, 1], by the task's own range or else by that of its training data. Where the task
    asks at every step, it now asks at the last of the steps that show it, with the same weight. Test inputs are
    perturbed as spikes: some are deleted, and as many, on average, inserted.

    Args:
        of: name of the task.
        options: its options, by name.
        encoder: "poisson" (at random), "rate" (regular), or "latency" (one spike, the sooner the larger).
        steps: of the network, for each step of the task.
        largest: spikes in a step of the largest input, in (0, 1]; "latency" does not use it.
        data_seed: of the random spikes.
        noise_sd: the probability that a spike of a test input is deleted.
    """

    def __init__(
        self,
        of: str = "digits",
        options: dict[str, Any] | None = None,
        encoder: Encoder = "poisson",
        steps: int = 5,
        largest: float = 0.5,
        data_seed: int = 0,
        noise_sd: float = 0.2,
    ) -> None:
        super().__init__(noise_sd)
        require(noise_sd <= 1, f"task.noise_sd is the probability that a spike is deleted, got {noise_sd}.")
        require(steps >= 1, f"task.steps must be a positive number, got {steps}.")
        require(0 < largest <= 1, f"task.largest must be in (0, 1], got {largest:g}.")
        require(of != "encoded", "task.of must be another task: encoded spikes are spikes already.")
        self.encoder, self.steps, self.largest = choice("task.encoder", encoder, Encoder), steps, largest
        self.data_seed = data_seed
        self.task: Task = find("task", of).make(**(options or {}))
        for fact in ("n_in", "n_out", "loss", "when", "tolerance", "reuses_training", "clean_gap"):
            setattr(self, fact, getattr(self.task, fact))
        self.n_steps = steps * self.task.n_steps

    def load(self) -> dict[SplitName, Split]:
        """The task's splits, their inputs as spikes."""
        splits = {name: self.task.split(name) for name in SPLITS if self.task.has(name)}
        low, high = self._range(splits["train"].x)
        return {name: self._of(split, name, low, high) for name, split in splits.items()}

    def perturb(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Every spike is deleted with probability `noise_sd`, and on average as many are inserted."""
        return perturbed(x, self.noise_sd, generator)

    def _range(self, x: Tensor) -> tuple[float, float]:
        """What becomes 0 and 1."""
        low, high = self.task.input_range
        found = float(x.min()), float(x.max())
        low, high = (end if abs(end) < float("inf") else own for end, own in zip((low, high), found, strict=True))
        return low, high if high > low else low + 1.0

    def _of(self, split: Split, name: SplitName, low: float, high: float) -> Split:
        u = ((split.x - low) / (high - low)).clamp(0, 1)
        x = encoded(u, self.encoder, self.steps, self.largest, generator(self.data_seed, f"{name} spikes"))
        if self.when == "last":
            return Split(x, split.target)
        T, n = split.x.shape[:2]
        even = 1.0 if self.loss == "mse" else 1 / T
        mask = x.new_zeros(T, self.steps, n)
        mask[:, -1] = x.new_full((T, n), even) if split.mask is None else split.mask
        return Split(x, split.target.repeat_interleave(self.steps, 0), mask.flatten(0, 1))
