"""Spatial learning through time (SLTT): every step by itself, nothing of the steps before.

    (1) g_t = C_tᵀ D_tᵀ q_t,   q_t = (1-κ) B e_t          as in `ottt`; B = W_out
    (2) ∂L/∂W_rec, ∂L/∂W_in ≈ Σ_t g_t a_tᵀ,  ∂L/∂b_rec ≈ Σ_t g_t,    a_t = (h_{t-1}, x_t)
    (3) SLTT-K: both sums over K of the T steps, drawn anew for every batch and the same for all of its sequences
Source: Meng, Xiao, Yan, Wang, Lin and Luo, ICCV 2023 (arXiv 2302.14311), and their code: the potential of the step
before is detached, so that only paths within a step are left. In (3) their loss of a step stays divided by T, not by K
(train_SLTTK.py): on average the gradient is K/T of SLTT's, and a learning rate means as much less.
Which paths are kept: of a recurrent layer none in time, neither the neuron's own nor any through W_rec; W_rec learns as
W_in does, from the spikes of one step before. That is `ottt` without a trace.
Deviation: the readout has its exact gradient, also where it leaks (κ), and in (3) of all steps. What (3) saves them, no
graph at the other steps, is not saved here, where no step has one. Of a sequence that comes in chunks K steps of every
chunk are drawn, and of a loss at the last step alone only K in T batches hear.
Shapes: g [B,N], a [B,Q]. Cost: N² per step and sample for the product; memory N. Exact: T = 1; equal to `eprop` for
neurons without memory (α = 1) and κ = 0. Neurons: LIF, ALIF, Leaky.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bpgen.rules import Draws, Moment, Network, Trajectory, require
from bpgen_rules.ottt import OTTT


class SLTT(OTTT):
    """Spatial learning through time (Meng et al. 2023): the error of the moment, and no trace.

    Args:
        steps: K, how many random steps of a sequence are learned from (SLTT-K); null is all of them.
        **feedback: see `bpgen.rules.Broadcast`.

    Raises:
        BpgenError: fewer than one step.
    """

    traits = replace(OTTT.traits, recurrence="none")

    def __init__(self, steps: int | None = None, **feedback: Any) -> None:
        super().__init__(trace_decay=0.0, **feedback)
        fits = steps is None or steps >= 1
        require(fits, f"rule.steps must be at least 1, or null for all of them, got {steps}.")
        self.steps = steps
        if steps is not None:
            self.traits = replace(type(self).traits, stochastic=True)  # type: ignore[misc]

    def draw(self, network: Network, x: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """Which steps are learned from, 1 or 0 [T], for SLTT-K."""
        if self.steps is None:
            return {}
        place = torch.rand(len(x), generator=random, dtype=torch.float64).argsort().argsort()
        return {"learned": (place < self.steps).to(x)}

    def signal(self, at: Moment | Trajectory, error: Tensor, draws: Draws) -> Tensor:
        """q of equation (1), zero at the steps that are not drawn."""
        q = super().signal(at, error, draws)
        return q if self.steps is None else q * draws["learned"][..., None, None]
