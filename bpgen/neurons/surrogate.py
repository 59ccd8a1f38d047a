"""Spikes with a surrogate derivative ψ in place of the derivative of the step, which is zero almost everywhere.

With u = v - A the distance of a potential from its threshold, θ the baseline threshold, γ the dampening and δ the
width in units of θ:
    (1) z = H(u)                        1 where u > 0, else 0
    (2) ∂z/∂u := ψ(u) = (γ/θ) p(w),     w = u / (δ θ),     so that ψ has its peak γ/θ at the threshold
        piecewise_linear  p = max(0, 1-|w|)     Bellec 2018, 2020: γ = 0.3, δ = 1, ψ = (γ/θ) max(0, 1-|u/θ|)
        fast_sigmoid      p = 1/(1+|w|)²        Zenke & Ganguli 2018, 1/(1+|β u|)²: γ = θ, δ = 1/(β θ)
        gaussian          p = exp(-w²/2)        as in Yin, Corradi & Bohté 2021, up to its height
    (3) in code     z = H(u) + (S(u) - S(u)'s value),     S' = ψ,   S(u) = γ δ P(w),   P' = p
(3) has the value of (1), exactly, since the bracket is zero, and every derivative of S. It consists of ordinary
operations, so reverse mode, double backward, `torch.func.jvp` and `torch.func.vmap` need no rules of their own.
Its second derivative is ψ': the Hessian of a spiking network is that of the network in which each spike is, around
the present point, the smooth function (3). It is symmetric, and it is not the Hessian of the true loss, which is
piecewise constant in the recurrent weights.

References: G. Bellec et al., Long short-term memory and learning-to-learn in networks of spiking neurons, NeurIPS 2018;
G. Bellec et al., A solution to the learning dilemma for recurrent networks of spiking neurons, Nature Communications 11
(2020) 3625; F. Zenke, S. Ganguli, SuperSpike, Neural Computation 30 (2018) 1514; B. Yin, F. Corradi, S. M. Bohté,
Accurate and efficient time-domain classification with adaptive spiking recurrent neural networks, Nature Machine
Intelligence 3 (2021) 905.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bpgen.errors import choice, require
from bpgen.numbers import scalar

SurrogateName = Literal["piecewise_linear", "fast_sigmoid", "gaussian"]


@dataclass(frozen=True)
class Shape:
    """p and its primitive P, both of w; `width` is the usual δ."""

    name: str
    p: Callable[[Tensor], Tensor]
    P: Callable[[Tensor], Tensor]
    width: float


def _piecewise_linear_primitive(w: Tensor) -> Tensor:
    w = w.clamp(-1, 1)
    return w - 0.5 * w * w.abs()


SURROGATES: dict[str, Shape] = {
    s.name: s
    for s in (
        Shape("piecewise_linear", lambda w: (1 - w.abs()).clamp(min=0), _piecewise_linear_primitive, 1.0),
        Shape("fast_sigmoid", lambda w: (1 + w.abs()) ** -2, lambda w: w / (1 + w.abs()), 0.1),
        Shape(
            "gaussian",
            lambda w: torch.exp(-0.5 * w * w),
            lambda w: math.sqrt(math.pi / 2) * torch.erf(w / math.sqrt(2)),
            0.5,
        ),
    )
}


class Surrogate:
    """The spike function (1) with the derivative (2), elementwise on tensors of any shape.

    Args:
        name: shape of the surrogate derivative.
        dampening: γ; the peak of ψ is γ/θ.
        width: δ, in units of θ; None is 1 (piecewise_linear), 0.1 (fast_sigmoid) or 0.5 (gaussian).

    Raises:
        BpgenError: an unknown name, or a number that is not positive.
    """

    def __init__(
        self,
        name: SurrogateName = "piecewise_linear",
        dampening: float = 0.3,
        width: float | None = None,
    ) -> None:
        self._shape = SURROGATES[choice("surrogate", name, SurrogateName)]
        self._width = self._shape.width if width is None else width
        for option, value in (("dampening", dampening), ("width", self._width)):
            require(0 < value < math.inf, f"neuron.{option} must be a positive number, got {value}.")
        self._dampening = dampening

    def spike(self, u: Tensor, threshold: float | Tensor = 1.0) -> Tensor:
        """Equation (3): z of u [...,N] at θ, a number or [N], differentiable as often as S is."""
        smooth = self._dampening * self._width * self._shape.P(u / (self._width * threshold))
        return step(u) + (smooth - smooth.detach())

    def slope(self, u: Tensor, threshold: float | Tensor = 1.0) -> Tensor:
        """Equation (2): ψ of u [...,N] at θ."""
        return self._dampening / threshold * self._shape.p(u / (self._width * threshold))

    def slope_into(self, u: Tensor, threshold: float | Tensor = 1.0) -> None:
        """Overwrite u by equation (2); the usual shape, max(0, γ/θ - |u| γ/(δ θ²)), in three passes."""
        if self._shape.name != "piecewise_linear" or isinstance(threshold, Tensor):
            u.copy_(self.slope(u, threshold))
            return
        peak = self._dampening / threshold
        torch.sub(scalar(peak, u), u.abs_(), alpha=peak / (self._width * threshold), out=u)
        u.clamp_min_(0)


def step(u: Tensor) -> Tensor:
    """Equation (1), without any derivative."""
    return (u > 0).to(u.dtype)
