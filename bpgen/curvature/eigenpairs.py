"""Extreme eigenvalues of a symmetric operator from its products with vectors: block Lanczos, fully orthogonalised.

From k = top starting vectors an orthonormal basis Q [m,P] of the Krylov space is grown, k products at a time, and
H is replaced by its projection on it:
    (1) T = Q H Qᵀ [m,m],   T y = θ y,   θ ≈ λ,   u = Qᵀ y                      (Ritz pairs)
    (2) ‖H u - θ u‖ = ‖R y_last‖, with R what the last k products had outside Q   (known without a product)
The iteration ends when (2) is small for all asked pairs; no product is spent on it. Vectors are float64 and
orthogonalised twice against the whole basis: without it, rounding returns ghost copies of converged eigenvalues (Paige
1971), and (2) would not be the residual. One starting vector is blind to a repeated eigenvalue; a block of k sees k
copies, so the k largest come with their multiplicities.

What a residual certifies is that SOME eigenvalue is there, never that it is the largest. As long as u_1 is taken
for the largest and a larger λ_2 is overlooked, every root of the Krylov polynomial lies below λ_1 < λ_2, so that
    (3) |<u,u_2>| / |<u,u_1>| >= c_2/c_1,   hence   λ_2 - λ_1 <= residual · c_1/c_2       (one starting vector)
with c the overlaps of the starting vector. For a random start c_1/c_2 is of order 1 (above 10 once in 16 times), and an
overlooked eigenvalue is larger by little more than the tolerance. The sharper bound ‖r‖²/gap of Kato and Temple is no
way to stop earlier: its gap is that to eigenvalues already seen, and on trained networks, where close pairs are common,
it was found wrong by 3e-4 where it promised 1e-4.
A warm start makes c_1/c_2 arbitrarily large: from an exact eigenvector the residual is 0 at once, and after two
eigenvalues crossed, the wrong one is returned. Here a warm start is mixed with a random vector of the same norm, which
leaves c_1/c_2 about √P, and the iteration goes on until (2) is smaller than usual by that factor. By (3) it then
overlooks no more than a cold start does; it also takes about as many products as one, since what the overlap saves the
certificate costs. What an unsafe warm start could save along a run, at most, is a row of `bpgen bench --curvature`.

References: C. Lanczos, J. Res. Natl. Bur. Stand. 45 (1950) 255-282; G. H. Golub and C. F. Van Loan, Matrix
Computations, 4th ed. (2013), chapter 10.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from bpgen.curvature.products import Products, products_of
from bpgen.errors import choice, require
from bpgen.streams import generator

Which = Literal["largest", "smallest", "both", "magnitude"]
_ROUNDING = 8  # residuals below this many epsilons of ‖H‖ are rounding
_MEASURED = 2.5  # epsilons of ‖H‖ by which products were seen to be wrong: no residual is reported below that


class Eigenpairs(NamedTuple):
    """Approximate eigenpairs of H [P,P] and how good they are.

    eigenvalues: λ [k] float64, signed, the wanted end first: descending, ascending for the smallest, by absolute value
        for the magnitude; for both ends k descending from the top, then k down to the smallest.
    vectors: u [k,P] float64, orthonormal.
    residuals: ‖H u - λ u‖ [k] float64, absolute.
    products: how many were taken.
    converged: whether every residual is at most tol·|λ|, or zero to float64 rounding.
    """

    eigenvalues: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    converged: bool


def lanczos(
    operator: Products,
    top: int = 1,
    *,
    which: Which = "largest",
    tol: float = 1e-4,
    max_products: int = 300,
    seed: int = 0,
    start: Tensor | None = None,
) -> Eigenpairs:
    """Extreme eigenvalues of a symmetric operator; memory max_products · P numbers at most.

    Args:
        operator: its products with float64 vectors [P].
        top: k, how many eigenvalues (of each end for "both").
        which: largest or smallest algebraically, both ends, or largest in absolute value ("magnitude").
        tol: accepted residual relative to |λ|. Eigenvalues closer to each other than that are not told apart.
        max_products: budget; what was found is returned when it is spent.
        seed: of all random vectors; the global random state is not used.
        start: vectors [·,P] near the wanted ones, which never decide the answer, see (3); those not finite are ignored.

    Returns: all NaN where a product is not finite. Where products are rounded more coarsely than `tol` asks for, the
        iteration ends at their rounding error and says not converged.

    Raises:
        BpgenError: an option out of its range, or a start of another size.
    """
    P, k, ends = operator.size, top, _ends(operator.size, top, which, tol, max_products)
    random, strictness = generator(seed, "lanczos"), 1.0 if start is None else 1 / math.sqrt(P)
    budget = P if max_products >= P else max_products // k * k  # whole blocks, or (2) would miss what was cut off
    Q = torch.empty(budget, P, dtype=torch.float64)  # zeros would touch every page of a budget that is seldom spent
    T = torch.zeros(budget, budget, dtype=torch.float64)  # its lower triangle
    block = _mixed(torch.randn(k, P, generator=random, dtype=torch.float64), start)
    m, width = 0, _extend(Q, 0, block, 0.0, random)[0]
    while True:
        images, m = products_of(operator, Q[m : m + width]), m + width
        if not bool(images.isfinite().all()):
            return _undefined(ends * k, P, m)
        T[m - width : m, :m] = coefficients = images @ Q[:m].mT
        theta, y = torch.linalg.eigh(T[:m, :m])
        floor = _ROUNDING * operator.precision * (size := theta.abs().max().item())  # ‖H‖ from below
        width, R = _extend(Q, m, images - coefficients @ Q[:m], floor, random)
        residuals, wanted = (R @ y[m - len(images) :]).norm(dim=0), _wanted(theta, which, k)
        accepted = residuals <= (strictness * tol * theta.abs()).clamp_min(floor)
        if m == budget or (m >= ends * k and _settled(theta, residuals, accepted, wanted, which)):
            break
    measured = torch.tensor(_MEASURED * operator.precision * size, dtype=torch.float64)
    theta, vectors, residuals = theta[wanted], y.mT[wanted] @ Q[:m], torch.hypot(residuals[wanted], measured)
    accepted = residuals <= (tol * theta.abs()).clamp_min(_ROUNDING * torch.finfo(torch.float64).eps * size)
    return Eigenpairs(theta, vectors, residuals, m, bool(accepted.all()))


def _ends(P: int, k: int, which: Which, tol: float, max_products: int) -> int:
    """How many ends of the spectrum are asked for, once the options are seen to be in their range.

    Raises:
        BpgenError: one is not.
    """
    ends = 2 if choice("which", which, Which) == "both" else 1
    require(k >= 1 and ends * k <= P, f"top must be in 1..{P // ends}, there are {P} free weights, got {k}.")
    require(max_products >= ends * k, f"max_products must be at least {ends * k} for top={k}, got {max_products}.")
    require(0 < tol < 1, f"tol must be > 0 and below 1, got {tol}.")
    return ends


def _wanted(theta: Tensor, which: Which, k: int) -> Tensor:
    """Indices of the wanted ones among the ascending θ [m], in the order of `Eigenpairs`."""
    m = len(theta)
    if which == "magnitude":
        return theta.abs().argsort(descending=True)[:k]
    top, bottom = torch.arange(m - 1, max(m - 1 - k, -1), -1), torch.arange(min(k, m))
    return {"largest": top, "smallest": bottom}.get(which, torch.cat([top, bottom.flip(0)]))


def _settled(theta: Tensor, bounds: Tensor, accepted: Tensor, wanted: Tensor, which: Which) -> bool:
    """Whether all wanted pairs are accepted and the other end of the spectrum can no longer overtake them."""
    if not bool(accepted[wanted].all()):
        return False
    ends = torch.tensor([0, -1]) if which == "magnitude" else wanted
    beaten = theta[ends].abs() + bounds[ends] < theta[wanted].abs().min()
    return bool((accepted[ends] | beaten).all())


def _mixed(block: Tensor, start: Tensor | None) -> Tensor:
    """The random block [k,P] plus the given vectors dealt out over its rows, both as unit vectors; itself without any.

    Raises:
        BpgenError: vectors of another size.
    """
    if start is None:
        return block
    P = block.shape[1]
    require(start.shape[-1:] == (P,), f"start must hold vectors of {P} entries, got {list(start.shape)}.")
    unit = torch.nn.functional.normalize
    block, vectors = unit(block), start.reshape(-1, block.shape[1]).to(block)
    for i, vector in enumerate(unit(vectors[vectors.isfinite().all(1)])):
        block[i % len(block)] += vector
    return block


def _extend(Q: Tensor, m: int, rest: Tensor, floor: float, random: torch.Generator) -> tuple[int, Tensor]:
    """Write the directions of `rest` [w,P], as far as there is room, as orthonormal rows below the first m of Q.

    A direction that is nothing but rounding means an invariant subspace: a fresh random one replaces it, because
    the rest of the spectrum, further copies of a repeated eigenvalue included, lies outside.

    Returns:
        How many rows were written, and R [·,w] with ‖z rest‖ = ‖R z‖.
    """
    U, lengths, directions = torch.linalg.svd(rest, full_matrices=False)
    width = min(len(rest), len(Q) - m)
    for i, (length, new) in enumerate(zip(lengths[:width], directions, strict=False)):
        if length <= floor:
            new = torch.randn(len(new), generator=random, dtype=torch.float64)
        new = new - (Q[: m + i] @ new) @ Q[: m + i]  # `rest` was the first time, and twice is enough (Parlett 1980)
        Q[m + i] = new / new.norm()
    return width, lengths.unsqueeze(1) * U.mT


def _undefined(k: int, P: int, products: int) -> Eigenpairs:
    nan = torch.full((k,), torch.nan, dtype=torch.float64)
    return Eigenpairs(nan, nan.unsqueeze(1).expand(k, P).clone(), nan.clone(), products, False)
