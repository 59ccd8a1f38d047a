"""Flatness beyond λ_1, which changes when the weights are rescaled without changing the network (Dinh 2017).

For a loss L and the free weights θ [P] of a block, H its Hessian, T = diag|θ|:
    lambda_theta   λ_1 ‖θ‖²                                        unchanged by one common factor on θ alone
    top_mass       Σ_{i<=k} λ_i / tr H                             how much of the curvature is in k directions
    adaptive       λ_1(T H T): second order of ASAM, Kwon et al. 2021, with its elementwise T_w = diag|w|
    fisher_rao     θᵀ F θ = (1/B) Σ_b <∇ℓ_b, θ>², F the empirical Fisher information: the squared
                   norm of Liang et al. 2019. ℓ_b is the loss of one sequence, without regulariser
    worst_case     max_{‖ε‖ <= r} L(θ + ε) - L(θ), Foret et al. 2021 (SAM); with ε = T u, ‖u‖ <= r, Kwon's
    under_noise    E L(θ + σ ξ) - L(θ), ξ standard normal: the expected sharpness of Neyshabur et al. 2017; with
                   σ T ξ relative to the size of each weight, as in Jiang et al. 2020
With ReLU neurons, currents and readout of a neuron can be scaled by c and 1/c: the function is the same, θ and H are
not. `adaptive`, `fisher_rao` of all weights, and the elementwise versions of the last two do not notice; λ_1, tr H,
λ_1 ‖θ‖² and the plain ball do. (A regulariser is part of L, and does notice: measure without it.)
For spiking neurons H and all gradients are the surrogate network's, while L in the last two is the true, jumping loss.

References: L. Dinh et al., Sharp minima can generalize for deep nets, ICML 2017; J. Kwon et al., ASAM, ICML 2021;
T. Liang et al., Fisher-Rao metric, geometry, and complexity of neural networks, AISTATS 2019; P. Foret et al.,
Sharpness-aware minimization, ICLR 2021; B. Neyshabur et al., Exploring generalization in deep learning, NeurIPS 2017;
Y. Jiang et al., Fantastic generalization measures and where to find them, ICLR 2020; M. Journée et al., Generalized
power method for sparse PCA, JMLR 11 (2010) 517.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bpgen.curvature.eigenpairs import lanczos
from bpgen.curvature.products import Products
from bpgen.errors import require
from bpgen.streams import generator

Value = Callable[[Tensor], Tensor]  # θ [P] float64 -> 0-d, differentiable, as `BlockProblem.value`


class Noisy(NamedTuple):
    """A mean over random draws, and its standard error."""

    mean: float
    error: float


class Scaled:
    """T H T for H given by its products and a diagonal T [P]."""

    def __init__(self, products: Products, scale: Tensor) -> None:
        self.size, self.precision = products.size, products.precision
        self._products, self._scale = products, scale

    def __call__(self, v: Tensor) -> Tensor:
        """T H T v."""
        return self._scale * self._products(self._scale * v)


def adaptive(
    products: Products, theta: Tensor, *, tol: float = 1e-4, max_products: int = 300, seed: int = 0
) -> tuple[float, float]:
    """λ_1(T H T) with T = diag|θ|, and its residual.

    Args:
        products: of H.
        theta: the weights [P] that H is taken at.
        tol, max_products, seed: as for `lanczos`.
    """
    pairs = lanczos(Scaled(products, theta.abs().double()), tol=tol, max_products=max_products, seed=seed)
    return float(pairs.eigenvalues[0]), float(pairs.residuals[0])


def lambda_theta(lambda_max: float, theta: Tensor) -> float:
    """λ_1 ‖θ‖²."""
    return lambda_max * float(theta.double().square().sum())


def top_mass(eigenvalues: Tensor, trace: float) -> float:
    """Σ λ_i / tr H of the given eigenvalues; nan unless tr H > 0, where it would mean nothing."""
    return float(eigenvalues.sum()) / trace if trace > 0 else float("nan")


def fisher_rao(per_sample: Value, theta: Tensor) -> float:
    """(1/B) Σ_b <∇ℓ_b, θ>² over the block's weights, by one pass in forward mode.

    Args:
        per_sample: θ -> ℓ [B], as `BlockProblem.per_sample`.
        theta: the weights [P].
    """
    with torch.inference_mode(False):
        along = torch.func.jvp(per_sample, (theta,), (theta,))[1]
    return float(along.square().mean())


def worst_case(
    value: Value, theta: Tensor, radius: float = 0.05, *, elementwise: bool = False, steps: int = 20, seed: int = 0
) -> float:
    """The largest L(θ + ε) - L(θ) found in a ball of a given radius: a lower bound of the true maximum.

    ε ← r ∇L(θ+ε)/‖∇L(θ+ε)‖ (the generalized power method; where L is convex along the way no step goes down). From
    ε = 0 its first step is SAM's own ε. It starts at random where the gradient is zero.

    Args:
        value: L.
        theta: the weights [P].
        radius: r.
        elementwise: ε = |θ| u with ‖u‖ <= r (ASAM).
        steps: gradients taken; 1 is SAM's approximation.
        seed: of the random start.
    """
    require(radius > 0, f"the radius must be > 0, got {radius}.")
    require(steps >= 1, f"the number of steps must be positive, got {steps}.")
    with torch.inference_mode(False), torch.enable_grad():
        theta = theta.detach().clone()
        scale = theta.abs() if elementwise else torch.ones_like(theta)
        start = float(value(theta))
        epsilon, best = torch.zeros_like(theta), -float("inf")
        for _ in range(steps):
            gradient = scale * torch.func.grad(value)(theta + epsilon)
            if gradient.norm() == 0:
                gradient = torch.randn(len(theta), generator=generator(seed, "ball"), dtype=torch.float64).to(theta)
            epsilon = scale * gradient * (radius / gradient.norm())
            best = max(best, float(value(theta + epsilon)))
    return best - start


def under_noise(
    value: Value, theta: Tensor, sigma: float = 0.01, *, elementwise: bool = False, draws: int = 20, seed: int = 0
) -> Noisy:
    """The mean of L(θ + σ ξ) - L(θ) with its standard error.

    Every ξ is used with both signs, which removes the gradient's share of the variance without a bias.

    Args:
        value: L.
        theta: the weights [P].
        sigma: σ.
        elementwise: noise relative to each weight, σ |θ| ξ.
        draws: how many pairs of ξ.
        seed: of ξ.
    """
    require(sigma > 0, f"sigma must be > 0, got {sigma}.")
    require(draws >= 2, f"the number of draws must be at least 2, got {draws}.")
    random = generator(seed, "weight noise")
    with torch.no_grad():
        start, scale = value(theta), sigma * (theta.abs() if elementwise else torch.ones_like(theta))
        rises = []
        for _ in range(draws):
            shift = scale * torch.randn(len(theta), generator=random, dtype=torch.float64).to(theta)
            rises.append(0.5 * (value(theta + shift) + value(theta - shift)) - start)
        rise = torch.stack(rises)
    return Noisy(float(rise.mean()), float(rise.std() / draws**0.5))
