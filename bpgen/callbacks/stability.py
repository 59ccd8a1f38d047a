"""Stability along training: is the rule at the edge of what its learning rate can hold (`bpgen.stability`)?

All numbers are of the loss on a fixed training subset and of all trained parameters. With the whole training set as
batch and as subset they are those of the map that training iterates; with smaller batches of that map's mean.
"""

from __future__ import annotations

from bpgen.callbacks.measurement import Measurement, Moment, size_of
from bpgen.curvature import Search
from bpgen.errors import require
from bpgen.stability import RuleJacobian, analyse
from bpgen.tasks import Task
from bpgen.training.module import RuleTraining


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

    def __init__(
        self,
        samples: int = 0,
        top: int = 2,
        tol: float = 1e-3,
        max_products: int = 200,
        probes: int = 4,
        regulariser: bool = True,
    ) -> None:
        super().__init__()
        self.samples = size_of("stability.samples", samples) or 0
        require(top >= 1, f"stability.top must be positive, got {top}.")
        require(tol > 0, f"stability.tol must be > 0, got {tol}.")
        require(max_products >= 2, f"stability.max_products must be at least 2, got {max_products}.")
        require(probes >= 0, f"stability.probes must be >= 0, got {probes}.")
        self.top, self.tol, self.max_products, self.probes = top, tol, max_products, probes
        self.regulariser = regulariser

    @property
    def enabled(self) -> bool:
        """Switched on by samples > 0."""
        return self.samples > 0

    def describe(self, task: Task) -> str:
        """Subset, and what is left out."""
        whole = task.split("train").size
        of = "updates of the surrogate network" if self.spiking else "updates"
        return (
            f"stability: of the rule's {of}, all trained weights, {min(self.samples, whole)} of {whole} train "
            f"samples, regularisers {'inside' if self.regulariser else 'left out'}"
        )

    def check(self, module: RuleTraining, task: Task) -> None:
        """Find out before training what would fail in it: another optimizer, or a rule that cannot be differentiated.

        Raises:
            BpgenError: with the reason.
        """
        plain = module.optimizer.name == "sgd" and not module.optimizer.lr_scale
        require(plain, "stability.samples needs --optimizer.name sgd and one learning rate, without lr_scale.")
        self._jacobian(Moment(module, task, 0.0, 0, module.optimizer.lr), 2)

    def measure(self, moment: Moment) -> dict[str, float | int]:
        """The numbers of `StabilityResult`; of the surrogate network where neurons spike."""
        module = moment.module
        result = analyse(
            self._jacobian(moment, self.samples),
            Search(self.top, self.tol, module.seed, max_products=self.max_products),
            lr=moment.lr,
            momentum=module.optimizer.momentum,
            probes=self.probes,
        )
        prefix = "stability/surrogate" if result.surrogate else "stability"
        leading = complex(result.mu[0])
        return {
            f"{prefix}/rho": result.rho,
            f"{prefix}/rho_directional": result.rho_directional,
            f"{prefix}/cosine": result.cosine,
            f"{prefix}/orthogonal": result.orthogonal,
            f"{prefix}/lambda_max": result.lambda_max,
            f"{prefix}/residual": result.lambda_residual,
            f"{prefix}/mu_abs": abs(leading),
            f"{prefix}/mu_real": leading.real,
            f"{prefix}/mu_imag": abs(leading.imag),
            f"{prefix}/max_multiplier": result.max_multiplier,
            f"{prefix}/bound": result.bound,
            f"{prefix}/bound_rho": result.bound_rho,
            f"{prefix}/edge": result.edge,
            f"{prefix}/edge_rho": result.edge_rho,
            f"{prefix}/asymmetry": result.asymmetry,
            f"{prefix}/asymmetry_fraction": result.asymmetry_fraction,
            f"{prefix}/products": result.products,
        }

    def _jacobian(self, moment: Moment, samples: int) -> RuleJacobian:
        module = moment.module
        split = self.subset(moment, "train", samples)
        loss = module.loss if self.regulariser else module.loss.without_regulariser()
        return RuleJacobian(module.rule, *module.problem(split, loss, "stability", moment.step))
