"""Weight perturbation: a scalar change of the loss, correlated with the noise each synapse was given.

    (1) ĝ = ξ (L(W + σ ξ) - L(W - σ ξ)) / 2σ      antithetic, or      ĝ = ξ (L(W + σ ξ) - L(W)) / σ
ξ ~ N(0, 1) for every weight that can act, one draw for the whole batch.
Source: Jabri and Flower 1992, IEEE Trans. Neural Netw. 3:154 (one weight at a time); all at once: Cauwenberghs
1993; Spall 1992, IEEE Trans. Autom. Control 37:332 (SPSA, whose ξ are signs). Averaged over repeats it is the evolution
strategy of Salimans et al. 2017 with learning rate in place of ranks.
Deviation: a regulariser of weights keeps its exact gradient.
Shapes: ξ as each parameter; L 0-d. Cost: one forward run, and 2 more a repeat (1 if not antithetic), N² per step and
sample; memory T·N. Exact: in the mean as σ → 0, bias of order σ²; its variance grows with the number of weights.
Step size: E‖ĝ‖² = (1 + (P+1)/repeats) ‖g‖² for P weights as σ → 0, so that it needs a smaller one than BPTT: of 64
neurons on digits, optimizer.lr 0.02 (the default of `bpgen fit`) diverges; 0.005 beats the readout alone only with
over="recurrent".
Neurons: all; for spiking ones it follows the true loss smoothed by σ, not a surrogate.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bpgen.rules import Draws, Limit, Network, Problem, Rule, RuleGradients, Traits, choice, require
from bpgen_rules._perturbation import gradients_of
from bpgen_rules._vectors import draw_noise, noise_of

Over = Literal["all", "recurrent"]


class WeightPerturbation(Rule):
    """Weight perturbation.

    Args:
        sigma: standard deviation σ of the perturbation of a weight.
        antithetic: compare ξ with -ξ instead of with no perturbation.
        repeats: perturbations that are averaged, run one after the other.
        over: the perturbed parameters: "all", or "recurrent" (the readout has its exact gradient).
    """

    suits: ClassVar[Mapping[str, Any]] = {
        "rule.over": "recurrent",  # a default run is too short to find the readout by chance, too
        "optimizer.name": "adam",
        "optimizer.lr": 0.003,
        "optimizer.lr_scale": {"W_rec": 0.03, "W_in": 0.03},  # their gradients are noisy, the readout's is then exact
    }
    traits = Traits(
        signal_origin="perturbation",
        signal_scope="broadcast",
        recurrence="none",
        weight_transport=False,
        needs_future=False,
        stochastic=True,
        unbiased=True,
        exact_readout=False,
        exact_when=Limit(on_average=True, condition="as σ → 0"),
    )

    def __init__(
        self,
        sigma: float = 0.01,
        antithetic: bool = True,
        repeats: int = 1,
        over: Over = "all",
    ) -> None:
        super().__init__()
        require(sigma > 0, f"sigma must be > 0, got {sigma}.")
        require(repeats >= 1, f"repeats must be a positive number, got {repeats}.")
        self.sigma, self.antithetic, self.repeats, self.over = sigma, antithetic, repeats, choice("over", over, Over)

    @property
    def forward_passes(self) -> int:
        """One as it is, and one or two for every perturbation."""
        return 1 + self.repeats * (2 if self.antithetic else 1)

    def draw(self, network: Network, x: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """ξ for every parameter, [repeats, ...]."""
        drawn = [draw_noise(network, random) for _ in range(self.repeats)]
        return {name: torch.stack([d[name] for d in drawn]) for name in drawn[0]}

    def estimate(self, problem: Problem, draws: Draws) -> RuleGradients:
        """Equation (1)."""
        params = problem.params
        exact = gradients_of(problem, problem.run())
        perturbed = [n for n in params if self.over == "all" or n not in ("W_out", "b_out")]
        xi = noise_of(perturbed, draws)

        def moved(r: int, by: float) -> Tensor:
            there = problem.at(**{n: params[n] + by * xi[n][r] for n in xi})
            return there.value_and_error(there.run())[0]

        grads = {n: torch.zeros_like(params[n]) if n in xi else exact.grads[n] for n in params}
        for r in range(self.repeats):
            up = moved(r, self.sigma)
            slope = (up - moved(r, -self.sigma)) / 2 if self.antithetic else up - exact.loss
            grads.update({n: grads[n] + xi[n][r] * slope / (self.sigma * self.repeats) for n in xi})
        return exact._replace(grads=grads)
