"""Everything that is asked about one network's curvature, measured together."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bpgen.curvature import measures as beyond
from bpgen.curvature.block import Block
from bpgen.curvature.density import Density, density
from bpgen.curvature.landscape import along, plane, span
from bpgen.curvature.participation import Participation, participation
from bpgen.curvature.products import HessianProducts
from bpgen.curvature.sharpness import SharpnessResult, measure
from bpgen.curvature.trace import Trace, trace
from bpgen.losses import Loss
from bpgen.network import Network

RADIUS, ADAPTIVE_RADIUS = 0.05, 0.5  # of SAM (Foret et al. 2021) and ASAM (Kwon et al. 2021), their usual settings
SIGMA, RELATIVE_SIGMA = 0.01, 0.05


@dataclass
class Report:
    """Eigenvalues of a Hessian and what else was asked for; the landscape is computed when it is looked at.

    sharp: the eigenvalues and their quality. neurons: their shares in the first eigenvector. objective: L(θ) itself.
    measures: flatness beyond λ_1, by name; empty if not asked for.
    density, trace: of the whole spectrum, or None.
    """

    sharp: SharpnessResult
    neurons: Participation
    objective: beyond.Objective
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
            return float(self.objective(self.objective.theta))

    @cached_property
    def slopes(self) -> Tensor:
        """<∇L, v> of each eigenvector v [top]."""
        with torch.enable_grad():
            return self.sharp.vectors.to(self.objective.theta) @ torch.func.grad(self.objective)(self.objective.theta)

    @cached_property
    def curve(self) -> tuple[Tensor, Tensor, Tensor]:
        """The density [400] and its standard error on a grid [400] that holds all of it."""
        assert self.density is not None, "report(density=True) measures it"
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
        v = self.sharp.vectors[i].to(self.objective.theta)
        return along(self.objective, self.objective.theta, v, self.distances(i, points))

    def plane(self, points: int = 21) -> Tensor:
        """L in the plane of the first two eigenvectors, at `distances(0, points)` and `distances(1, points)`."""
        u, v = self.sharp.vectors[:2].to(self.objective.theta)
        a, b = self.distances(0, points), self.distances(1, points)
        return plane(self.objective, self.objective.theta, u, v, a, b)


def report(
    network: Network,
    x: Tensor,
    target: Tensor,
    loss: Loss,
    *,
    block: Block = "W_rec",
    top: int = 3,
    tol: float = 1e-4,
    max_products: int = 300,
    seed: int = 0,
    measures: bool = False,
    whole: bool = False,
) -> Report:
    """Measure a network at its present weights.

    Args:
        network, x, target, loss, block, top, tol, max_products, seed: as for `bpgen.curvature.measure`.
        measures: whether to take those of `bpgen.curvature.measures`, at the radii and sizes named above.
        whole: whether to take the spectral density and the trace.

    Raises:
        BpgenError: an option out of its range.
    """
    params = network.params()
    search: Any = {"tol": tol, "max_products": max_products, "seed": seed}
    sharp = measure(network, params, x, target, loss, block=block, top=top, **search)
    objective = beyond.Objective(network, params, x, target, loss, block)
    found = Report(sharp, participation(network, sharp.vectors[0], block), objective)
    products = HessianProducts(network, params, x, target, loss, block) if measures or whole else None
    if products is not None and whole:
        found.density, found.trace = density(products, seed=seed), trace(products, seed=seed)
    if products is not None and measures:
        theta, value = objective.theta, objective
        adaptive, residual = beyond.adaptive(products, theta, **search)
        noise = beyond.under_noise(value, theta, SIGMA, seed=seed)
        relative = beyond.under_noise(value, theta, RELATIVE_SIGMA, elementwise=True, seed=seed)
        found.measures.update(
            lambda_theta=beyond.lambda_theta(float(sharp.eigenvalues[0]), theta),
            adaptive=adaptive,
            adaptive_residual=residual,
            fisher_rao=beyond.fisher_rao(objective),
            worst_case=beyond.worst_case(value, theta, RADIUS, seed=seed),
            worst_case_adaptive=beyond.worst_case(value, theta, ADAPTIVE_RADIUS, elementwise=True, seed=seed),
            under_noise=noise.mean,
            under_noise_error=noise.error,
            under_noise_adaptive=relative.mean,
            under_noise_adaptive_error=relative.error,
        )
    return found
