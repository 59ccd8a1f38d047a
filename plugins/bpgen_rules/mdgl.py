"""Multidigraph learning (MDGL): e-prop plus credit that crosses exactly one recurrent synapse, known by cell type.

    (1) a_t = C_tᵀ D_tᵀ q_t            modulator a neuron secretes [K,N]; α φ'(v_t) q_t on a leaking potential
    (2) q'_t = q_t + W̄ᵀ a_{t+1}        it reaches the neurons presynaptic to it one step earlier
    (3) λ_t = D_tᵀ q'_t + A_{t+1}ᵀ λ_{t+1},  c_t = C_tᵀ λ_t       their own path, as in `three_factor`: Σ_t q'_t e_t
Which W̄ (--rule.weights):
    cell_type  the mean over the existing synapses between two cell types, zero where no synapse exists (the paper)
    nonlocal   the mean over all pairs, existing or not, and from all neurons to all ("NL-MDGL")
    true       the weights themselves: MDGL before its approximation
What arrives (--rule.tail):
    one_step   (2), the form of the released code: of what a neuron's current does later through its own leak, nothing
    leaky      q'_t = q_t + W̄ᵀ c⁰_{t+1}, c⁰ the credit of e-prop: with true weights exactly the first-order term in W
    online     one_step where a leaky readout (κ) would make a synapse wait for later errors. With u_t = B e_t the error
               before the readout filters it back, and F the readout filter, run forward on two factors apart:
               (4) q'_t = q_t + Σ_{k>=t} κ^{k-t} (1-κ) W̄ᵀ [F(CᵀD)_{k+1} u_{k+1}]: Σ_t a_{t+1} F(e)_t with a = F(CᵀD) u.
               Equal to one_step at κ = 0 ("OnMDGL").
Source: Liu, Smith, Mihalas, Shea-Brown and Sümbül 2021, PNAS 118 (51): (2) and (4) as in their released code.
Deviation: any neuron, by its A, C, D; the readout has its exact gradient; weights change after the sequence. A cost of
the activity takes part as in one_step, since it does not pass the readout.
Shapes: q [T,B,N], a [T,B,K,N], W̄ [K·N,N]. Cost: N² per step and sample; memory T·N. Exact: W_rec = 0, or T = 1.
Neurons: all.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from bpgen.rules import (
    Broadcast,
    Credit,
    OfflineRule,
    Traits,
    Trajectory,
    choice,
    filtered,
    filtered_back,
    hop,
    learning_signal,
    propagate,
    type_average,
)

Tail = Literal["one_step", "leaky", "online"]
Weights = Literal["cell_type", "nonlocal", "true"]


class MDGL(Broadcast, OfflineRule):
    """Multidigraph learning (Liu et al. 2021): e-prop plus credit across one synapse, by cell type.

    Args:
        tail: what arrives across a synapse: one_step (released code), leaky, or online for leaky readouts.
        weights: what is known of a synapse: the average of its cell types, nonlocal (from all neurons), or true.
        **feedback: see `bpgen.rules.Broadcast`.
    """

    traits = Traits(recurrence="sparse", needs_future=False, exact_when="W_rec = 0")

    def __init__(
        self,
        tail: Tail = "one_step",
        weights: Weights = "cell_type",
        **feedback: Any,
    ) -> None:
        super().__init__(**feedback)
        self.tail, self.weights = choice("tail of mdgl", tail, Tail), choice("weights of mdgl", weights, Weights)

    def credit(self, trajectory: Trajectory, error: Tensor) -> Credit:
        """Equation (3), of the signal that `tail` names."""
        q, W = self.feedback.signal(trajectory, error), trajectory.params["W_rec"]
        if self.weights != "true":
            W = type_average(W, trajectory.network, over="existing" if self.weights == "cell_type" else "all")
        if self.tail == "leaky":
            return propagate(trajectory, q, carrier=W, hops=1)
        if self.tail == "one_step" or trajectory.network.kappa == 0:
            return propagate(trajectory, hop(_modulator(trajectory, learning_signal(trajectory, q)), W, q))
        at_once = learning_signal(trajectory, torch.zeros_like(q))  # what does not pass the readout
        arriving = self._online(trajectory, error, W) + hop(_modulator(trajectory, at_once), W)
        return propagate(trajectory, torch.cat([arriving[:1], arriving[1:] + q]))

    def _online(self, trajectory: Trajectory, error: Tensor, W: Tensor) -> Tensor:
        """What arrives in (4), at t = 0..T; error [T,B,O] is filtered back, and undone here."""
        kappa, T = trajectory.network.kappa, trajectory.n_steps
        e = (error - kappa * torch.cat([error[1:], torch.zeros_like(error[:1])])) / (1 - kappa)
        u = self.feedback.signal(trajectory, e)
        slope = filtered(_modulator(trajectory, torch.ones_like(u)), kappa)
        return filtered_back(hop(slope * u.unsqueeze(-2), W), kappa, T + 1)


def _modulator(trajectory: Trajectory, q: Tensor) -> Tensor:
    """Equation (1): a [L,B,K,N] at the last L steps."""
    times = slice(trajectory.n_steps + 1 - q.shape[0], trajectory.n_steps + 1)
    return trajectory.local.C.pull(trajectory.local.D.pull(q.unsqueeze(-2), times), times)
