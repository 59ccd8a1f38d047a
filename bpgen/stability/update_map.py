"""A learning rule as a dynamical system: is the minimum it sits in stable under its own updates?

Training moves the trained weights θ by θ ← θ - η ĝ(θ), with ĝ the rule's gradient and g the true one. Around a fixed
point it is the linear map I - η Dĝ, stable if |1 - η μ| < 1 for every eigenvalue μ of Dĝ = ∂ĝ/∂θ.
    BPTT    Dĝ is the Hessian H, and λ_1 < 2/η is the condition.
    Theorem (Liu et al. 2022, in the setting: one example, loss at one time, scalar output, squared loss, zero
            residual). With J the gradient of the output and Ĵ = ρ J + e, e ⟂ J, what the rule makes of it:
            H = J Jᵀ, Dĝ = Ĵ Jᵀ. Its only nonzero eigenvalue is <Ĵ,J> = ρ λ_1, whatever e: stable if
            0 < λ_1 < 2/(η ρ).
    Else    Dĝ is any matrix: it need not be symmetric, its eigenvalues may be complex, and e matters. What
            replaces ρ along the leading eigenvector v_1 of H is ρ_1 = v_1ᵀ Dĝ v_1 / λ_1 (`rho_directional`), and
            what decides is max |1 - η μ|.
Eigenvalues μ of Dĝ are asked for, not those of I - η Dĝ, nearly all of which are 1. Products with Dĝ and its
transpose come from differentiating the rule's explicit gradient; all numbers are float64, of the noise-free
network, and of all trained parameters. Momentum β turns μ into the two roots z of z² - (1 + β - η μ) z + β = 0, and
2/η into 2(1+β)/η (Polyak 1964; Cohen et al. 2021).

Not covered: learning rates that differ by weight, Adam, clipping. For spiking neurons everything is said of the
surrogate network (`bpgen.neurons.surrogate`).

Reference: Y. H. Liu et al., Beyond accuracy: generalization properties of bio-plausible temporal credit assignment
rules, NeurIPS 2022; J. M. Cohen et al., Gradient descent on neural networks typically occurs at the edge of stability,
ICLR 2021; B. T. Polyak, USSR Comput. Math. Math. Phys. 4 (1964) 1-17.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bpgen.curvature import Search, eigenvalues
from bpgen.curvature.arnoldi import arnoldi
from bpgen.errors import require
from bpgen.given import problem_of
from bpgen.losses import L2, Activity, Loss, LossName, When
from bpgen.network import Network
from bpgen.rules import Rule, rule_of
from bpgen.stability.alignment import alignment, ratio
from bpgen.stability.jacobian import RuleJacobian
from bpgen.streams import generator


@dataclass(frozen=True)
class StabilityResult:
    """How a rule's updates behave around the present weights.

    rho, cosine, orthogonal: <ĝ,g>/‖g‖², <ĝ,g>/(‖ĝ‖‖g‖), ‖ĝ-ρg‖/‖g‖.
    unit_error: whether these three are of gradients for an output error of 1, because the residual is zero.
    overlap: cosine between ĝ and v_1.
    lambda_max, lambda_residual: λ_1 of the Hessian over all trained parameters, and its residual.
    rho_directional: ρ_1 = v_1ᵀ Dĝ v_1 / λ_1.
    mu, mu_residuals: leading eigenvalues of Dĝ [k] complex128 by descending |μ|, with the one that decides; ‖Dĝu-μu‖.
    max_multiplier: max |1 - η μ| over these, those that are zero (to tol·max|μ|) excepted; max |z| with momentum.
    bound, bound_rho: 2(1+β)/η, and 2(1+β)/(η ρ_1); the latter is nan for ρ_1 <= 0, where no curvature is stable.
    edge, edge_rho: λ_1 and λ_1 ρ_1 over `bound`: 1 is the edge of stability.
    asymmetry: ‖Dĝ - Dĝᵀ‖_F; exact if there were as many probes as parameters, else estimated.
    asymmetry_fraction: the antisymmetric part's share ‖Dĝ-Dĝᵀ‖/2‖Dĝ‖, from 0 (a gradient flow) to 1.
    lr, momentum: η and β.
    samples: B. parameters: P, the number of weights that can act. surrogate: whether the neurons spike.
    regularised: whether the loss contained a regulariser.
    converged: whether λ_1 and all μ were found to the tolerance asked for.
    products: with H, Dĝ and Dĝᵀ together. seconds: how long it took.
    """

    rho: float
    cosine: float
    orthogonal: float
    unit_error: bool
    overlap: float
    lambda_max: float
    lambda_residual: float
    rho_directional: float
    mu: Tensor
    mu_residuals: Tensor
    max_multiplier: float
    bound: float
    bound_rho: float
    edge: float
    edge_rho: float
    asymmetry: float
    asymmetry_fraction: float
    lr: float
    momentum: float
    samples: int
    parameters: int
    surrogate: bool
    regularised: bool
    converged: bool
    products: int
    seconds: float


def stability(
    rule: Rule | str,
    network: Network,
    x: Tensor,
    target: Tensor,
    loss: LossName = "cross_entropy",
    when: When = "last",
    mask: Tensor | None = None,
    initial_state: Tensor | None = None,
    regulariser: L2 | float | Mapping[str, float] | None = None,
    activity: Activity | float | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    top: int = 6,
    tol: float = 1e-6,
    max_products: int = 200,
    probes: int = 10,
    seed: int = 0,
    lengths: Tensor | None = None,
) -> StabilityResult:
    """How `rule` with learning rate `lr` behaves around the network's present weights.

    Args:
        rule: a rule or its name.
        network: the network; it is left as found.
        x: inputs [T,B,I].
        target: int64 [B] (last) or [T,B] (all) for cross-entropy; float [B,O] or [T,B,O] for mse.
        loss, when: "cross_entropy", "binary_cross_entropy" or "mse" (½ Σ_o (y-y*)²); at the "last" step or at "all".
        mask, initial_state: weights m [T,B] of the steps, only with "all", as for `bpgen.gradients`; s_0 [B,d,N].
        regulariser: an L2 coefficient for W_in, W_rec, W_out, or coefficients by weight; None adds nothing. It adds
            its coefficient to the eigenvalues of H and of Dĝ alike, whatever the rule.
        activity: an `Activity` that the loss contains, or the coefficient of its rate form; None adds nothing.
        lengths: steps of each sequence [B] where they differ: each is taken as if run by itself.
        lr, momentum: learning rate η, and β of heavy-ball momentum.
        top: how many eigenvalues μ.
        tol: accepted residuals relative to λ_1 and to the largest |μ|.
        max_products: budget of products with H, and again with Dĝ.
        probes: random vectors for the asymmetry; 0 leaves it out (nan).
        seed: of starting vectors, probes, the rule's draws, and feedback weights that are not drawn yet.

    Raises:
        BpgenError: a shape or option that does not fit, or a rule whose gradient cannot be differentiated.
    """
    given = Loss.of(loss, when, mask, regulariser, activity), initial_state, lengths
    problem, bound = problem_of(network, x, target, *given), rule_of(rule)
    bound.bind(network, seed)
    jacobian = RuleJacobian(bound, problem, bound.draw(network, problem.x, generator(seed, "draws")))
    search = Search(top, tol, seed, max_products=max_products)
    return analyse(jacobian, search, lr=lr, momentum=momentum, probes=probes)


def analyse(
    jacobian: RuleJacobian, search: Search | None = None, *, lr: float, momentum: float = 0.0, probes: int = 10
) -> StabilityResult:
    """`stability` of a rule whose Jacobian is at hand: what measurements call.

    Args:
        jacobian: of the rule.
        search: how many eigenvalues μ and how hard; None is six, to 1e-6, in at most 200 products.
        lr, momentum, probes: as for `stability`, and so are the errors.
    """
    began = time.perf_counter()
    _check(lr, momentum, probes)
    j, search = jacobian, search or Search(6, 1e-6, max_products=200)
    sharp = eigenvalues(j.problem, j.names, replace(search, top=1, definition="largest"))
    value, v_1 = float(sharp.eigenvalues[0]), sharp.vectors[0]
    estimate, true, unit_error = j.gradients()
    along = float(v_1 @ j(v_1)) / value if value else math.nan
    budget: dict[str, Any] = {"tol": search.tol, "max_products": search.max_products, "seed": search.seed}
    ritz = arnoldi(j, j.size, search.top, far_from=1 / lr, **budget)
    alive = ritz.eigenvalues[ritz.eigenvalues.abs() > search.tol * ritz.eigenvalues.abs().max()]
    bound = 2 * (1 + momentum) / lr
    asymmetry, fraction = _asymmetry(j, probes, search.seed)
    return StabilityResult(
        **alignment(estimate, true),
        unit_error=unit_error,
        overlap=ratio(estimate @ v_1, estimate.norm()),
        lambda_max=value,
        lambda_residual=float(sharp.residuals[0]),
        rho_directional=along,
        mu=ritz.eigenvalues,
        mu_residuals=ritz.residuals,
        max_multiplier=float(multipliers(alive, lr, momentum).max()) if len(alive) else math.nan,
        bound=bound,
        bound_rho=bound / along if along > 0 else math.nan,
        edge=value / bound,
        edge_rho=value * along / bound,
        asymmetry=asymmetry,
        asymmetry_fraction=fraction,
        lr=lr,
        momentum=momentum,
        samples=j.problem.batch,
        parameters=j.size,
        surrogate=j.problem.network.neuron.spiking,
        regularised=j.problem.loss.regularised,
        converged=sharp.converged and ritz.converged,
        products=sharp.products + j.products,
        seconds=time.perf_counter() - began,
    )


def _check(lr: float, momentum: float, probes: int) -> None:
    """See that the options are in their range.

    Raises:
        BpgenError: one is not.
    """
    require(lr > 0, f"lr must be > 0, got {lr}.")
    require(0 <= momentum < 1, f"momentum must be in [0, 1), got {momentum}.")
    require(probes >= 0, f"probes must be >= 0, got {probes}.")


def multipliers(mu: Tensor, lr: float, momentum: float = 0.0) -> Tensor:
    """|1 - η μ|, or max |z| over the roots of z² - (1 + β - η μ) z + β = 0, for eigenvalues μ of Dĝ."""
    if momentum == 0:
        return (1 - lr * mu).abs()
    half = (1 + momentum - lr * mu) / 2
    root = (half.square() - momentum).sqrt()
    return torch.maximum((half + root).abs(), (half - root).abs())


def _asymmetry(jacobian: RuleJacobian, probes: int, seed: int) -> tuple[float, float]:
    """‖Dĝ - Dĝᵀ‖_F and its share, from E‖M z‖² = ‖M‖_F² for random signs z; exact with all unit vectors."""
    if probes == 0:
        return math.nan, math.nan
    exact, P = probes >= jacobian.size, jacobian.size
    random = generator(seed, "asymmetry")
    z = torch.eye(P) if exact else 2.0 * torch.randint(2, (probes, P), generator=random) - 1
    forward = torch.stack([jacobian(v) for v in z.to(jacobian.theta)])
    back = torch.stack([jacobian.transposed(v) for v in z.to(jacobian.theta)])
    scale = 1.0 if exact else 1 / probes
    odd, even = (scale * (forward - back).square().sum()).sqrt(), (scale * (forward + back).square().sum()).sqrt()
    return float(odd), ratio(odd, (odd.square() + even.square()).sqrt())
