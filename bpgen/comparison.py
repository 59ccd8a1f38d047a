"""What an output is compared with its target by, ℓ, and its derivatives by the output in closed form.

cross_entropy          ℓ = -log softmax(y)[y*]                                   one class
mse                    ℓ = ½ Σ_o (y_o - y*_o)²                                   values
binary_cross_entropy   ℓ = -Σ_o y*_o log σ(y_o) + (1 - y*_o) log(1 - σ(y_o))     several labels at once, y* in 0..1
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

LossName = Literal["cross_entropy", "mse", "binary_cross_entropy"]


def compared(kind: LossName, outputs: Tensor, target: Tensor) -> Tensor:
    """ℓ, shaped like `outputs` without their last axis."""
    if kind == "mse":
        return 0.5 * (outputs - target.to(outputs.dtype)).square().sum(-1)
    if kind == "binary_cross_entropy":
        return (softplus(outputs) - target.to(outputs.dtype) * outputs).sum(-1)
    return -_log_softmax(outputs).gather(-1, target.unsqueeze(-1)).squeeze(-1)


def compared_and_error(kind: LossName, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """ℓ and ∂ℓ/∂y."""
    if kind == "mse":
        error = outputs - target.to(outputs.dtype)
        return 0.5 * error.square().sum(-1), error
    if kind == "binary_cross_entropy":
        return compared(kind, outputs, target), outputs.sigmoid() - target.to(outputs.dtype)
    log_p, index = _log_softmax(outputs), target.unsqueeze(-1)
    minus_log_p = -log_p.gather(-1, index)
    error = log_p.exp().scatter_add(-1, index, torch.full_like(minus_log_p, -1))
    return minus_log_p.squeeze(-1), error


def error_along(kind: LossName, outputs: Tensor, tangents: Tensor) -> Tensor:
    """(∂²ℓ/∂y²) y' of tangents y', which depends on no target."""
    if kind == "mse":
        return tangents
    if kind == "binary_cross_entropy":
        p = outputs.sigmoid()
        return p * (1 - p) * tangents
    p = _log_softmax(outputs).exp()
    return p * (tangents - (p * tangents).sum(-1, keepdim=True))


def _log_softmax(outputs: Tensor) -> Tensor:
    """log softmax over the O outputs, many times faster than along a last axis that holds a few classes only."""
    return outputs.mT.log_softmax(-2).mT.contiguous()
