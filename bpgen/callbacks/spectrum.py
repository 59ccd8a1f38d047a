"""Spectrum along training: the top eigenvalues of the Hessian, its trace, and what the rest of it looks like.

For spiking neurons it is that of the surrogate network, under spectrum/surrogate/...; see `Sharpness`.
"""

from __future__ import annotations

from typing import Literal

from bpgen.callbacks.measurement import Measurement, Moment, problem_of, size_of
from bpgen.curvature import HessianProducts, Search, density, eigenvalues, participation, trace
from bpgen.curvature.measures import top_mass
from bpgen.errors import require
from bpgen.tasks import Task


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
        super().__init__()
        self.samples = size_of("spectrum.samples", samples) or 0
        require(top >= 1, f"spectrum.top must be positive, got {top}.")
        require(tol > 0, f"spectrum.tol must be > 0, got {tol}.")
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

    def describe(self, task: Task) -> str:
        """Block, subset, and whether it is of the surrogate network."""
        whole = task.split("train").size
        of = "the surrogate network's Hessian" if self.spiking else "the Hessian"
        return (
            f"spectrum: of {of}, block {self.block}, {min(self.samples, whole)} of {whole} train "
            f"samples, regularisers {'inside' if self.regulariser else 'left out'}"
        )

    def measure(self, moment: Moment) -> dict[str, float | int]:
        """λ_1 .. λ_top with their largest residual, trace with its 95 % interval, top-k mass, negative fraction."""
        module = moment.module
        split = self.subset(moment, "train", self.samples)
        problem = problem_of(module, split, module.loss if self.regulariser else module.loss.without_regulariser())
        search = Search(self.top, self.tol, module.seed, max_products=self.max_products)
        sharp = eigenvalues(problem, self.block, search)
        shares = participation(module.network, sharp.vectors[0], self.block)
        row: dict[str, float | int] = {f"lambda_{i}": v for i, v in enumerate(sharp.eigenvalues.tolist(), start=1)}
        row |= {"residual": float(sharp.residuals.max()), "neurons": shares.effective[0], "products": sharp.products}
        operator = HessianProducts(problem, self.block)
        if self.trace_products:
            estimate = trace(operator, self.trace_products, seed=module.seed)
            row |= {"trace": estimate.value, "trace_low": estimate.low, "trace_high": estimate.high}
            row["top_mass"] = top_mass(sharp.eigenvalues, estimate.value)
            row["products"] += estimate.products
        if self.density_probes:
            rough = density(operator, self.density_probes, 32, module.seed)
            width = 1e-3 * float(sharp.eigenvalues.abs().max())  # what lies closer to zero has no certain sign
            count, error = rough.count(-float("inf"), -width)
            row |= {"negative": count / rough.free, "negative_error": error / rough.free}
            row["products"] += rough.products
        prefix = "spectrum/surrogate" if module.network.neuron.spiking else "spectrum"
        return {f"{prefix}/{name}": value for name, value in row.items()}
