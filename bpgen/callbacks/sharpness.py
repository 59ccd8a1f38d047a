"""Sharpness along training: the leading eigenvalue of the Hessian of the true loss, never of the truncated one.

The true loss of a spiking network is piecewise constant in its recurrent weights. What is measured there is the
curvature of the surrogate network (`bpgen.neurons.surrogate`), under names of its own, sharpness/surrogate/...; the
columns of the true loss stay empty.
"""

from __future__ import annotations

import math
from typing import Literal

from bpgen.callbacks.evaluation import Evaluation, Metrics
from bpgen.callbacks.measurement import Measurement, size_of
from bpgen.columns import Column, with_surrogates
from bpgen.curvature import Search, SharpnessResult, eigenvalues
from bpgen.errors import require

_CURVATURE = "loss per weight²"


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
    columns = with_surrogates(
        Column("sharpness/lambda_max", "sharpness λ_max", _CURVATURE, "sharpness", "{:.4g}", brief="sharpness"),
        Column("sharpness/residual", "residual ‖Hv - λv‖ of λ_max", _CURVATURE),
        Column("sharpness/products", "Hessian products", "products"),
        Column("sharpness/released", "sharpness as in the released code", _CURVATURE, optional=True),
    )

    def __init__(
        self,
        samples: int = 512,
        block: Literal["W_rec", "all"] = "W_rec",
        tol: float = 1e-4,
        max_products: int = 300,
        regulariser: bool = True,
        released: bool = False,
    ) -> None:
        self.samples = size_of("sharpness.samples", samples)
        require(0 < tol < 1, f"sharpness.tol must be between 0 and 1, got {tol}.")
        require(max_products >= 2, f"sharpness.max_products must be at least 2, got {max_products}.")
        self.block, self.tol, self.max_products = block, tol, max_products
        self.regulariser, self.released = regulariser, released

    @property
    def enabled(self) -> bool:
        """Switched off by samples = 0."""
        return self.samples > 0

    def check(self, evaluation: Evaluation) -> None:
        """See that the block has a weight that acts."""
        mask = evaluation.network.rec_mask
        require(
            mask is None or bool(mask.any()) or (self.block == "all" and not self.released),
            "the network has no recurrent weight that acts: measure --sharpness.block all, or give it more neurons.",
        )

    def describe(self, evaluation: Evaluation) -> str:
        """Block, subset, definition, and whether it is of the surrogate network."""
        of = "Hessian eigenvalue of the surrogate network" if evaluation.spiking else "Hessian eigenvalue"
        return (
            f"sharpness: largest {of}, block {self.block}, {evaluation.splits.described('train', self.samples)} "
            f"samples, {evaluation.regularisers(self.regulariser)}"
        )

    def measure(self, evaluation: Evaluation) -> Metrics:
        """λ_max, its residual ‖Hv - λv‖ and the number of products; of the surrogate network where neurons spike."""
        result = self._eigenvalue(evaluation, "largest")
        assert result is not None
        row: Metrics = {
            "lambda_max": float(result.eigenvalues[0]),
            "residual": float(result.residuals[0]),
            "products": result.products,
        }
        if self.released:
            released = self._eigenvalue(evaluation, "released")
            row["released"] = math.nan if released is None else float(released.eigenvalues[0])
        return self.prefixed(row, evaluation.spiking)

    def _eigenvalue(self, evaluation: Evaluation, definition: Literal["largest", "released"]) -> SharpnessResult | None:
        """From a cold start: a warm one that is as safe costs as many products (see `bpgen.curvature.eigenpairs`)."""
        released = definition == "released"
        split = evaluation.subset("val", 256) if released else evaluation.training(self.samples)
        if split is None:
            return None
        problem = evaluation.problem(split, self.regulariser or released)
        search = Search(1, self.tol, evaluation.module.seed, definition, self.max_products)
        return eigenvalues(problem, "W_rec" if released else evaluation.block(self.block), search)
