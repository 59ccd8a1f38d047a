"""PyHessian as an independent second opinion, fenced.

PyHessian finds the eigenvalue of largest magnitude, with its sign, by power iteration in the network's dtype, and
further ones by deflation. What it does to its surroundings stays in here:
    it switches the model to eval mode and leaves a graph in every .grad   the model is one parameter θ [P] of its
                                                                           own; the network is no part of it
    that graph leaks, since θ and its .grad hold each other                .grad is set to None at every product
    it draws from the global random state                                  seeded, and put back
    it weights batches by size(0), which is T for time-major data          one batch, never a loader
    it defaults to CUDA                                                    cuda=False
    it warns of the leak above                                             silenced, that one warning only
    its trace() ends after two probes where the trace is negative          its stop is switched off: it takes all probes
    its density() calls torch.eig, which is gone                           eigh in its place, inside that module only
It is imported only when used. It stops when the eigenvalue, not the vector, changes by less than `tol`: a residual of
about √tol·|λ| is then usual, and its default 1e-3 has left errors of 0.4 to 3 % on trained networks.

Reference: Z. Yao, A. Gholami, K. Keutzer, M. W. Mahoney, PyHessian: Neural networks through the lens of the
Hessian, IEEE Big Data (2020).
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bpgen.curvature.block import Block, BlockProblem
from bpgen.curvature.eigenpairs import Eigenpairs, Which
from bpgen.curvature.products import HessianProducts, Products
from bpgen.errors import BpgenError, require
from bpgen.problem import Problem
from bpgen.streams import generator


def pyhessian(
    problem: Problem,
    block: Block = "W_rec",
    *,
    top: int = 1,
    which: Which = "magnitude",
    tol: float = 1e-3,
    max_iterations: int = 100,
    seed: int = 0,
) -> Eigenpairs:
    """The `top` largest eigenvalues as PyHessian finds them, with residuals of our own.

    The "largest" algebraic ones are those of largest magnitude of H + |λ_m| I, with λ_m the eigenvalue of largest
    magnitude: nothing negative is left there. The shift is added to the loss as ½ |λ_m| ‖θ‖².

    Args:
        problem, block: as for `HessianProducts`; on the CPU.
        top: how many eigenvalues.
        which: "magnitude", PyHessian's own, with signs; or "largest".
        tol: relative change of the eigenvalue between two iterations at which PyHessian stops.
        max_iterations: PyHessian's maxIter, for each eigenvalue.
        seed: of its starting vectors.

    Returns:
        `Eigenpairs`, where `converged` means what it means for Lanczos: residuals within tol·|λ|.

    Raises:
        BpgenError: tensors that are not on the CPU, or a block as for `HessianProducts`.
    """
    on_cpu = problem.x.device.type == "cpu"
    require(on_cpu, f"backend 'pyhessian' runs on the CPU, the data is on {problem.x.device}.")
    products = HessianProducts(problem, block)
    require(1 <= top <= products.size, f"top must be in 1..{products.size}, got {top}.")
    model = BlockModel(problem, block)

    def eigenpairs(n: int, shift: float = 0.0) -> tuple[Tensor, Tensor]:
        model.shift = shift
        values, vectors = power_iteration(model, n, tol, max_iterations, seed)
        return values - shift, vectors

    values, vectors = eigenpairs(top if which == "magnitude" else 1)
    if which == "largest" and (top > 1 or values[0] < 0):
        values, vectors = eigenpairs(top, abs(values[0].item()))
    vectors = nn.functional.normalize(vectors)
    residuals = (products(vectors) - values.unsqueeze(1) * vectors).norm(dim=1)
    order = (values if which == "largest" else values.abs()).argsort(descending=True)
    converged = bool((residuals <= tol * values.abs()).all())
    return Eigenpairs(values[order], vectors[order], residuals[order], model.products + top, converged)


class BlockModel(nn.Module):
    """A problem as a model of one parameter θ [P], the free entries of a block; all other weights are constants.

    shift: σ, of H + σ I.
    h: activities of the last run, which a regulariser of the activity is taken over.
    products: how often PyHessian asked for one; it clears the gradients before each.
    """

    def __init__(self, problem: Problem, block: Block) -> None:
        super().__init__()
        self._at, self.shift, self.products = BlockProblem(problem, block), 0.0, 0
        self.problem = self._at.problem  # holds the network, which is no child: eval() and zero_grad() do not reach it
        with torch.inference_mode(False):
            self.theta = nn.Parameter(self._at.theta)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs at θ; PyHessian hands in the whole batch."""
        self._now = self._at.at(self.theta)
        run = self._now.run(in_place=False)
        self.h = run.h
        return run.outputs

    def criterion(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The whole loss plus ½ σ ‖θ‖²."""
        value = self.problem.loss.total(outputs, target, self._now.params, self.h)
        return value + 0.5 * self.shift * self.theta.square().sum()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear .grad, and count."""
        self.products += 1
        super().zero_grad(set_to_none)


def model_of(operator: Products) -> BlockModel:
    """What an operator is the Hessian of, for PyHessian to take its own products of.

    Raises:
        BpgenError: an operator of another kind, of a part of the Hessian, or not on the CPU.
    """
    if not isinstance(operator, HessianProducts) or operator.part != "hessian":
        raise BpgenError("backend 'pyhessian' takes HessianProducts of the whole Hessian and nothing else.")
    require(operator.problem.x.device.type == "cpu", "backend 'pyhessian' runs on the CPU only.")
    return BlockModel(operator.problem, operator.block)


def power_iteration(model: BlockModel, n: int, tol: float, max_iterations: int, seed: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues [n] and vectors [n,P] in float64, with everything global put back afterwards."""
    with _fenced(model, seed) as power:
        values, vectors = power.eigenvalues(maxIter=max_iterations, tol=tol, top_n=n)
    return torch.tensor(values, dtype=torch.float64), torch.stack([v[0].detach() for v in vectors]).double()


def quadratic_forms(model: BlockModel, probes: int, seed: int) -> Tensor:
    """vᵀ H v [probes] of random signs v, whose mean estimates the trace (Hutchinson), in float64."""
    with _fenced(model, seed) as hutchinson:
        return torch.tensor(hutchinson.trace(maxIter=probes, tol=-math.inf), dtype=torch.float64)


def quadrature(model: BlockModel, steps: int, probes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Nodes, ascending, and weights [probes,steps] of its stochastic Lanczos quadrature, in float64."""
    with _fenced(model, seed) as lanczos, _eig():
        nodes, weights = lanczos.density(iter=steps, n_v=probes)
    return torch.tensor(nodes, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64)


@contextmanager
def _fenced(model: BlockModel, seed: int) -> Iterator[Any]:
    """PyHessian on that model, with everything global put back afterwards."""
    from pyhessian import hessian

    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.random.fork_rng(devices=[]),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Using backward\\(\\) with create_graph=True", UserWarning)
        torch.default_generator.manual_seed(generator(seed, "pyhessian").initial_seed())
        try:
            yield hessian(model, model.criterion, data=(model.problem.x, model.problem.target), cuda=False)
        finally:
            model.theta.grad = None


@contextmanager
def _eig() -> Iterator[None]:
    """PyHessian's module sees a torch whose `eig` is that of symmetric matrices; nobody else does."""

    class Torch:
        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

        def eig(self, T: Tensor, eigenvectors: bool) -> tuple[Tensor, Tensor]:
            values, vectors = torch.linalg.eigh(T.double())
            return torch.stack([values, torch.zeros_like(values)], dim=1), vectors

    module: Any = sys.modules["pyhessian.hessian"]
    module.torch = Torch()
    try:
        yield
    finally:
        module.torch = torch
