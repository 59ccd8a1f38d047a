"""Curvature as the optimizer sees it: the leading eigenvalue of the Hessian in the coordinates of its preconditioner.

An optimizer that divides the gradient by a diagonal P, θ <- θ - η P⁻¹ m, is gradient descent in the coordinates P^½ θ,
where the Hessian is
    (1) P^-½ H P^-½
and steps with momentum β are stable on a quadratic as long as its largest eigenvalue stays below
    (2) (2 + 2β) / η             heavy ball: m <- β m + g (Polyak 1964); β = 0 is 2/η
    (3) (2 + 2β) / ((1 - β) η)   running mean: m <- β m + (1-β) g; 38/η at β = 0.9 (Cohen et al. 2022, eq. 3)
Of Adam, with v the running mean of squared gradients after t steps,
    (4) P = (1 - β₁ᵗ) (√(v / (1 - β₂ᵗ)) + ε)         (Cohen et al. 2022, section 2)
The gradients behind v are those of the rule, H is the Hessian of the true loss. The factor `lr_scale` of a weight
divides its entries of P. (2) and (3) are bounds of steps along the true gradient: a rule with another one has bounds of
its own (the measurement `stability`).

References: B. T. Polyak, USSR Comput. Math. Math. Phys. 4 (1964) 1-17; J. M. Cohen et al., Adaptive gradient methods at
the edge of stability, arXiv 2207.14484 (2022).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bpgen.callbacks.evaluation import Evaluation, Metrics
from bpgen.callbacks.measurement import Measurement, size_of
from bpgen.columns import Column, with_surrogates
from bpgen.curvature import HessianProducts, Scaled, Search
from bpgen.errors import require


class Preconditioned(Measurement):
    """Sharpness in the optimizer's own coordinates, on a fixed subset of the training data, with the bound beside it.

    It says for Adam what λ_max against 2/η says for plain gradient descent; of all weights that are trained.

    Args:
        samples: size of the fixed random training subset; 0 switches the measurement off.
        tol: relative tolerance of the eigenvalue.
        max_products: most Hessian-vector products per evaluation.
    """

    name = "preconditioned"
    alone = True
    columns = with_surrogates(
        Column("preconditioned/lambda_max", "preconditioned λ_max", "1 / rate", "preconditioned", optional=True),
        Column("preconditioned/bound", "bound of stable steps", "1 / rate", "preconditioned", optional=True),
        Column("preconditioned/residual", "residual of the preconditioned λ_max", "1 / rate", optional=True),
    )

    def __init__(self, samples: int = 0, tol: float = 1e-3, max_products: int = 300) -> None:
        self.samples = size_of("preconditioned.samples", samples)
        require(0 < tol < 1, f"preconditioned.tol must be between 0 and 1, got {tol}.")
        require(max_products >= 2, f"preconditioned.max_products must be at least 2, got {max_products}.")
        self.tol, self.max_products = tol, max_products

    @property
    def enabled(self) -> bool:
        """Switched on by samples > 0."""
        return self.samples > 0

    def describe(self, evaluation: Evaluation) -> str:
        """Of which optimizer, and on which subset."""
        return (
            f"preconditioned: largest Hessian eigenvalue in the coordinates of {evaluation.module.optimizer.name}, "
            f"all trained weights, {evaluation.splits.described('train', self.samples)} samples"
        )

    def measure(self, evaluation: Evaluation) -> Metrics:
        """λ_max of (1), its residual, and (2) or (3); not a number before an optimizer's first step has made P."""
        names = evaluation.module.trained
        P = preconditioner(evaluation)
        row: Metrics = {"lambda_max": math.nan, "bound": bound(evaluation), "residual": math.nan}
        if P is not None:
            products = HessianProducts(evaluation.problem(evaluation.training(self.samples)), names)
            scale = products.free.gather({name: P[name] for name in names}).double().rsqrt()
            search = Search(1, self.tol, evaluation.module.seed, max_products=self.max_products)
            found = search.eigenpairs(Scaled(products, scale))
            row |= {"lambda_max": float(found.eigenvalues[0]), "residual": float(found.residuals[0])}
        return self.prefixed(row, evaluation.spiking)


def bound(evaluation: Evaluation) -> float:
    """Equation (2) or (3) at the present learning rate η."""
    optimizer = evaluation.module.optimizer
    if optimizer.name == "sgd":
        return (2 + 2 * optimizer.momentum) / evaluation.lr
    beta = _running(evaluation).param_groups[0]["betas"][0]
    return (2 + 2 * beta) / ((1 - beta) * evaluation.lr)


def preconditioner(evaluation: Evaluation) -> Mapping[str, Tensor] | None:
    """P of the trained weights, by name; None before the first step of Adam."""
    module, running = evaluation.module, _running(evaluation)
    names = {parameter: name for name, parameter in module.network.named_parameters()}
    scales, P = module.optimizer.lr_scale or {}, {}
    for group in running.param_groups:
        for parameter in group["params"]:
            name = names[parameter]
            if name not in module.trained:
                continue
            P[name] = torch.full_like(parameter, 1 / scales.get(name, 1.0))
            if module.optimizer.name == "adam":
                if parameter not in running.state:
                    return None
                P[name] *= _adam(running.state[parameter], group)
    return P


def _adam(state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    """Equation (4) of one weight."""
    (beta_1, beta_2), t = group["betas"], float(state["step"])
    return (1 - beta_1**t) * ((state["exp_avg_sq"] / (1 - beta_2**t)).sqrt() + group["eps"])


def _running(evaluation: Evaluation) -> torch.optim.Optimizer:
    """The optimizer of this training, which has one."""
    running = evaluation.module.optimizers(use_pl_optimizer=False)
    assert isinstance(running, torch.optim.Optimizer)
    return running
