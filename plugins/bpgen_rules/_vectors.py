"""Gradients as vectors: a dictionary of tensors by parameter name, with the operations the controls need."""

from collections.abc import Iterable

import torch
from torch import Tensor

from bpgen.rules import Draws, Network

Grads = dict[str, Tensor]
NOISE = "noise/"  # before the names of drawn vectors


def dot(a: Grads, b: Grads) -> Tensor:
    """⟨a, b⟩ over all their parameters, 0-d."""
    return torch.stack([(a[name] * b[name]).sum() for name in b]).sum()


def norm(a: Grads) -> Tensor:
    """‖a‖ over all its parameters, 0-d."""
    return dot(a, a).sqrt()


def divide(a: Tensor, b: Tensor) -> Tensor:
    """a/b, and 0 where b = 0."""
    return torch.where(b == 0, 0.0, a / torch.where(b == 0, 1.0, b))


def times(factor: Tensor | float, a: Grads) -> Grads:
    """factor · a."""
    return {name: factor * value for name, value in a.items()}


def plus(a: Grads, b: Grads) -> Grads:
    """a + b."""
    return {name: a[name] + b[name] for name in a}


def remainder(g_hat: Grads, g: Grads) -> Grads:
    """e = ĝ - ρ g, orthogonal to g; projected twice, so that rounding leaves nothing along g."""
    for _ in range(2):
        g_hat = plus(g_hat, times(-divide(dot(g_hat, g), dot(g, g)), g))
    return g_hat


def draw_noise(network: Network, random: torch.Generator) -> dict[str, Tensor]:
    """ξ ~ N(0, 1) for every weight that can act, under the names that `noise_of` looks up."""
    params = network.params()
    noise = {n: torch.randn(p.shape, generator=random, dtype=torch.float64).to(p) for n, p in params.items()}
    return {NOISE + n: v for n, v in network.masked(noise).items()}


def noise_of(names: Iterable[str], draws: Draws) -> Grads:
    """The ξ drawn for the parameters `names`."""
    return {n: draws[NOISE + n] for n in names}
