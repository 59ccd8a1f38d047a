"""Backpropagation through time: the exact gradient, which no brain can run.

    (1) λ_t = D_tᵀ (q_t + W_recᵀ c_{t+1}) + A_{t+1}ᵀ λ_{t+1},   c_t = C_tᵀ λ_t,   q_t = ē_t W_out
    (2) ∂L/∂W_rec = Σ_t c_t h_{t-1}ᵀ
and, in a network with output feedback, along (1), (2) of `bpgen.rules.output_feedback`.
Source: Rumelhart, Hinton and Williams 1986; Werbos 1990, Proc. IEEE 78.
Shapes: ē [T,B,O], q [T,B,N], λ [T,B,d,N], c [T,B,K,N].
Cost: N² per step and sample; memory T·N. Exact: always; the oracle of every other rule. Neurons: all.
"""

from torch import Tensor

from bpgen.rules import Credit, Feedback, OfflineRule, Traits, Trajectory, propagate


class BPTT(OfflineRule):
    """Backpropagation through time: credit travels back along every path, through the exact weights."""

    traits = Traits(exact_when="always")

    def __init__(self) -> None:
        super().__init__()
        self.feedback = Feedback("symmetric")

    def credit(self, trajectory: Trajectory, error: Tensor) -> Credit:
        """Equation (1)."""
        q = self.feedback.signal(trajectory, error)
        return propagate(trajectory, q, carrier=trajectory.params["W_rec"], through_outputs=True)
