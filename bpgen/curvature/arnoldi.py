"""Leading eigenvalues of an operator that need not be symmetric: Arnoldi's method, fully orthogonalised.

From a random start an orthonormal basis Q [m,P] of the Krylov space is grown, one product at a time:
    (1) A Qᵀ = Qᵀ H + β q_{m+1} e_mᵀ,     H [m,m] upper Hessenberg
    (2) H y = μ y,  u = Qᵀ y,  ‖A u - μ u‖ = β |y_m|          (Ritz pairs and their residuals, without a product)
Eigenvalues may be complex; those of a real operator come in conjugate pairs, and a pair is never split. A small
residual says that μ is an eigenvalue of an operator within that distance of A. For a symmetric one that bounds the
error of μ; here the bound is larger by the eigenvalue's condition number.
(scipy's `eigs` promises less: it has no budget of products and no residuals, cannot look for the eigenvalue farthest
from a point, refuses A = 0, and took 9,217 products for a wrong answer on a nilpotent A [300,300]; 300 here.)

Reference: W. E. Arnoldi, The principle of minimized iterations in the solution of the matrix eigenvalue problem,
Quart. Appl. Math. 9 (1951) 17-29; G. H. Golub and C. F. Van Loan, Matrix Computations, 4th ed. (2013), chapter 10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bpgen.errors import require
from bpgen.streams import generator

_ROUNDING = 8 * torch.finfo(torch.float64).eps
_EVERY = 5  # products between two looks at the Ritz pairs


class RitzValues(NamedTuple):
    """Approximate eigenvalues of A [P,P] and how good they are.

    eigenvalues: μ [k] complex128, by descending |μ|.
    residuals: ‖A u - μ u‖ [k] float64, absolute, for ‖u‖ = 1.
    products: how many were taken.
    converged: whether every residual is at most tol·max|μ|.
    """

    eigenvalues: Tensor
    residuals: Tensor
    products: int
    converged: bool


def arnoldi(
    operator: Callable[[Tensor], Tensor],
    size: int,
    top: int = 6,
    *,
    far_from: float | None = None,
    tol: float = 1e-6,
    max_products: int = 200,
    seed: int = 0,
) -> RitzValues:
    """The `top` eigenvalues of largest |μ|, and the one farthest from a point if that is asked for.

    Args:
        operator: A v, float64 [P], of v float64 [P].
        size: P.
        top: how many; one more where a conjugate pair would be split.
        far_from: also find the eigenvalue farthest from this real number, 0 (to within tol·max|μ|) excepted.
        tol: accepted residual relative to the largest |μ|.
        max_products: budget; what was found is returned when it is spent. Memory is max_products · P numbers.
        seed: of the starting vector; the global random state is not used.

    Returns: `RitzValues`; all NaN and not converged where a product is not finite.

    Raises:
        BpgenError: an option out of its range.
    """
    _check(top, tol, max_products)
    random, budget = generator(seed, "arnoldi"), min(size, max_products)
    Q = torch.empty(budget, size, dtype=torch.float64)  # zeros would touch every page of a budget that is seldom spent
    H = torch.zeros(budget, budget, dtype=torch.float64)
    Q[0] = _unit(torch.randn(size, generator=random, dtype=torch.float64))
    for m in range(1, budget + 1):
        image = operator(Q[m - 1])
        if not bool(image.isfinite().all()):
            return _undefined(min(top, size), m)
        rest, H[:m, m - 1] = _outside(Q[:m], image)
        beta = rest.norm().item()
        invariant = beta <= _ROUNDING * max(image.norm().item(), H.norm().item())
        if m % _EVERY == 0 or invariant or m == budget:
            mu, y = torch.linalg.eig(H[:m, :m])
            residuals = (0.0 if m == size or invariant else beta) * y[-1].abs()
            wanted = _wanted(mu, top, far_from, tol)
            converged = bool((residuals[wanted] <= tol * mu.abs().max()).all())
            if (converged and m >= min(size, 2 * top)) or m == budget:
                return RitzValues(mu[wanted], residuals[wanted], m, converged)
        if invariant:  # the rest of the spectrum lies outside this subspace
            beta, (rest, _) = 0.0, _outside(Q[:m], torch.randn(size, generator=random, dtype=torch.float64))
        H[m, m - 1] = beta
        Q[m] = _unit(rest)
    raise AssertionError("the last round returns")


def _check(top: int, tol: float, max_products: int) -> None:
    """See that the options are in their range.

    Raises:
        BpgenError: one is not.
    """
    require(top >= 1, f"top must be a positive number of eigenvalues, got {top}.")
    require(max_products >= 2, f"max_products must be at least 2, got {max_products}.")
    require(0 < tol < 1, f"tol must be > 0 and below 1, got {tol}.")


def _undefined(k: int, products: int) -> RitzValues:
    nan = torch.full((k,), torch.nan, dtype=torch.float64)
    return RitzValues(nan.to(torch.complex128), nan, products, False)


def _outside(Q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """What of v [P] lies outside the rows of Q [m,P], and its coefficients [m] inside."""
    inside = v.new_zeros(len(Q))
    for _ in range(2):  # once leaves rounding in, twice is enough (Parlett 1980)
        h = Q @ v
        inside, v = inside + h, v - h @ Q
    return v, inside


def _wanted(mu: Tensor, top: int, far_from: float | None, tol: float) -> Tensor:
    """Indices of the eigenvalues asked for, by descending |μ|, conjugates side by side."""
    order = sorted(range(len(mu)), key=lambda i: (-round(abs(mu[i].item()), 12), mu[i].real.item(), -mu[i].imag.item()))
    chosen = order[:top]
    if far_from is not None:
        alive = [i for i in order if abs(mu[i]) > tol * mu.abs().max()]
        if alive:
            chosen.append(max(alive, key=lambda i: abs(mu[i].item() - far_from)))
    whole = set(chosen) | {j for i in chosen for j in range(len(mu)) if mu[i].imag != 0 and mu[j] == mu[i].conj()}
    return torch.tensor([i for i in order if i in whole])


def _unit(v: Tensor) -> Tensor:
    return v / v.norm()
