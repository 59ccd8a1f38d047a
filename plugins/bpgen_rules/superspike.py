"""SuperSpike: the eligibility trace of e-prop, smoothed by the kernel with which spike trains are compared.

    (1) e_t = D_t ε_t                                eligibility trace of `three_factor`; LIF: σ'(U_i) (ε * S_j)
    (2) (α*e)_t:  f_t = ρ f_{t-1} + (1-ρ) e_t,  a_t = δ a_{t-1} + (1-δ) f_t      double exponential kernel, of sum one
    (3) ∂L/∂W_rec ≈ Σ_t (B ẽ_t) (α * e)_t,   ẽ = α * e^out (filter_error) or e^out       B = W_out by default
    (4) computed as q = α^T B ẽ, filtered back twice, then as in `three_factor`: the same sum, for O(N) work a step
Source: Zenke and Ganguli 2018, Neural Computation 30:1514, "SuperSpike", whose rule is an integral of e_i(s) times
α * (σ'(U_i) (ε * S_j)), with e_i = α * (target train - train) at the outputs and a feedback of it elsewhere; their code
filters first by the rise (5 ms), then by the decay (10 ms, the membrane's). With filter_error (3) is, along each
neuron's own path, the gradient of the van Rossum distance ½ Σ_t |α * (y - y*)|² of squared errors.
Defaults: δ = 1-α_neuron and ρ = δ², which is half of its time constant, as 5 and 10 ms are; means where leaks differ.
Limits: at τ = 0 twice, α is a delta and the rule is `three_factor` with the same surrogate; σ' of the fast sigmoid is
--neuron.surrogate fast_sigmoid. The trace of ALIF is that of e-prop.
A sequence ends with its last error, behind which ẽ is zero: what follows may be padding.
Deviation: ε is the response of the neuron itself, one exponential for LIF, where they have two; no learning rates per
synapse (r_ij: use optimizer.name adam), no term of the rate; the readout has the exact gradient of the loss; a leaky
readout (κ) filters errors and traces besides α. Weights change after the sequence, not within.
Shapes: e_t [N,X] and α*e (never in memory), ẽ [L,B,O], q [T,B,N], c [T,B,K,N].
Cost: N per step and sample, plus the N² weight product; memory T·N. Exact: W_rec = 0 and τ = 0. Neurons: LIF, ALIF,
Leaky (σ' is φ').
"""

import math
from typing import Any

import torch
from torch import Tensor

from bpgen.rules import (
    Broadcast,
    Credit,
    Draws,
    Limit,
    OfflineRule,
    Traits,
    Trajectory,
    filtered,
    filtered_back,
    propagate,
    require,
)


class SuperSpike(Broadcast, OfflineRule):
    """SuperSpike (Zenke and Ganguli 2018): e-prop whose traces are smoothed by a double exponential.

    Args:
        tau_rise: time constant of the kernel's rise, in steps; 0 is none. By default half of the neuron's.
        tau_decay: time constant of its decay, in steps; 0 is none. By default the neuron's own.
        filter_error: whether the output error is smoothed too, as for the van Rossum distance.
        **feedback: see `bpgen.rules.Broadcast`.
    """

    traits = Traits(
        signal_scope="broadcast",
        recurrence="diagonal",
        needs_future=False,
        time_per_step="N",
        neurons=("LIF", "ALIF", "Leaky"),
        exact_when=Limit(at=("W_rec = 0",), condition="the kernel a delta (tau_rise 0, tau_decay 0)"),
        exact_with={"tau_rise": 0.0, "tau_decay": 0.0},
    )

    def __init__(
        self,
        tau_rise: float | None = None,
        tau_decay: float | None = None,
        filter_error: bool = True,
        **feedback: Any,
    ) -> None:
        super().__init__(**feedback)
        for name, tau in (("tau_rise", tau_rise), ("tau_decay", tau_decay)):
            fits = tau is None or 0 <= tau < math.inf
            require(fits, f"rule.{name} must be a number of steps >= 0, or null for the neuron's own, got {tau}.")
        self.tau_rise, self.tau_decay, self.filter_error = tau_rise, tau_decay, filter_error

    def kept(self, trajectory: Trajectory) -> tuple[float | Tensor, float | Tensor]:
        """ρ and δ of (2)."""
        leak: Any = trajectory.network.neuron.alpha
        own = (1 - leak).mean() if isinstance(leak, Tensor) else 1 - leak
        rise = own**2 if self.tau_rise is None else _left(self.tau_rise)
        return rise, own if self.tau_decay is None else _left(self.tau_decay)

    def told(self, trajectory: Trajectory, error: Tensor, draws: Draws) -> Tensor:
        """ẽ of (3), as it goes back through the readout."""
        if self.filter_error:
            more = (error != 0).any(-1, keepdim=True).flip(0).cumsum(0).flip(0) > 0  # errors to come, this one included
            for keep in self.kept(trajectory):
                error = filtered(error, keep)
            error = error * more
        return filtered_back(error, trajectory.network.kappa, trajectory.n_steps)

    def credit(self, trajectory: Trajectory, error: Tensor) -> Credit:
        """Equation (4)."""
        q, T = self.feedback.signal(trajectory, error), trajectory.n_steps
        if any(isinstance(keep, Tensor) or keep > 0 for keep in self.kept(trajectory)):
            q = torch.cat([q.new_zeros(T - len(q), *q.shape[1:]), q])
        for keep in self.kept(trajectory):
            q = filtered(q.flip(0), keep).flip(0)
        return propagate(trajectory, q)


def _left(tau: float) -> float:
    """What is left after a step."""
    return math.exp(-1 / tau) if tau > 0 else 0.0
