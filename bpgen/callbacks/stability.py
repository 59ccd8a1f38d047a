"""Stability along training: is the rule at the edge of what its learning rate can hold (`bpgen.stability`)?

All numbers are of the loss on a fixed training subset and of all trained parameters. With the whole training set as
batch and as subset they are those of the map that training iterates; with smaller batches of that map's mean.
"""

from __future__ import annotations

from typing import Any

from bpgen.callbacks.evaluation import Evaluation, Metrics
from bpgen.callbacks.measurement import Measurement, size_of
from bpgen.columns import Column, with_surrogates
from bpgen.curvature import Search
from bpgen.errors import require
from bpgen.stability import RuleJacobian, analyse

_CURVATURE = "loss per weight²"
_DRAWN: dict[str, Any] = {"unit": _CURVATURE, "panel": "stability", "optional": True}


class Stability(Measurement):
    """Leading eigenvalues of the rule's own update, against the bounds 2/η and 2/(ηρ) on the curvature.

    Args:
        samples: size of the fixed random training subset; 0 switches the measurement off. Some 100 products, each
            about as long as two gradients of these samples.
        top: how many eigenvalues of the rule's Jacobian are found beside the one that decides.
        tol: relative tolerance of eigenvalues.
        max_products: most products per evaluation with the Hessian, and again with the rule's Jacobian.
        probes: random vectors for the asymmetry of the rule's Jacobian; 0 leaves it out.
        regulariser: whether the loss contains its regularisers, as it does in training.
    """

    name = "stability"
    columns = with_surrogates(
        Column("stability/rho", "ρ", optional=True),
        Column("stability/rho_directional", "ρ_1", optional=True),
        Column("stability/cosine", "cosine of the rule's gradient and the true one", optional=True),
        Column("stability/orthogonal", "what is orthogonal to the true one", optional=True),
        Column("stability/lambda_max", "λ_1", **_DRAWN),
        Column("stability/residual", "residual of λ_1", _CURVATURE, optional=True),
        Column("stability/mu_abs", "|μ_1|", **_DRAWN),
        Column("stability/mu_real", "real part of μ_1", _CURVATURE, optional=True),
        Column("stability/mu_imag", "imaginary part of μ_1", _CURVATURE, optional=True),
        Column("stability/max_multiplier", "max |1-ημ|", optional=True),
        Column("stability/bound", "2/η", **_DRAWN),
        Column("stability/bound_rho", "2/(ηρ_1)", **_DRAWN),
        Column("stability/edge", "λ_1 over 2/η: 1 is the edge of stability", optional=True),
        Column("stability/edge_rho", "λ_1 ρ_1 over 2/η", optional=True),
        Column("stability/asymmetry", "asymmetry of the rule's Jacobian", _CURVATURE, optional=True),
        Column("stability/asymmetry_fraction", "asymmetric part's share", "fraction", optional=True),
        Column("stability/products", "products with Hessian and Jacobian", "products", optional=True),
    )

    def __init__(
        self,
        samples: int = 0,
        top: int = 2,
        tol: float = 1e-3,
        max_products: int = 200,
        probes: int = 4,
        regulariser: bool = True,
    ) -> None:
        self.samples = size_of("stability.samples", samples)
        require(top >= 1, f"stability.top must be positive, got {top}.")
        require(0 < tol < 1, f"stability.tol must be between 0 and 1, got {tol}.")
        require(max_products >= 2, f"stability.max_products must be at least 2, got {max_products}.")
        require(probes >= 0, f"stability.probes must be >= 0, got {probes}.")
        self.top, self.tol, self.max_products, self.probes = top, tol, max_products, probes
        self.regulariser = regulariser

    @property
    def enabled(self) -> bool:
        """Switched on by samples > 0."""
        return self.samples > 0

    def describe(self, evaluation: Evaluation) -> str:
        """Subset, and what is left out."""
        of = "updates of the surrogate network" if evaluation.spiking else "updates"
        return (
            f"stability: of the rule's {of}, all trained weights, "
            f"{evaluation.splits.described('train', self.samples)} samples, "
            f"{evaluation.regularisers(self.regulariser)}"
        )

    def check(self, evaluation: Evaluation) -> None:
        """Find out before training what would fail in it: another optimizer, or a rule that cannot be differentiated.

        Raises:
            BpgenError: with the reason.
        """
        optimizer = evaluation.module.optimizer
        one_rate = all(scale in (0, 1) for scale in (optimizer.lr_scale or {}).values())
        require(
            optimizer.name == "sgd" and one_rate,
            "stability.samples needs --optimizer.name sgd and one learning rate: lr_scale may only freeze, by 0.",
        )
        self._jacobian(evaluation, 2)

    def measure(self, evaluation: Evaluation) -> Metrics:
        """The numbers of `StabilityResult`; of the surrogate network where neurons spike."""
        module = evaluation.module
        result = analyse(
            self._jacobian(evaluation, self.samples),
            Search(self.top, self.tol, module.seed, max_products=self.max_products),
            lr=evaluation.lr,
            momentum=module.optimizer.momentum,
            probes=self.probes,
        )
        leading = complex(result.mu[0])
        row: Metrics = {key: getattr(result, key) for key in ("rho", "rho_directional", "cosine", "orthogonal")}
        row |= {"lambda_max": result.lambda_max, "residual": result.lambda_residual}
        row |= {"mu_abs": abs(leading), "mu_real": leading.real, "mu_imag": abs(leading.imag)}
        further = ("max_multiplier", "bound", "bound_rho", "edge", "edge_rho", "asymmetry", "asymmetry_fraction")
        row |= {key: getattr(result, key) for key in (*further, "products")}
        return self.prefixed(row, result.surrogate)

    def _jacobian(self, evaluation: Evaluation, samples: int) -> RuleJacobian:
        module, split = evaluation.module, evaluation.training(samples)
        loss = module.loss if self.regulariser else module.loss.without_regulariser()
        problem, draws = module.problem(split, loss, "stability", evaluation.step)
        return RuleJacobian(module.rule, problem, draws, evaluation.block("all"))
