"""Three-factor rule with symmetric feedback (e-prop): credit stays in the neuron that caused it.

    (1) ε_t = A_t ε_{t-1} + C_t h_{t-1}ᵀ          eligibility vector of a synapse, [d] per synapse
    (2) e_t = D_t ε_t                             eligibility trace
    (3) ∂L/∂W_rec ≈ Σ_t q_t e_t,   q_t = ē_t W_out     learning signal: the partial derivative ∂L/∂h_t
    (4) computed as λ_t = D_tᵀ q_t + A_{t+1}ᵀ λ_{t+1},  c_t = C_tᵀ λ_t,  Σ_t c_t h_{t-1}ᵀ: the same sum, for O(N)
        instead of O(N²) work a step, and no trace in memory
    (5) leaky readout (κ): ē is the error filtered back, ē_t = κ ē_{t+1} + (1-κ) e_t; the same sum as the instantaneous
        error times the filtered trace, Σ_t (e_t W_out) F_κ(e)_t, which is how it runs online
    (6) a cost E of the activity adds ∂E/∂h_t to q_t at all steps: for the rates of Bellec 2020, c (f - f*) / T
For LIF and ALIF with reset="detached", (1) and (2) are the published eligibility vectors (`bpgen.neurons.lif`).
Deep e-prop is this rule on layers, the areas of a network (`network.areas`): no credit goes from layer to layer, each
hears the output error by feedback of its own (feedback = "random"; by W_out those alone that the readout sees).
Source: Bellec et al. 2020, Nat. Commun. 11:3625; the "three-factor" rule of Liu et al. 2022,
whose released code is (1) to (3) with α = 1 and a loss at the last step, where it is the last-step outer product.
Deviation: the readout is trained with its exact gradient, and weights change after the sequence, not within.
Shapes: ē [T,B,O], q [T,B,N], λ [T,B,d,N], c [T,B,K,N]; ε_t [d] and e_t a number per synapse, never in memory.
Cost: N per step and sample, plus the N² weight product; memory T·N. Exact: W_rec = 0, or T = 1. Neurons: all.
"""

from torch import Tensor

from bpgen.rules import Broadcast, Credit, OfflineRule, Traits, Trajectory, propagate


class ThreeFactor(Broadcast, OfflineRule):
    """Three-factor rule (e-prop): eligibility trace times learning signal, with symmetric feedback."""

    traits = Traits(
        signal_scope="broadcast",
        recurrence="diagonal",
        needs_future=False,
        time_per_step="N",
        exact_when="W_rec = 0",
    )

    def credit(self, trajectory: Trajectory, error: Tensor) -> Credit:
        """Equation (4)."""
        return propagate(trajectory, self.feedback.signal(trajectory, error))
