"""Sequences with their targets and the weights of their steps, under the name of their split."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

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
