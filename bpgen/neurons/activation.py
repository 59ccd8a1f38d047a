"""Activation functions φ, each with its derivative written in terms of its own output o = φ(v).

All five derivatives are functions of o alone, so a trajectory need not keep v for them:
    relu     φ' = 1[o > 0]            tanh     φ' = 1 - o²
    softplus φ' = 1 - exp(-o)         retanh   φ' = (1 - o²) 1[o > 0],  φ(v) = max(0, tanh v)
    linear   φ' = 1
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_aten = torch.ops.aten
_relu_into, _tanh_into = _aten.threshold_backward.grad_input, _aten.tanh_backward.grad_input


@dataclass(frozen=True)
class Activation:
    """φ and its pull-back u ↦ φ'(v) u, as pure functions and in place (`*_into`)."""

    name: str
    apply: Callable[[Tensor], Tensor]  # v -> o
    pull: Callable[[Tensor, Tensor], Tensor]  # (u, o) -> φ' u
    apply_into: Callable[[Tensor, Tensor], object]  # (v, out): out may be v
    pull_into: Callable[[Tensor, Tensor], object]  # (u, o): u is overwritten by φ' u


def _retanh_into(v: Tensor, out: Tensor) -> None:
    torch.tanh(v, out=out)
    out.clamp_min_(0)


def _pull_relu_into(u: Tensor, o: Tensor) -> None:
    _relu_into(u, o, 0, grad_input=u)


def _pull_tanh_into(u: Tensor, o: Tensor) -> None:
    _tanh_into(u, o, grad_input=u)


def _pull_retanh_into(u: Tensor, o: Tensor) -> None:
    _pull_tanh_into(u, o)
    _pull_relu_into(u, o)


ACTIVATIONS: dict[str, Activation] = {
    a.name: a
    for a in (
        Activation(
            "relu",
            torch.relu,
            lambda u, o: _aten.threshold_backward(u, o, 0),
            lambda v, out: torch.clamp_min(v, 0, out=out),
            _pull_relu_into,
        ),
        Activation(
            "tanh",
            torch.tanh,
            lambda u, o: _aten.tanh_backward(u, o),
            lambda v, out: torch.tanh(v, out=out),
            _pull_tanh_into,
        ),
        Activation(
            "softplus",
            F.softplus,
            lambda u, o: u * -torch.expm1(-o),
            lambda v, out: out.copy_(F.softplus(v)),
            lambda u, o: u.mul_(torch.expm1(-o).neg_()),
        ),
        Activation(
            "retanh",
            lambda v: torch.relu(torch.tanh(v)),
            lambda u, o: _aten.threshold_backward(_aten.tanh_backward(u, o), o, 0),
            _retanh_into,
            _pull_retanh_into,
        ),
        Activation(
            "linear",
            lambda v: v,
            lambda u, o: u,
            lambda v, out: out.copy_(v),
            lambda u, o: None,
        ),
    )
}
