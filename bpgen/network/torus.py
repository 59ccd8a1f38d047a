"""Neurons on a torus: h x w sites with one neuron on each, circular in both directions, as large as a unit square.

    (1) h w = N, as square as the divisors of N allow (10 x 10 for 100, a ring for a prime)
    (2) d² = Δ(rows)² / h² + Δ(columns)² / w²,  Δ the shorter way round
    (3) a synapse exists with probability 1 / (1 + exp(d² / (4σ))): one half next to each other, none far away
    (4) M = mean over the 3 x 3 sites around a site, itself included: symmetric, with eigenvalues in [-1/3, 1]
Source: Barretto-Bittar, Levina, Giannakakis and Zeraati 2026, arXiv 2603.08949, and the authors' code: σ = 0.012.
The eigenvalues of (4) are products (1 + 2 cos 2πi/h)(1 + 2 cos 2πj/w)/9, each factor of which is in [-1, 3].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sides(N: int) -> tuple[int, int]:
    """Equation (1): h <= w."""
    h = next(h for h in range(math.isqrt(N), 0, -1) if N % h == 0)
    return h, N // h


def random_sites(N: int, random: torch.Generator) -> Tensor:
    """The site of each neuron, int64 [N]: a random permutation."""
    return torch.randperm(N, generator=random)


def steps_apart(sites: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns between the sites of any two neurons, the shorter way round: int64 [N,N] each."""
    h, w = sides(len(sites))
    return _around(sites // w, h), _around(sites % w, w)


def _around(place: Tensor, length: int) -> Tensor:
    apart = (place.unsqueeze(1) - place).abs()
    return torch.minimum(apart, length - apart)


def probability(sites: Tensor, sigma: float) -> Tensor:
    """Equations (2) and (3) between all neurons [N,N], float64."""
    h, w = sides(len(sites))
    rows, columns = steps_apart(sites)
    squared = (rows / h).double().square() + (columns / w).double().square()
    return torch.sigmoid(-squared / (4 * sigma))


def neighbourhood_mean(sites: Tensor) -> Tensor:
    """Equation (4) in the order of the neurons, M [N,N], float64: its rows sum to 1."""
    h, w = sides(len(sites))
    rows, columns = steps_apart(sites)
    return _box(rows, h) * _box(columns, w)


def _box(apart: Tensor, length: int) -> Tensor:
    """The mean over a place and its two neighbours on a ring; on rings of one or two places some coincide."""
    if length == 1:
        return torch.ones_like(apart).double()
    beside = 2 if length == 2 else 1  # both neighbours are the same place
    return ((apart == 0).double() + beside * (apart == 1)) / 3
