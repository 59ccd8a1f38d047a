"""Initial weights, each scheme named after its source. Drawn in float64 by the caller's generator, then cast.

An initialisation maps (K, N, I, O, generator) to W_rec [K·N,N], W_in [K·N,I], W_out [O,N]. Biases start at zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Weights = tuple[Tensor, Tensor, Tensor]


def _normal(rows: int, columns: int, sd: float, g: torch.Generator) -> Tensor:
    return sd * torch.randn(rows, columns, generator=g, dtype=torch.float64)


def _glorot_uniform(rows: int, columns: int, g: torch.Generator) -> Tensor:
    limit = math.sqrt(6 / (rows + columns))
    return (2 * torch.rand(rows, columns, generator=g, dtype=torch.float64) - 1) * limit


def liu2022(K: int, N: int, I: int, O: int, g: torch.Generator) -> Weights:
    """The released code of Liu et al. 2022: W_in ~ N(0, 2/I), W_rec ~ N(0, 2/N), W_out Glorot uniform."""
    return (
        _normal(K * N, N, math.sqrt(2 / N), g),
        _normal(K * N, I, math.sqrt(2 / I), g),
        _glorot_uniform(O, N, g),
    )


def glorot2010(K: int, N: int, I: int, O: int, g: torch.Generator) -> Weights:
    """Glorot and Bengio 2010: every block uniform in ±√(6/(fan_in + fan_out))."""
    rec = torch.cat([_glorot_uniform(N, N, g) for _ in range(K)])
    inputs = torch.cat([_glorot_uniform(N, I, g) for _ in range(K)])
    return rec, inputs, _glorot_uniform(O, N, g)


def saxe2014(K: int, N: int, I: int, O: int, g: torch.Generator) -> Weights:
    """Saxe, McClelland and Ganguli 2014: orthogonal W_rec blocks (before the autapse mask), the rest Glorot."""
    blocks = []
    for _ in range(K):
        q, r = torch.linalg.qr(torch.randn(N, N, generator=g, dtype=torch.float64))
        blocks.append(q * r.diagonal().sign())  # unique, hence uniform over the orthogonal group
    return torch.cat(blocks), *glorot2010(K, N, I, O, g)[1:]


def sompolinsky1988(K: int, N: int, I: int, O: int, g: torch.Generator) -> Weights:
    """Sompolinsky, Crisanti and Sommers 1988: W_rec ~ N(0, 1.5²/N), chaotic for tanh; W_in ~ N(0, 1/I)."""
    return (
        _normal(K * N, N, 1.5 / math.sqrt(N), g),
        _normal(K * N, I, 1 / math.sqrt(I), g),
        _normal(O, N, 1 / math.sqrt(N), g),
    )


INITIALISATIONS: dict[str, Callable[[int, int, int, int, torch.Generator], Weights]] = {
    f.__name__: f for f in (liu2022, glorot2010, saxe2014, sompolinsky1988)
}
