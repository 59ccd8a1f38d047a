"""Everything that is asked about one network's curvature, measured together."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bpgen.curvature import measures as beyond
from bpgen.curvature.block import Block, BlockProblem
from bpgen.curvature.landscape import along, plane, span
from bpgen.curvature.leading_eigenvalues import Search, SharpnessResult, eigenvalues
from bpgen.curvature.neuron_shares import Participation, participation
from bpgen.curvature.products import HessianProducts
from bpgen.curvature.spectral_density import Density, density
from bpgen.curvature.trace_estimate import Trace, trace
from bpgen.problem import Problem

RADIUS, ADAPTIVE_RADIUS = 0.05, 0.5  # of SAM (Foret et al. 2021) and ASAM (Kwon et al. 2021), their usual settings
SIGMA, RELATIVE_SIGMA = 0.01, 0.05


@dataclass
class Survey:
    """Eigenvalues of a Hessian and what else was asked for; the landscape is computed when it is looked at.

    sharp: the eigenvalues and their quality. neurons: their shares in the first eigenvector. at: the loss around θ.
    measures: flatness beyond λ_1, by name; empty if not asked for.
    density, trace: of the whole spectrum, or None.
    """

    sharp: SharpnessResult
    neurons: Participation
    at: BlockProblem
    measures: dict[str, float] = field(default_factory=dict)
    density: Density | None = None
    trace: Trace | None = None

    @property
    def samples(self) -> int:
        """B."""
        return self.sharp.samples

    @property
    def regularised(self) -> bool:
        """Whether the loss contained a regulariser."""
        return self.sharp.regularised

    def numbers(self) -> dict[str, Any]:
        """As plain numbers and lists, for a table or JSON."""
        row: dict[str, Any] = {
            "loss": self.loss,
            "eigenvalues": self.sharp.eigenvalues.tolist(),
            "residuals": self.sharp.residuals.tolist(),
            "products": self.sharp.products,
            "converged": self.sharp.converged,
            "neurons": {"incoming": self.neurons.incoming.tolist(), "outgoing": self.neurons.outgoing.tolist()},
        }
        if self.trace is not None and self.density is not None:
            t, (grid, heights, errors) = self.trace, self.curve
            row["trace"] = {"value": t.value, "low": t.low, "high": t.high, "confidence": t.confidence}
            row["top_mass"] = beyond.top_mass(self.sharp.eigenvalues, t.value)
            row["density"] = {"eigenvalue": grid.tolist(), "height": heights.tolist(), "error": errors.tolist()}
        if self.measures:
            row["measures"] = dict(self.measures)
        return row

    @cached_property
    def loss(self) -> float:
        """L(θ)."""
        with torch.no_grad():
            return float(self.at.value(self.at.theta))

    @cached_property
    def slopes(self) -> Tensor:
        """<∇L, v> of each eigenvector v [top]."""
        with torch.enable_grad():
            return self.sharp.vectors.to(self.at.theta) @ torch.func.grad(self.at.value)(self.at.theta)

    @cached_property
    def curve(self) -> tuple[Tensor, Tensor, Tensor]:
        """The density [400] and its standard error on a grid [400] that holds all of it."""
        assert self.density is not None, "survey(spectrum=True) measures it"
        low, high = (
            float(self.density.nodes.min()),
            max(float(self.density.nodes.max()), float(self.sharp.eigenvalues[0])),
        )
        sigma = (high - low) / 100 or 1e-2 * max(abs(high), 1.0)
        grid = torch.linspace(low - 5 * sigma, high + 5 * sigma, 400, dtype=torch.float64)
        return grid, *self.density.on(grid, sigma)

    def distances(self, i: int, points: int) -> Tensor:
        """An odd number of points along eigenvector i, as far as its quadratic alone makes four times the loss."""
        return torch.linspace(-2, 2, points, dtype=torch.float64) * span(self.loss, float(self.sharp.eigenvalues[i]))

    def line(self, i: int, points: int = 41) -> Tensor:
        """L along eigenvector i, at `distances(i, points)`."""
        v = self.sharp.vectors[i].to(self.at.theta)
        return along(self.at.value, self.at.theta, v, self.distances(i, points))

    def plane(self, points: int = 21) -> Tensor:
        """L in the plane of the first two eigenvectors, at `distances(0, points)` and `distances(1, points)`."""
        u, v = self.sharp.vectors[:2].to(self.at.theta)
        a, b = self.distances(0, points), self.distances(1, points)
        return plane(self.at.value, self.at.theta, u, v, a, b)


def survey(
    problem: Problem,
    block: Block = "W_rec",
    search: Search | None = None,
    *,
    measures: bool = False,
    spectrum: bool = False,
) -> Survey:
    """Measure a network's curvature.

    Args:
        problem, block, search: as for `bpgen.curvature.eigenvalues`; the search's tolerance, budget and seed are those
            of whatever else is measured.
        measures: whether to take those of `bpgen.curvature.measures`, at the radii and sizes named above.
        spectrum: whether to take the spectral density and the trace.

    Raises:
        BpgenError: an option out of its range.
    """
    search = search or Search()
    sharp, at = eigenvalues(problem, block, search), BlockProblem(problem, block, torch.float64)
    found = Survey(sharp, participation(problem.network, sharp.vectors[0], block), at)
    if measures or spectrum:
        products = HessianProducts(problem, block)
    if spectrum:
        found.density, found.trace = density(products, seed=search.seed), trace(products, seed=search.seed)
    if measures:
        found.measures.update(_measures(at, products, search, float(sharp.eigenvalues[0])))
    return found


def _measures(at: BlockProblem, products: HessianProducts, search: Search, lambda_max: float) -> dict[str, float]:
    """Those of `bpgen.curvature.measures`, by name."""
    value, theta, seed = at.value, at.theta, search.seed
    adaptive, residual = beyond.adaptive(products, theta, tol=search.tol, max_products=search.max_products, seed=seed)
    noise = beyond.under_noise(value, theta, SIGMA, seed=seed)
    relative = beyond.under_noise(value, theta, RELATIVE_SIGMA, elementwise=True, seed=seed)
    return {
        "lambda_theta": beyond.lambda_theta(lambda_max, theta),
        "adaptive": adaptive,
        "adaptive_residual": residual,
        "fisher_rao": beyond.fisher_rao(at.per_sample, theta),
        "worst_case": beyond.worst_case(value, theta, RADIUS, seed=seed),
        "worst_case_adaptive": beyond.worst_case(value, theta, ADAPTIVE_RADIUS, elementwise=True, seed=seed),
        "under_noise": noise.mean,
        "under_noise_error": noise.error,
        "under_noise_adaptive": relative.mean,
        "under_noise_adaptive_error": relative.error,
    }
