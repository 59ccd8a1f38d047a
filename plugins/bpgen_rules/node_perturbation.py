"""Node perturbation: a scalar change of the loss, correlated with the noise each neuron was given.

    (1) I'_t = W_rec h_{t-1} + W_in x_t + b + σ ξ_t,   ξ ~ N(0, 1) for every current, step and sequence
    (2) c_t = ξ_t (L(ξ) - L(-ξ)) / 2σ      antithetic, or      c_t = ξ_t (L(ξ) - L(0)) / σ
    (3) ∂L/∂W_rec ≈ Σ_t c_t h_{t-1}ᵀ       h of the run without perturbation
Source: Fiete and Seung 2006, Phys. Rev. Lett. 97:048104; Werfel, Xie and Seung 2005, Neural Comput. 17:2699.
Deviation: noise on the input currents, so that (3) needs no filter and holds for every neuron; L is one sequence's own
loss, so that sequences do not add to each other's noise; the readout has its exact gradient, and a learned initial
state, which is not perturbed, has none.
Shapes: ξ, c [T,B,K·N]; L [B]. Cost: 2 more forward runs a repeat (1 if not antithetic), N² per step and sample; memory
T·N·repeats. Exact: in the mean as σ → 0 (antithetic, or a network that is linear up to its loss: bias of order σ²); its
variance grows with T·N. Neurons: all; for spiking ones it follows the true loss smoothed by σ, not a surrogate.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from bpgen.rules import Draws, Limit, Network, Problem, Rule, RuleGradients, Traits, require
from bpgen_rules._perturbation import gradients_of, perturbed, repeated


class NodePerturbation(Rule):
    """Node perturbation with noise at every step.

    Args:
        sigma: standard deviation σ of the perturbation of a current.
        antithetic: compare ξ with -ξ instead of with no perturbation.
        repeats: perturbations of each sequence that are averaged, run side by side.
    """

    suits: ClassVar[Mapping[str, Any]] = {
        "optimizer.name": "adam",
        "optimizer.lr": 0.003,
        "optimizer.lr_scale": {"W_rec": 0.1, "W_in": 0.1},  # their gradients are noisy, the readout's is exact
    }
    traits = Traits(
        signal_origin="perturbation",
        signal_scope="broadcast",
        recurrence="none",
        weight_transport=False,
        needs_future=False,
        stochastic=True,
        unbiased=True,
        exact_when=Limit(on_average=True, condition="as σ → 0"),
    )

    def __init__(self, sigma: float = 0.01, antithetic: bool = True, repeats: int = 1) -> None:
        super().__init__()
        require(sigma > 0, f"sigma must be > 0, got {sigma}.")
        require(repeats >= 1, f"repeats must be a positive number, got {repeats}.")
        self.sigma, self.antithetic, self.repeats = sigma, antithetic, repeats

    @property
    def forward_passes(self) -> int:
        """One as it is, and one or two for every perturbation."""
        return 1 + self.repeats * (2 if self.antithetic else 1)

    def draw(self, network: Network, x: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """ξ [T,repeats·B,K·N]."""
        shape = (x.shape[0], self.repeats * x.shape[1], network.W_rec.shape[0])
        return {"perturbation": torch.randn(shape, generator=random, dtype=torch.float64).to(x)}

    def estimate(self, problem: Problem, draws: Draws) -> RuleGradients:
        """Equations (1) to (3)."""
        run, xi, R, B = problem.run(), draws["perturbation"], self.repeats, problem.batch
        many = repeated(problem, R)

        def losses(perturbation: Tensor) -> Tensor:  # [R·B]
            noisy = perturbed(many, perturbation)
            return noisy.per_sample(noisy.run())

        up = losses(self.sigma * xi)
        if self.antithetic:
            slope = (up - losses(-self.sigma * xi)) / (2 * self.sigma)
        else:
            slope = (up - problem.per_sample(run).repeat(R)) / self.sigma
        c = (xi * slope.unsqueeze(-1)).unflatten(1, (R, B)).mean(1) / B
        return gradients_of(problem, run, c)
