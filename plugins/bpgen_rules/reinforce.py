"""REINFORCE: neurons explore with noise, and one reward tells all of them how the sequence went.

    (1) I_t = W_rec h_{t-1} + W_in x_t + b + σ ξ_t,   ξ ~ N(0, 1): each current is a Gaussian unit's action
    (2) e = Σ_t (ξ_t / σ) h_{t-1}ᵀ                    characteristic eligibility ∂ log p / ∂W_rec, of the noisy run
    (3) ∂E[L]/∂W_rec ≈ (L - L̄) e                      L: loss of the sequence (minus its reward), L̄: baseline
Source: Williams 1992, Mach. Learn. 8:229 (Gaussian units).
Baseline: "running_mean" of earlier batches (in the first one, the mean of that batch, which shrinks it by 1 - 1/B);
"batch", the mean over the other sequences of the batch; or "none". None of them moves the mean of (3).
Deviation: σ is fixed; the readout has its exact gradient on the noisy run, and a learned initial state has none.
Loss and outputs are those of the noisy run, whose expected loss E[L] is what the rule descends.
Step size: the variance grows with T·N·Var(L)/σ². Of 64 neurons on digits, σ = 0.1 diverges at optimizer.lr 0.02 (the
default of `bpgen fit`) and 0.005; σ = 0.5 trains at 0.005.
Shapes: ξ [T,B,K·N]; e per sequence, never stored; L [B]. Cost: one forward run and the N² weight product; memory T·N.
Exact: in the mean, at every σ, for E[L]; its variance grows with T·N. Neurons: all.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bpgen.rules import Draws, Limit, Network, Problem, Rule, RuleGradients, Traits, choice, require
from bpgen_rules._perturbation import gradients_of, perturbed
from bpgen_rules._running_mean import RunningMean

Baseline = Literal["running_mean", "batch", "none"]


class Reinforce(Rule):
    """REINFORCE with Gaussian noise on the input currents.

    Args:
        sigma: standard deviation σ of the exploration of a current.
        baseline: what a sequence's loss is compared with: "running_mean", "batch" or "none".
        decay: of the running mean over batches.
    """

    suits: ClassVar[Mapping[str, Any]] = {
        "optimizer.name": "adam",
        "optimizer.lr": 0.003,
        "optimizer.lr_scale": {"W_rec": 0.03, "W_in": 0.03},  # their gradients are noisy, the readout's is exact
    }
    traits = Traits(
        signal_origin="perturbation",
        signal_scope="broadcast",
        recurrence="none",
        weight_transport=False,
        needs_future=False,
        stochastic=True,
        exact_readout=False,
        exact_when=Limit(on_average=True, condition="for the expected loss"),
        learns=("average.mean", "average.count"),
    )

    conformance_exceptions: ClassVar[Mapping[str, str]] = {
        "loss and outputs are the network's own": "they are those of the noisy run, whose expected loss it descends"
    }

    def __init__(
        self,
        sigma: float = 0.1,
        baseline: Baseline = "running_mean",
        decay: float = 0.9,
    ) -> None:
        super().__init__()
        require(sigma > 0, f"sigma must be > 0, got {sigma}.")
        self.sigma, self.average = sigma, RunningMean(decay)
        self.baseline = choice("baseline of reinforce", baseline, Baseline)

    def bind(self, network: Network, seed: int = 0) -> "Reinforce":
        """Keep the baseline as precisely as the weights."""
        super().bind(network, seed)
        self.average.to(network.W_out)
        return self

    def draw(self, network: Network, x: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """ξ [T,B,K·N]."""
        shape = (*x.shape[:2], network.W_rec.shape[0])
        return {"exploration": torch.randn(shape, generator=random, dtype=torch.float64).to(x)}

    def estimate(self, problem: Problem, draws: Draws) -> RuleGradients:
        """Equations (1) to (3)."""
        xi = draws["exploration"]
        noisy = perturbed(problem, self.sigma * xi)
        run = noisy.run()
        L = noisy.per_sample(run)
        advantage = L - self.expected(L)
        c = xi * advantage.unsqueeze(-1) / (self.sigma * problem.batch)
        return gradients_of(noisy, run, c, self.average.with_value(L.mean()))

    def expected(self, L: Tensor) -> Tensor:
        """L̄, 0-d or [B]."""
        if self.baseline == "none":
            return torch.zeros_like(L)
        if self.baseline == "batch":
            require(len(L) > 1, "baseline='batch' compares the sequences of a batch: use a batch size above 1.")
            return (L.sum() - L) / (len(L) - 1)
        return torch.where(self.average.count > 0, self.average.mean, L.mean())

    def learn(self, aux: Mapping[str, Tensor]) -> None:
        """Take over the running mean."""
        self.average.learn(aux)
