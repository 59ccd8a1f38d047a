"""Sign-symmetric feedback: a three-factor rule whose error travels through the signs of the readout weights.

    (1) q_t = ē_t · scale/√N · sign(W_out),   λ_t = D_tᵀ q_t + A_{t+1}ᵀ λ_{t+1},   c_t = C_tᵀ λ_t
Source: Liao, Leibo and Poggio 2016 (sign-concordant feedback), here for the readout of a recurrent network.
"""

from torch import Tensor

from bpgen.rules import Credit, OfflineRule, Traits, propagate
from bpgen.trajectory import Trajectory


class SignFeedback(OfflineRule):
    """Three-factor rule with sign-symmetric feedback.

    Args:
        scale: size of a feedback weight is scale/√N.
    """

    traits = Traits(signal_scope="broadcast", weight_transport=False, needs_future=False, online=True)

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def credit(self, trajectory: Trajectory, error: Tensor) -> Credit:
        """Equation (1)."""
        W_out = trajectory.params["W_out"]
        return propagate(trajectory, error @ (self.scale / W_out.shape[1] ** 0.5 * W_out.sign()))
