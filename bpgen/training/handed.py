"""Gradients that a rule made, handed to autograd as those of a loss."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn


def straight_through(loss: Tensor, weights: nn.Module, grads: dict[str, Tensor]) -> Tensor:
    """A scalar with the value of `loss` whose gradient by the parameters is `grads`, to the last bit.

    It is an ordinary node of autograd's graph, so clipping, accumulation, loss scaling and gradient hooks work as for
    any loss.
    """
    names, parameters = zip(*weights.named_parameters(), strict=True)
    handed: Tensor = _HandedGradients.apply(loss, [grads[name] for name in names], *parameters)
    return handed


def share_of_update(batch_idx: int, trainer: pl.Trainer) -> float:
    """1, but larger in the last update of an epoch where fewer batches are left for it.

    Lightning divides every batch's gradient by the full number of batches; an update is to be their mean.
    """
    full, batches = trainer.accumulate_grad_batches, trainer.num_training_batches
    left = batches - batch_idx // full * full
    return full / left if left < full else 1.0


class _HandedGradients(torch.autograd.Function):
    """Forward: the loss. Backward: the gradients it was handed, times what arrives from above."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, grads: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.grads = grads
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(above * g for g in ctx.grads)
