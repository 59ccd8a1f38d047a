"""Reward-modulated Hebbian learning: rare perturbations, and a trace of cubed fluctuations that finds them by itself.

    (1) I_t = W_rec h_{t-1} + W_in x_t + b + Δ_t / α,   Δ uniform in ±jump with probability p for each neuron and step
    (2) e = Σ_t S(h_{t-1} (x_t - x̄_{t-1})),   S(z) = z³   (trace="linear": S(z) = z)       x: the potential
    (3) x̄_t = d x̄_{t-1} + (1-d) x_t,  x̄_0 = x_0;   d = 0.05: fluctuations are changes within a step or two
    (4) ΔW_rec = -η R̄ (R - R̄) e;   R: loss of the sequence, R̄: running mean for its trial type (decay 0.75 a batch)
A neuron does not know its noise; where α is small, the cube lets it outweigh what relaxes afterwards. e holds ordinary
activity as well, which (R - R̄) averages out only where R̄ is that of alike sequences:
    repeats = 1   trial types are the classes (of the last step), or a single one for continuous targets; unlike
                  sequences of one type bias (4): on temporal XOR, two in a class, it is worse than the readout alone
    repeats > 1   every sequence is a type: run so many times side by side, R̄ the mean of these runs (which shrinks (4)
                  by 1 - 1/repeats); as where trials of few types come again and again, and for any input or target
Source: Miconi 2017, eLife 6:e20899; constants, the cube of the whole product and the factor R̄ as in its code.
Deviation: W_in and b_rec learn alike; the readout has its exact gradient on the noisy run (there: an output neuron), a
learned initial state none; no bound on a single weight change (use trainer.clip). Before a type was seen, R̄ is its mean
in the batch. Loss is that of the noisy runs, outputs are of the first.
Shapes: Δ, x, x̄ [T,repeats·B,N]; e per sequence, never stored. Cost: `repeats` forward runs and N² products; memory T·N.
Exact: never; not an estimate of the gradient, whose mean it is correlated with. Neurons: Leaky, leak="potential".
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bpgen.rules import BpgenError, Draws, Network, Problem, Rule, RuleGradients, Traits, choice, require
from bpgen_rules._perturbation import gradients_of, perturbed, repeated
from bpgen_rules._running_mean import RunningMean

Trace = Literal["cubic", "linear"]


class RewardModulatedHebbian(Rule):
    """Reward-modulated Hebbian learning (Miconi 2017).

    Args:
        jump: largest perturbation of a potential.
        probability: of a perturbation, for each neuron and step.
        trace: "cubic" as published, or "linear".
        decay: d of the potential's running mean, per step.
        reward_decay: of the running mean of the loss, per batch.
        repeats: runs of each sequence, compared with each other; 1 compares with other sequences of the class.
    """

    suits: ClassVar[Mapping[str, Any]] = {
        "optimizer.name": "adam",
        "optimizer.lr": 0.003,
        "optimizer.lr_scale": {"W_rec": 0.003, "W_in": 0.003},  # their gradients are noisy, the readout's is exact
    }
    trains_neurons = False
    traits = Traits(
        signal_origin="perturbation",
        signal_scope="broadcast",
        recurrence="none",
        weight_transport=False,
        needs_future=False,
        stochastic=True,
        exact_readout=False,
        neurons=("Leaky",),
        learns=("reward.mean", "reward.count"),
    )

    conformance_exceptions: ClassVar[Mapping[str, str]] = {
        "loss and outputs are the network's own": "they are those of the noisy run, whose expected loss it descends"
    }

    def __init__(
        self,
        jump: float = 0.5,
        probability: float = 0.003,
        trace: Trace = "cubic",
        decay: float = 0.05,
        reward_decay: float = 0.75,
        repeats: int = 1,
    ) -> None:
        super().__init__()
        require(jump > 0, f"jump must be > 0, got {jump}.")
        require(0 < probability <= 1, f"probability must be in (0, 1], got {probability}.")
        require(0 <= decay < 1, f"decay must be in [0, 1), got {decay}.")
        choice("trace of rmhl", trace, Trace)
        require(repeats >= 1, f"repeats must be a positive number, got {repeats}.")
        self.jump, self.probability, self.trace, self.decay, self.repeats = jump, probability, trace, decay, repeats
        self.reward = RunningMean(reward_decay)

    @property
    def forward_passes(self) -> int:
        """One for every repeat, which are all that is run."""
        return self.repeats

    def bind(self, network: Network, seed: int = 0) -> "RewardModulatedHebbian":
        """Check that there is a potential, and keep R̄ for every type."""
        super().bind(network, seed)
        if network.neuron.leak != "potential":
            raise BpgenError("rmhl follows the potential: it is defined for leaky neurons with leak='potential'.")
        self.reward.fit(network.W_out.new_zeros(network.n_out))
        return self

    def draw(self, network: Network, x: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """Δ [T,repeats·B,N]."""
        shape = (x.shape[0], self.repeats * x.shape[1], network.n_rec)
        size = 2 * torch.rand(shape, generator=random, dtype=torch.float64) - 1
        happens = torch.rand(shape, generator=random, dtype=torch.float64) < self.probability
        return {"jumps": (self.jump * size * happens).to(x)}

    def estimate(self, problem: Problem, draws: Draws) -> RuleGradients:
        """Equations (1) to (4)."""
        B, network = problem.batch, problem.network
        alpha: Any = network.neuron.alpha  # a number, or one per neuron
        noisy = perturbed(repeated(problem, self.repeats), draws["jumps"] / alpha)
        run = noisy.run()
        R = noisy.per_sample(run)
        types = trial_types(noisy.target, network.n_out).to(R)
        seen = types.sum(0)
        present = (R @ types) / seen.clamp(min=1)  # mean loss of each type in this batch [O]
        mean = types @ torch.where(self.reward.count > 0, self.reward.mean, present)
        if self.repeats > 1:
            mean = R.unflatten(0, (-1, B)).mean(0).repeat(self.repeats)
        learned = self.reward.with_value(present, (seen > 0).to(R))
        potentials = run.states.squeeze(-2)  # [T+1,B,N]
        trend, fluctuations = potentials[0], []
        for potential in potentials[1:].unbind(0):
            fluctuations.append(potential - trend)
            trend = self.decay * trend + (1 - self.decay) * potential
        modulation = (mean * (R - mean) / noisy.batch).unsqueeze(-1)
        result = gradients_of(noisy, run, aux=learned)
        post, power = torch.stack(fluctuations), 3 if self.trace == "cubic" else 1
        c = (modulation * post**power).flatten(0, 1)
        hebbian = {"W_rec": c.mT @ (run.h[:-1] ** power).flatten(0, 1), "W_in": c.mT @ (noisy.x**power).flatten(0, 1)}
        if "b_rec" in problem.params:
            hebbian["b_rec"] = c.sum(0)
        hebbian = network.masked(hebbian)
        grads = {n: g + hebbian[n] if n in hebbian else g for n, g in result.grads.items()}
        return result._replace(outputs=result.outputs.narrow(-2, 0, B), grads=grads)

    def learn(self, aux: Mapping[str, Tensor]) -> None:
        """Take over R̄."""
        self.reward.learn(aux)


def trial_types(target: Tensor, n_out: int) -> Tensor:
    """Which sequence is of which type, 0-1 [B,O]."""
    if target.is_floating_point():
        target = target.new_zeros(target.shape[-2])
    elif target.ndim == 2:
        target = target[-1]
    return target.unsqueeze(-1) == torch.arange(n_out, device=target.device)
