"""Gradients that a rule made, handed to autograd as those of a loss."""

from __future__ import annotations

from typing import Any

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
