"""Random-feedback local online learning: an eligibility trace and a fixed random projection of the error.

    (1) p_t = (1-α) p_{t-1} + α φ'(u_t) h_{t-1}ᵀ          eligibility trace, φ' inside the filter
    (2) ∂L/∂W_rec ≈ Σ_t [B ε_t] p_t                       B fixed and random, ε the output error
Source: Murray 2019, eLife 8:e43299, for the rate leak s_t = (1-α) s_{t-1} + α φ(I_t), u_t = I_t.
    (3) trace="own" (default): credit along the neuron's own path, λ_t = D_tᵀ q_t + A_{t+1}ᵀ λ_{t+1}, c_t = C_tᵀ λ_t.
        On the rate leak this is (1), (2) to the letter; on other neurons it is the rule derived for them.
    (4) trace="murray": (1) taken literally on every leaky neuron, u_t the argument of φ. It is not (3) on the
        potential leak, where φ' of the step of the error stands outside the filter.
Computed as a backward filter, q_t first: Σ_t q_t p_t = Σ_t α φ'(u_t) (Σ_{k>=t} (1-α)^{k-t} q_k) h_{t-1}ᵀ.
Deviation: weights change after the sequence, not within; the readout has its exact gradient, as in the paper.
A leaky readout and a cost of the activity enter q as in `three_factor`, (5) and (6).
Shapes: B [O,N], q and ε [T,B,N] and [T,B,O], p_t [B,N,N] (never in memory), c [T,B,K,N].
Cost: N per step and sample, plus the N² weight product; memory T·N. Exact: W_rec = 0 with symmetric feedback.
Neurons: all with trace="own"; Leaky with trace="murray".
"""

from typing import Any, Literal

import torch
from torch import Tensor

from bpgen.neurons import Leaky
from bpgen.neurons.activation import ACTIVATIONS
from bpgen.rules import (
    BpgenError,
    Broadcast,
    Credit,
    FeedbackName,
    Network,
    OfflineRule,
    Traits,
    Trajectory,
    choice,
    learning_signal,
    propagate,
)

Trace = Literal["own", "murray"]


class RFLO(Broadcast, OfflineRule):
    """Random-feedback local online learning (Murray 2019).

    Args:
        feedback: how the output error reaches the neurons: random, sparse random, or symmetric (W_out).
        trace: "own" follows each neuron's own dynamics, "murray" is the published trace taken literally.
        **feedback_options: see `bpgen.rules.Broadcast`.
    """

    traits = Traits(
        signal_origin="random feedback",
        signal_scope="broadcast",
        recurrence="diagonal",
        weight_transport=False,
        needs_future=False,
        time_per_step="N",
        exact_when="W_rec = 0 with symmetric feedback",
    )

    def __init__(
        self,
        feedback: FeedbackName = "random",
        trace: Trace = "own",
        **feedback_options: Any,
    ) -> None:
        super().__init__(feedback, **feedback_options)
        self.trace = choice("trace of rflo", trace, Trace)

    def bind(self, network: Network, seed: int = 0) -> "RFLO":
        """Refuse the literal trace where it is not defined."""
        super().bind(network, seed)
        if self.trace == "murray" and not isinstance(network.neuron, Leaky):
            raise BpgenError("rflo with trace='murray' is defined for leaky neurons; use trace='own' for others.")
        return self

    def credit(self, trajectory: Trajectory, error: Tensor) -> Credit:
        """Equation (3) or (4)."""
        q = self.feedback.signal(trajectory, error)
        return propagate(trajectory, q) if self.trace == "own" else _murray(trajectory, learning_signal(trajectory, q))


def _murray(trajectory: Trajectory, q: Tensor) -> Credit:
    """Equation (4), as a backward filter."""
    neuron, T = trajectory.network.neuron, trajectory.n_steps
    assert isinstance(neuron, Leaky)
    phi, alpha = ACTIVATIONS[neuron.activation], neuron.alpha
    carried, steps = torch.zeros_like(q[0]), []
    for t in reversed(range(T)):
        from_end = t - (T - len(q))
        carried = (1 - alpha) * carried + (q[from_end] if from_end >= 0 else 0)
        steps.append(carried)
    filtered = torch.stack(steps[::-1])
    output = phi.apply(trajectory.currents[1:].squeeze(-2)) if neuron.leak == "rate" else trajectory.h[1:]
    return Credit((alpha * phi.pull(filtered, output)).unsqueeze(-2))
