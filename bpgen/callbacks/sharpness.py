"""Sharpness along training: the leading eigenvalue of the Hessian of the true loss, never of the truncated one.

The true loss of a spiking network is piecewise constant in its recurrent weights. What is measured there is the
curvature of the surrogate network (`bpgen.neurons.surrogate`), under names of its own, sharpness/surrogate/...; the
columns of the true loss stay empty.
"""

from __future__ import annotations

from typing import Literal

from bpgen.callbacks.measurement import Measurement, Moment, problem_of, size_of
from bpgen.curvature import Search, SharpnessResult, eigenvalues
from bpgen.errors import require
from bpgen.tasks import Task
from bpgen.training.module import RuleTraining


class Sharpness(Measurement):
    """Leading Hessian eigenvalue of the true loss on a fixed subset of the training data, with its residual.

    Args:
        samples: size of the fixed random training subset; 0 switches the measurement off.
        block: W_rec (as in Liu 2022) or all trained parameters. Stability bounds such as 2/η speak of all.
        tol: relative tolerance of the eigenvalue.
        max_products: most Hessian-vector products per evaluation.
        regulariser: whether the Hessian contains the regularisers; L2 adds its coefficient to every eigenvalue.
        released: also log sharpness/released, the definition of the released code of Liu 2022: the largest |λ| for
            W_rec, L2 inside, on 256 validation samples.
    """

    name = "sharpness"

    def __init__(
        self,
        samples: int = 512,
        block: Literal["W_rec", "all"] = "W_rec",
        tol: float = 1e-4,
        max_products: int = 300,
        regulariser: bool = True,
        released: bool = False,
    ) -> None:
        super().__init__()
        self.samples = size_of("sharpness.samples", samples) or 0
        require(tol > 0, f"sharpness.tol must be > 0, got {tol}.")
        require(max_products >= 2, f"sharpness.max_products must be at least 2, got {max_products}.")
        self.block, self.tol, self.max_products = block, tol, max_products
        self.regulariser, self.released = regulariser, released

    @property
    def enabled(self) -> bool:
        """Switched off by samples = 0."""
        return self.samples > 0

    def check(self, module: RuleTraining, task: Task) -> None:
        """See that the block has a weight that acts."""
        mask = module.network.rec_mask
        require(
            mask is None or bool(mask.any()) or (self.block == "all" and not self.released),
            "the network has no recurrent weight that acts: measure --sharpness.block all, or give it more neurons.",
        )

    def describe(self, task: Task) -> str:
        """Block, subset, definition, and whether it is of the surrogate network."""
        whole = task.split("train").size
        of = "Hessian eigenvalue of the surrogate network" if self.spiking else "Hessian eigenvalue"
        return (
            f"sharpness: largest {of}, block {self.block}, {min(self.samples, whole)} of {whole} train "
            f"samples, regularisers {'inside' if self.regulariser else 'left out'}"
        )

    def measure(self, moment: Moment) -> dict[str, float | int]:
        """λ_max, its residual ‖Hv - λv‖ and the number of products; of the surrogate network where neurons spike."""
        result = self._eigenvalue(moment, "largest")
        name = "sharpness/surrogate" if moment.module.network.neuron.spiking else "sharpness"
        row: dict[str, float | int] = {
            f"{name}/lambda_max": float(result.eigenvalues[0]),
            f"{name}/residual": float(result.residuals[0]),
            f"{name}/products": result.products,
        }
        if self.released:
            row[f"{name}/released"] = float(self._eigenvalue(moment, "released").eigenvalues[0])
        return row

    def _eigenvalue(self, moment: Moment, definition: Literal["largest", "released"]) -> SharpnessResult:
        """From a cold start: a warm one that is as safe costs as many products (see `bpgen.curvature.eigenpairs`)."""
        released, module = definition == "released", moment.module
        split = self.subset(moment, "val", 256) if released else self.subset(moment, "train", self.samples)
        loss = module.loss if self.regulariser or released else module.loss.without_regulariser()
        search = Search(1, self.tol, module.seed, definition, self.max_products)
        return eigenvalues(problem_of(module, split, loss), "W_rec" if released else self.block, search)
