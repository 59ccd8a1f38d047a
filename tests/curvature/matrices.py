"""Operators with a known spectrum."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.oracles import randn


class Matrix:
    """An operator with a count of its products; `noise` is what single precision would do to them."""

    def __init__(self, H: Tensor, noise: float = 0.0) -> None:
        self.H, self.noise, self.count = H, noise, 0
        self.size, self.precision = len(H), noise or torch.finfo(torch.float64).eps

    def __call__(self, v: Tensor) -> Tensor:
        self.count += 1
        Hv = self.H * v if self.H.ndim == 1 else self.H @ v
        return Hv + self.noise * Hv.norm() * torch.nn.functional.normalize(randn(self.count, self.size), dim=0)


def symmetric(eigenvalues: Tensor, seed: int) -> Tensor:
    """A dense matrix with this spectrum."""
    q = torch.linalg.qr(randn(seed, len(eigenvalues), len(eigenvalues)))[0]
    return q @ eigenvalues.diag() @ q.T


def indefinite(P: int, seed: int) -> Tensor:
    return randn(seed, P)


def negative(P: int, seed: int) -> Tensor:
    return -randn(seed, P).abs()


def mostly_negative(P: int, seed: int) -> Tensor:
    return torch.cat([randn(seed, P - 1), torch.tensor([-20.0], dtype=torch.float64)])


def repeated(P: int, seed: int) -> Tensor:
    return randn(seed, P).mul(1.5).round()


def low_rank(P: int, seed: int) -> Tensor:
    return torch.where(torch.arange(P) < 2, randn(seed, P), 0.0)


def rank_one_negative(P: int, seed: int) -> Tensor:
    return torch.where(torch.arange(P) < 1, -randn(seed, P).abs(), 0.0)


def wide(P: int, seed: int) -> Tensor:
    return 10 ** (3 * randn(seed, P).clamp(-2, 2)) * randn(seed + 1, P).sign()


def multiple_of_identity(P: int, seed: int) -> Tensor:
    return torch.full((P,), -3.0 if seed % 2 else 3.0, dtype=torch.float64)


SPECTRA = [indefinite, negative, mostly_negative, repeated, low_rank, rank_one_negative, wide, multiple_of_identity]
