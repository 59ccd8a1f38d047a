"""Sign feedback: a three-factor rule whose error travels through the signs of the readout weights.

    (1) q_t = ē_t · scale/√N · sign(W_out)                              learning signal
    (2) λ_t = D_tᵀ q_t + A_{t+1}ᵀ λ_{t+1},   c_t = C_tᵀ λ_t             credit, along each neuron's own path
    (3) ∂L/∂W_rec ≈ Σ_t c_t h_{t-1}ᵀ                                    from the framework
Source: Liao, Leibo and Poggio 2016 (sign-concordant feedback), here for the readout of a recurrent network.
Shapes: ē [T,B,O], q [T,B,N], λ [T,B,d,N], c [T,B,K,N].
Cost: N per step and sample, plus the N² weight product; memory T·N. Neurons: all.
Exact: at W_rec = 0, where W_out is made of signs of one size.
"""

from collections.abc import Mapping

from torch import Tensor

from bpgen.rules import Credit, OfflineRule, Traits, Trajectory, propagate


class SignFeedback(OfflineRule):
    """Three-factor rule with sign-symmetric feedback.

    Args:
        scale: size of a feedback weight is scale/√N.
    """

    traits = Traits(
        signal_scope="broadcast",  # every neuron hears a projection of the output error
        recurrence="diagonal",  # credit stays in the neuron
        weight_transport=False,  # the signs alone are known, not the weights
        needs_future=False,
        time_per_step="N",
        exact_when="W_rec = 0",  # where it equals BPTT, at `limit_weights`: there its credit is checked
    )

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def credit(self, trajectory: Trajectory, error: Tensor) -> Credit:
        """Equations (1) and (2)."""
        return propagate(trajectory, error @ self.feedback(trajectory.params["W_out"]))

    def feedback(self, W_out: Tensor) -> Tensor:
        """The signs of W_out [O,N], all of one size."""
        return self.scale / W_out.shape[1] ** 0.5 * W_out.sign()

    def limit_weights(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Where W_out is made of signs, its feedback is the true one."""
        return {"W_out": self.feedback(params["W_out"])}
