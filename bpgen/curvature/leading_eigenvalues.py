"""Sharpness: the largest eigenvalues of the Hessian of the true loss, with their residuals and what they are of.

Definitions, by name:
    largest    λ_max, the largest algebraic eigenvalue with its sign.
    smallest   λ_min, with its sign.
    both       the `top` largest, then the `top` smallest.
    magnitude  the eigenvalue of largest magnitude, with its sign.
    released   its absolute value |λ| = ‖H v‖: what the released code of Liu et al. 2022 reports. Its power
               iteration loses the sign (a spectrum {-5, 3, 1} gives 5). There the block is W_rec, the data one
               validation batch of 256, and the loss contains its L2, so that every eigenvalue is shifted by
               exactly the coefficient, 0.01. In that code the silenced autapses are free entries whose Hessian
               is the coefficient itself; here they are left out, which no largest eigenvalue above it can notice.
For spiking neurons it is the curvature of the surrogate network (`bpgen.neurons.surrogate`); their true loss is
piecewise constant in the recurrent weights.
λ_max of W_rec is not λ_max of all weights: bounds such as 2/η speak of everything that is trained (block="all").

References: Y. H. Liu et al., Beyond accuracy, NeurIPS 2022 and its released code; `bpgen.curvature.eigenpairs`;
Z. Yao et al., PyHessian, IEEE Big Data 2020 (`bpgen.curvature.pyhessian`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from bpgen.curvature.block import Block, label
from bpgen.curvature.eigenpairs import Eigenpairs, Which, lanczos
from bpgen.curvature.products import HessianProducts, Products
from bpgen.curvature.pyhessian import pyhessian
from bpgen.errors import choice, require
from bpgen.given import problem_of
from bpgen.losses import L2, Activity, Loss, LossName, When
from bpgen.network import Network
from bpgen.problem import Problem

Definition = Literal["largest", "smallest", "both", "magnitude", "released"]
Backend = Literal["lanczos", "pyhessian"]


@dataclass(frozen=True)
class Search:
    """Which eigenvalues are searched for, and how hard.

    top: how many.
    tol: accepted residual relative to |λ| (for PyHessian: relative change between two iterations).
    seed: of the random starting vectors.
    definition: "largest", "smallest", "both", "magnitude" or "released"; see the module.
    max_products: budget of Hessian-vector products (for PyHessian: per eigenvalue, without the residuals').
    backend: "lanczos", or "pyhessian" as an independent check.

    Raises:
        BpgenError: an unknown definition or backend, or a definition that the backend does not have.
    """

    top: int = 1
    tol: float = 1e-4
    seed: int = 0
    definition: Definition = "largest"
    max_products: int = 300
    backend: Backend = "lanczos"

    def __post_init__(self) -> None:
        choice("definition", self.definition, Definition)
        require(
            choice("backend", self.backend, Backend) == "lanczos" or self.definition not in ("smallest", "both"),
            f"backend 'pyhessian' has no definition {self.definition!r}.",
        )

    def eigenpairs(self, products: Products, start: Tensor | None = None) -> Eigenpairs:
        """What `lanczos` finds of an operator; `start` as there."""
        which: Which = "magnitude" if self.definition == "released" else self.definition
        search: dict[str, Any] = {"tol": self.tol, "max_products": self.max_products, "seed": self.seed}
        return lanczos(products, self.top, which=which, start=start, **search)


@dataclass(frozen=True)
class SharpnessResult:
    """Eigenvalues of a Hessian, how good they are, and what was measured.

    eigenvalues: λ [top] float64, the wanted end first: descending, ascending for "smallest", by absolute value for
        "magnitude"; [2·top], descending, for "both".
    residuals: ‖H v - λ v‖ [top] float64, absolute, of the signed eigenvalue.
    vectors: v [top,P] float64, unit length, over the free entries of the block.
    products: Hessian-vector products taken.
    converged: whether every residual is at most tol·|λ|.
    block, definition, backend, tol: as asked for.
    samples: B, the sequences the loss was averaged over.
    regularised: whether the loss contained a regulariser.
    seconds: how long it took.
    products_by: "roperator" or "autograd": how products were taken.
    free: P, how many weights the block has that can act.
    surrogate: whether neurons spike, so that this is the curvature of the surrogate network.
    """

    eigenvalues: Tensor
    residuals: Tensor
    vectors: Tensor
    products: int
    converged: bool
    block: str
    samples: int
    definition: str
    regularised: bool
    backend: str
    tol: float
    seconds: float
    products_by: str
    free: int
    surrogate: bool

    @classmethod
    def of(cls, found: Eigenpairs, search: Search, block: Block, **measured: Any) -> SharpnessResult:
        """The eigenpairs found, with what was searched for and measured."""
        values = found.eigenvalues
        return cls(
            eigenvalues=values.abs() if search.definition == "released" else values,
            residuals=found.residuals,
            vectors=found.vectors,
            products=found.products,
            converged=found.converged,
            free=found.vectors.shape[1],
            block=label(block),
            definition=search.definition,
            backend=search.backend,
            tol=search.tol,
            **measured,
        )


def sharpness(
    network: Network,
    x: Tensor,
    target: Tensor,
    loss: LossName = "cross_entropy",
    when: When = "last",
    mask: Tensor | None = None,
    initial_state: Tensor | None = None,
    regulariser: L2 | float | Mapping[str, float] | None = None,
    block: Block = "W_rec",
    top: int = 1,
    tol: float = 1e-4,
    seed: int = 0,
    *,
    definition: Definition = "largest",
    start: Tensor | None = None,
    max_products: int = 300,
    backend: Backend = "lanczos",
    chunk_size: int | None = None,
    activity: Activity | float | None = None,
    lengths: Tensor | None = None,
) -> SharpnessResult:
    """The largest eigenvalues of the loss's Hessian at the network's present weights.

    Args:
        network: the network; it is left as found (weights, .grad, mode), and so is the global random state.
        x: inputs [T,B,I].
        target: int64 [B] (last) or [T,B] (all) for cross-entropy; float [B,O] or [T,B,O] for mse.
        loss, when: "cross_entropy", "binary_cross_entropy" or "mse" (½ Σ_o (y-y*)²); at the "last" step or at "all".
        mask, initial_state: weights m [T,B] of the steps, only with "all": L = (1/B) Σ m ℓ, where a mask of ones is T
            times no mask for the cross-entropies, and so is its sharpness; s_0 [B,d,N]; or None.
        regulariser: an L2 coefficient for W_in, W_rec, W_out, or coefficients by weight; None adds nothing.
        block: "W_rec" (its entries that may act), "all" parameters that are trained, another one's name, or several.
        top, seed: how many eigenvalues, and the seed of the starting vectors.
        tol: accepted residual relative to |λ| (for PyHessian: relative change between two iterations).
        definition: "largest", "smallest", "both", "magnitude" or "released"; see the module.
        start: vectors [·,P] of an earlier measurement, Lanczos only; they save little: see `curvature.eigenpairs`.
        max_products: budget of Hessian-vector products (for PyHessian: per eigenvalue, without the residuals').
        backend: "lanczos", or "pyhessian" as an independent check.
        chunk_size: samples per pass, to bound the memory; None chooses. The answer does not depend on it.
        activity: an `Activity` that the loss contains, or the coefficient of its rate form; None adds nothing.
        lengths: steps of each sequence [B] where they differ: as for `bpgen.gradients`.

    Raises:
        BpgenError: a shape or option that does not fit, with what was expected.
    """
    objective = Loss.of(loss, when, mask, regulariser, activity)
    problem = problem_of(network, x, target, objective, initial_state, lengths)
    search = Search(top, tol, seed, definition, max_products, backend)
    return eigenvalues(problem, block, search, start=start, chunk_size=chunk_size)


def eigenvalues(
    problem: Problem,
    block: Block = "W_rec",
    search: Search | None = None,
    *,
    start: Tensor | None = None,
    chunk_size: int | None = None,
) -> SharpnessResult:
    """`sharpness` of a problem, which is not checked: what measurements call.

    Args:
        problem: whose Hessian; regularisers are part of it if the loss has any.
        block, start, chunk_size: as for `sharpness`.
        search: which eigenvalues and how hard; None is `Search()`.

    Raises:
        BpgenError: an option out of its range.
    """
    search, began = search or Search(), time.perf_counter()
    if search.backend == "lanczos":
        products = HessianProducts(problem, block, chunk_size=chunk_size)
        found, by = search.eigenpairs(products, start), products.by
    else:
        which: Which = "largest" if search.definition == "largest" else "magnitude"
        budget: dict[str, Any] = {"tol": search.tol, "max_iterations": search.max_products, "seed": search.seed}
        found, by = pyhessian(problem, block, top=search.top, which=which, **budget), "autograd"
    return SharpnessResult.of(
        found,
        search,
        block,
        samples=problem.batch,
        regularised=problem.loss.regularised,
        seconds=time.perf_counter() - began,
        products_by=by,
        surrogate=problem.network.neuron.spiking,
    )
