"""What a task is: named splits of sequences, a loss that fits them, and a perturbation of the test set.

Architecture: a task is data and knows no trainer. `bpgen.training` wraps any task for Lightning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from bpgen.errors import BpgenError, require

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


class Split(NamedTuple):
    """Sequences of one split, on the CPU.

    x: inputs, float32 [T, n, I].
    target: int64 [n] (one class a sequence), int64 [T, n], or float [n, O] / [T, n, O].
    mask: weights of the steps [T, n], or None.
    """

    x: Tensor
    target: Tensor
    mask: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of sequences n."""
        return self.x.shape[1]

    def take(self, index: Tensor) -> Split:
        """The sequences at `index` [B], in that order; x stays [T, B, I] and contiguous."""
        return Split(
            self.x.index_select(1, index),
            self.target.index_select(self.sample_axis, index),
            None if self.mask is None else self.mask.index_select(1, index),
        )

    @property
    def sample_axis(self) -> int:
        """Along which axis of `target` the sequences lie: 1 where it has a time axis, else 0."""
        return int(self.target.ndim == 3 or (self.target.ndim == 2 and not self.target.is_floating_point()))


class Task:
    """Base of all tasks; a subclass sets the class facts and writes `load`.

    Class facts: numbers of inputs, outputs and steps; the loss that fits and when it is taken; the range that perturbed
    inputs are clipped to; for continuous targets, the `tolerance` within which an output counts as right (None: the
    task has no accuracy); and `reuses_training`, whether validation and test may hold sequences of training, because
    there are too few others or these are what is to be learned.

    Args:
        noise_sd: standard deviation of the Gaussian noise added to test inputs, in input units.
    """

    n_in: int
    n_out: int
    n_steps: int
    loss: ClassVar[Literal["cross_entropy", "mse"]] = "cross_entropy"
    when: ClassVar[Literal["last", "all"]] = "last"
    input_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    tolerance: float | None = None
    reuses_training: bool = False

    def __init__(self, noise_sd: float = 0.2) -> None:
        require(noise_sd >= 0, f"task.noise_sd must be >= 0, got {noise_sd}.")
        self.noise_sd = noise_sd
        self._splits: dict[SplitName, Split] | None = None

    def load(self) -> dict[SplitName, Split]:
        """Read or make the data: a `Split` for each of "train", "val", "test".

        Raises:
            BpgenError: data missing, corrupt or unreadable, with what to do.
        """
        raise NotImplementedError

    def split(self, name: SplitName) -> Split:
        """One split; the data are loaded once, at the first call."""
        if self._splits is None:
            self._splits = self.load()
        return self._splits[name]

    def stream(self, batch: int, seed: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Endless data, one step at a time from time `start` on: x_t [B,I], target and loss weight [B] of each step.

        Only some tasks have it. A stream depends on (seed, t) alone.

        Raises:
            BpgenError: this task has none.
        """
        raise BpgenError(f"task {type(self).__name__} has no stream: train on its sequences (--trainer.stream false).")

    def perturb(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Inputs with additive Gaussian noise of sd `noise_sd`, clipped to `input_range`.

        For MNIST with sd 0.2 this is the test noise of the released code of Liu et al. 2022. Clipping makes the
        noise of background pixels half-normal, so the mean input rises by 0.4·noise_sd there.
        """
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype) * self.noise_sd
        return (x + noise).clamp(*self.input_range)
