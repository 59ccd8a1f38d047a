"""Measures of the Hessian of the training loss, without regularisers; of the surrogate network where neurons spike."""

from __future__ import annotations

from bpgen.complexity.trained import TOL, Trained
from bpgen.curvature import HessianProducts, measures


def lambda_rec(net: Trained) -> float:
    """λ_1 of the block W_rec: the sharpness of Liu et al. 2022."""
    return net.largest_eigenvalue(HessianProducts(net.problem, "W_rec"))


def lambda_all(net: Trained) -> float:
    """λ_1 of all trained weights (Keskar et al. 2017, Jastrzębski et al. 2017)."""
    return net.lambda_max


def trace(net: Trained) -> float:
    """tr H of all trained weights, the sum of all curvatures (Dinh et al. 2017)."""
    return net.sketch.trace


def frobenius(net: Trained) -> float:
    """‖H‖_F of all trained weights, which the stability of SGD bounds (Wu, Wang & Su 2022)."""
    return net.sketch.frobenius


def lambda_theta(net: Trained) -> float:
    """λ_1 ‖θ‖² of all trained weights: one common factor on θ does not change it (`bpgen.curvature.measures`)."""
    return measures.lambda_theta(net.lambda_max, net.at.theta)


def adaptive(net: Trained) -> float:
    """λ_1 of T H T with T = diag|θ| (Kwon et al. 2021, ASAM to second order)."""
    return measures.adaptive(net.products, net.at.theta, tol=TOL, seed=net.seed)[0]


def fisher_rao(net: Trained) -> float:
    """θᵀ F θ, F the empirical Fisher information (Liang et al. 2019)."""
    return measures.fisher_rao(net.at.per_sample, net.at.theta)
