"""A trained network as complexity measures see it, with what several of them share computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from bpgen.curvature import HessianProducts, lanczos
from bpgen.curvature.block import Block, BlockProblem
from bpgen.curvature.products import Products, products_of
from bpgen.problem import Problem
from bpgen.streams import generator

TOL = 1e-3  # accepted residual of an eigenvalue, relative
PROBES = 10  # random vectors of a sketch; it takes three times as many products


class Sketch(NamedTuple):
    """tr H and ‖H‖_F, each an exact part of a subspace and an unbiased estimate of the rest."""

    trace: float
    frobenius: float


@dataclass(frozen=True)
class Trained:
    """A network after some training.

    problem: at its weights, on training sequences; its loss has no regularisers.
    start: its weights before training, by name.
    weights: which of them were trained: the θ [P] of every measure that speaks of all weights.
    seed: of all random vectors.
    """

    problem: Problem
    start: Mapping[str, Tensor]
    weights: Block = "all"
    seed: int = 0

    @cached_property
    def at(self) -> BlockProblem:
        """The loss as a function of θ, in float64."""
        return BlockProblem(self.problem, self.weights, torch.float64)

    @cached_property
    def products(self) -> HessianProducts:
        """H v for all trained weights."""
        return HessianProducts(self.problem, self.weights)

    @cached_property
    def lambda_max(self) -> float:
        """λ_1 of H, for all trained weights."""
        return self.largest_eigenvalue(self.products)

    @cached_property
    def sketch(self) -> Sketch:
        """Trace and Frobenius norm of H."""
        return sketch(self.products, PROBES, self.seed)

    def largest_eigenvalue(self, products: Products) -> float:
        """λ_1 of an operator, signed."""
        return float(lanczos(products, tol=TOL, seed=self.seed).eigenvalues[0])

    @cached_property
    def masked(self) -> dict[str, Tensor]:
        """Its weights by name, zero where they cannot act."""
        return self.problem.network.masked(self.problem.params)

    @cached_property
    def change(self) -> dict[str, Tensor]:
        """What training added to each weight, zero where it cannot act."""
        before = self.problem.network.masked({name: self.start[name].to(w) for name, w in self.masked.items()})
        return {name: w - before[name] for name, w in self.masked.items()}


def sketch(operator: Products, probes: int, seed: int = 0) -> Sketch:
    """Hutch++ (Meyer et al. 2021) for the trace, and the same split for the Frobenius norm.

    With S [P,s] random signs, Q an orthonormal basis of H S, g random signs and g_⊥ = (I - QQᵀ) g:
        tr H ≈ Σ_i q_iᵀ H q_i + mean g_⊥ᵀ H g_⊥            ‖H‖_F² ≈ Σ_i ‖H q_i‖² + mean ‖H g_⊥‖²
    The first parts are exact, the second ones unbiased. With s >= P everything is exact.

    Args:
        operator: products of a symmetric H [P,P].
        probes: s, and the number of g.
        seed: of the random signs.
    """
    random, P = generator(seed, "sketch"), operator.size
    images = products_of(operator, _signs(min(probes, P), P, random))
    Q = torch.linalg.qr(images.mT)[0].mT if probes < P else torch.eye(P, dtype=torch.float64)
    HQ = products_of(operator, Q)
    trace, square = (Q * HQ).sum(), HQ.square().sum()
    if len(Q) < P:
        g = _signs(probes, P, random)
        g = g - (g @ Q.mT) @ Q
        Hg = products_of(operator, g)
        trace, square = trace + (g * Hg).sum(1).mean(), square + Hg.square().sum(1).mean()
    return Sketch(float(trace), float(square.sqrt()))


def _signs(n: int, P: int, random: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (n, P), generator=random).double().mul_(2).sub_(1)
