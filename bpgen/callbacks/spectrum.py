"""Spectrum along training: the top eigenvalues of the Hessian, its trace, and what the rest of it looks like.

For spiking neurons it is that of the surrogate network, under spectrum/surrogate/...; see `Sharpness`.
"""

from __future__ import annotations

from typing import Literal

from bpgen.callbacks.evaluation import Evaluation, Metrics
from bpgen.callbacks.measurement import Measurement, size_of
from bpgen.columns import Column, with_surrogates
from bpgen.curvature import HessianProducts, Search, density, eigenvalues, participation, trace
from bpgen.curvature.measures import top_mass
from bpgen.errors import require


class Spectrum(Measurement):
    """Top eigenvalues, trace and spectral density of the Hessian of the true loss, and the neurons behind λ_1.

    Args:
        samples: size of the fixed random training subset; 0 switches the measurement off.
        block: W_rec or all trained parameters.
        top: how many eigenvalues.
        tol: relative tolerance of the eigenvalues.
        max_products: most Hessian-vector products per evaluation for the eigenvalues.
        trace_products: products for the trace (Hutch++), at least 6; 0 leaves it out.
        density_probes: random vectors for the number of negative eigenvalues, of 32 products each; 0 leaves it out.
        regulariser: whether the Hessian contains the regularisers.
    """

    name = "spectrum"
    columns = with_surrogates(
        Column("spectrum/lambda_1", "λ_1; further ones as lambda_2, ...", "loss per weight²", optional=True),
        Column("spectrum/residual", "largest residual of the eigenvalues", "loss per weight²", optional=True),
        Column("spectrum/neurons", "neurons that take part in λ_1", "neurons", optional=True),
        Column("spectrum/products", "Hessian products", "products", optional=True),
        Column("spectrum/trace", "trace", "loss per weight²", optional=True),
        Column("spectrum/trace_low", "lower end of the trace's 95 % interval", "loss per weight²", optional=True),
        Column("spectrum/trace_high", "upper end of the trace's 95 % interval", "loss per weight²", optional=True),
        Column("spectrum/top_mass", "share of the top eigenvalues in the trace", "fraction", optional=True),
        Column("spectrum/negative", "share of negative eigenvalues", "fraction", optional=True),
        Column("spectrum/negative_error", "standard error of that share", "fraction", optional=True),
    )

    def __init__(
        self,
        samples: int = 0,
        block: Literal["W_rec", "all"] = "W_rec",
        top: int = 5,
        tol: float = 1e-3,
        max_products: int = 300,
        trace_products: int = 60,
        density_probes: int = 4,
        regulariser: bool = True,
    ) -> None:
        self.samples = size_of("spectrum.samples", samples)
        require(top >= 1, f"spectrum.top must be positive, got {top}.")
        require(0 < tol < 1, f"spectrum.tol must be between 0 and 1, got {tol}.")
        require(max_products >= 2 * top, f"spectrum.max_products must be at least 2·top, got {max_products}.")
        require(
            trace_products == 0 or trace_products >= 6,
            f"spectrum.trace_products must be at least 6, or 0 for none, got {trace_products}.",
        )
        require(density_probes >= 0, f"spectrum.density_probes must be >= 0, got {density_probes}.")
        self.block, self.top, self.tol, self.max_products = block, top, tol, max_products
        self.trace_products, self.density_probes, self.regulariser = trace_products, density_probes, regulariser

    @property
    def enabled(self) -> bool:
        """Switched on by samples > 0."""
        return self.samples > 0

    def describe(self, evaluation: Evaluation) -> str:
        """Block, subset, and whether it is of the surrogate network."""
        of = "the surrogate network's Hessian" if evaluation.spiking else "the Hessian"
        return (
            f"spectrum: of {of}, block {self.block}, {evaluation.splits.described('train', self.samples)} "
            f"samples, {evaluation.regularisers(self.regulariser)}"
        )

    def measure(self, evaluation: Evaluation) -> Metrics:
        """λ_1 .. λ_top with their largest residual, trace with its 95 % interval, top-k mass, negative fraction."""
        seed, block = evaluation.module.seed, evaluation.block(self.block)
        problem = evaluation.problem(evaluation.training(self.samples), self.regulariser)
        sharp = eigenvalues(problem, block, Search(self.top, self.tol, seed, max_products=self.max_products))
        shares = participation(evaluation.network, sharp.vectors[0], block)
        row: Metrics = {f"lambda_{i}": v for i, v in enumerate(sharp.eigenvalues.tolist(), start=1)}
        row |= {"residual": float(sharp.residuals.max()), "neurons": shares.effective[0], "products": sharp.products}
        operator = HessianProducts(problem, block)
        if self.trace_products:
            estimate = trace(operator, self.trace_products, seed=seed)
            row |= {"trace": estimate.value, "trace_low": estimate.low, "trace_high": estimate.high}
            row["top_mass"] = top_mass(sharp.eigenvalues, estimate.value)
            row["products"] += estimate.products
        if self.density_probes:
            rough = density(operator, self.density_probes, 32, seed)
            width = 1e-3 * float(sharp.eigenvalues.abs().max())  # what lies closer to zero has no certain sign
            count, error = rough.count(-float("inf"), -width)
            row |= {"negative": count / rough.free, "negative_error": error / rough.free}
            row["products"] += rough.products
        return self.prefixed(row, evaluation.spiking)
