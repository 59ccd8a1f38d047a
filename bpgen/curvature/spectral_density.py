"""Spectral density by stochastic Lanczos quadrature: where the eigenvalues lie, all of them, from a few products.

For a random vector z of independent signs and m steps of Lanczos from z/√P, with T y_j = θ_j y_j,
    (1) φ(λ) = (1/P) Σ_i δ(λ - λ_i) ≈ (1/n) Σ_z Σ_j w_j δ(λ - θ_j),     w_j = (first entry of y_j)²
Each probe's weights add up to one, and its moments Σ_j w_j θ_j^q equal zᵀ H^q z/P exactly for q <= 2m - 1 (Gauss
quadrature), whose mean over z is tr(H^q)/P. The spread over the probes is the error bar. On a grid each δ becomes a
Gaussian of width σ. Vectors are float64, fully orthogonalised.

References: G. H. Golub and G. Meurant, Matrices, Moments and Quadrature (2010); S. Ubaru, J. Chen, Y. Saad, SIAM J.
Matrix Anal. Appl. 38 (2017) 1075-1099; B. Ghorbani, S. Krishnan, Y. Xiao, ICML 2019.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from bpgen.curvature.products import Backend, Products, products_of
from bpgen.errors import choice, require
from bpgen.streams import generator


@dataclass(frozen=True)
class Density:
    """A spectral density and its quadrature.

    nodes: θ [probes,m] float64, ascending. weights: w [probes,m], each row adds up to one.
    free: P, how many eigenvalues there are.
    products, seconds, seed: what it took.
    products_by: how products were taken.
    """

    nodes: Tensor
    weights: Tensor
    free: int
    products: int
    seconds: float
    seed: int
    products_by: str

    def moment(self, q: int) -> tuple[float, float]:
        """tr(H^q)/P and its standard error over the probes (NaN for a single one)."""
        return _mean((self.weights * self.nodes**q).sum(1))

    def count(self, low: float, high: float = math.inf) -> tuple[float, float]:
        """How many eigenvalues lie in [low, high), and the standard error."""
        inside = (self.nodes >= low) & (self.nodes < high)
        mean, error = _mean((self.weights * inside).sum(1) * self.free)
        return mean, error

    def on(self, grid: Tensor, sigma: float | None = None) -> tuple[Tensor, Tensor]:
        """The density and its standard error at λ = grid [G], each node a Gaussian of width σ.

        Args:
            grid: λ; wide enough, and finer than σ, for the density to integrate to one.
            sigma: σ; None is a hundredth of the spectrum's width.
        """
        width = (self.nodes.max() - self.nodes.min()).item()
        sigma = sigma or width / 100 or 1e-2 * max(abs(self.nodes.max().item()), 1.0)
        z = (grid.double().unsqueeze(-1).unsqueeze(-1) - self.nodes) / sigma  # [G,probes,m]
        each = (self.weights * torch.exp(-0.5 * z * z)).sum(-1) / (sigma * math.sqrt(2 * math.pi))
        n = each.shape[1]
        return each.mean(1), each.std(1) / math.sqrt(n) if n > 1 else torch.full_like(each[:, 0], math.nan)


def density(
    operator: Products,
    probes: int = 8,
    steps: int = 64,
    seed: int = 0,
    *,
    backend: Backend = "ours",
) -> Density:
    """Equation (1); probes · steps products, taken for all probes at once where the operator can.

    Args:
        operator: products with float64 vectors.
        probes: n, random vectors; the error bars need two.
        steps: m, of Lanczos, at most P.
        seed: of the probes.
        backend: "ours", or "pyhessian" as an independent check, in the network's dtype and on products of its own.
            Only for `HessianProducts`.

    Raises:
        BpgenError: a number that is not positive, or an operator that the backend does not know.
    """
    require(probes >= 1 and steps >= 1, f"probes and steps must be positive, got {probes} and {steps}.")
    began, P = time.perf_counter(), operator.size
    m = min(steps, P)
    if choice("backend", backend, Backend) == "pyhessian":
        from bpgen.curvature.pyhessian import model_of, quadrature

        nodes, weights = quadrature(model_of(operator), m, probes, seed)
        return Density(nodes, weights, P, probes * m, time.perf_counter() - began, seed, "autograd")
    random = generator(seed, "density")
    z = torch.randint(0, 2, (probes, P), generator=random).double().mul_(2).sub_(1)
    Q = torch.zeros(m, probes, P, dtype=torch.float64)
    Q[0] = z / math.sqrt(P)
    T = torch.zeros(probes, m, m, dtype=torch.float64)
    for j in range(m):
        rest = products_of(operator, Q[j])
        for _ in range(2):  # twice is enough (Parlett 1980)
            along = torch.einsum("inp,np->in", Q[: j + 1], rest)
            rest = rest - torch.einsum("in,inp->np", along, Q[: j + 1])
            T[:, j, : j + 1] += along.T
        if j + 1 < m:
            length = rest.norm(dim=1)
            size = T[:, : j + 1, : j + 1].abs().amax((1, 2))
            ends = length <= 8 * operator.precision * size  # an invariant subspace: nothing beyond has any weight
            Q[j + 1] = torch.where(ends.unsqueeze(1), 0.0, rest / length.clamp_min(1e-300).unsqueeze(1))
    T = torch.tril(T)
    nodes, y = torch.linalg.eigh(T)
    took = time.perf_counter() - began
    return Density(nodes, y[:, 0].square(), P, probes * m, took, seed, getattr(operator, "by", "given"))


def _mean(each: Tensor) -> tuple[float, float]:
    """Mean and standard error."""
    error = each.std().item() / math.sqrt(len(each)) if len(each) > 1 else math.nan
    return each.mean().item(), error
