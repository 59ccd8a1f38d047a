"""A running mean that a rule keeps from batch to batch: plain at first, exponential from 1/(1-decay) batches on."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bpgen.errors import require


class RunningMean(nn.Module):
    """m_k = m_{k-1} + w_k (v_k - m_{k-1}),  w_k = max(1/k, 1-decay).

    Args:
        decay: of the exponential mean, in [0, 1).

    Attributes:
        mean, count: what was seen so far; buffers, 0-d or of the shape they were fitted to.
    """

    mean: Tensor
    count: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        require(0 <= decay < 1, f"decay must be in [0, 1), got {decay}.")
        self.decay = decay
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("count", torch.zeros(()))

    def fit(self, like: Tensor) -> None:
        """Take the shape, dtype and device of `like`; a mean of that shape is kept."""
        for name, value in (("mean", self.mean), ("count", self.count)):
            setattr(self, name, value.to(like) if value.shape == like.shape else torch.zeros_like(like))

    def with_value(self, value: Tensor, counts: Tensor | float = 1.0) -> dict[str, Tensor]:
        """Mean and count with one more value each; left as they are where `counts` is 0. To be handed to `learn`."""
        count = self.count + counts
        weight = counts * (1 / count.clamp(min=1)).clamp(min=1 - self.decay)
        return {"mean": self.mean + weight * (value - self.mean), "count": count}

    def learn(self, aux: Mapping[str, Tensor]) -> None:
        """Take over what `with_value` returned."""
        self.mean, self.count = aux["mean"], aux["count"]
