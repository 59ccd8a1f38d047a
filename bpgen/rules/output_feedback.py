"""The error's way back through output feedback, I_t = W_rec h_{t-1} + W_in x_t + W_fb y_{t-1} + b_rec with y_0 = 0.

y_t = W_out r_t + b_out then acts on the loss at t and on the currents at t+1, so that its credit is
    (1) e_t + u_t,   u_t = W_fbᵀ c_{t+1}                           t = 1..T; nothing follows t = T
That gives the gradients of W_out and b_out, Σ_t (e_t + u_t) r_tᵀ, and goes on to the activities by the readout filter:
    (2) f_t = κ f_{t+1} + (1-κ) u_t,    q_t <- q_t + f_t W_out     t = 1..T; y_0 and r_0 do not depend on h_0
At κ = 0 this is one more carrier of rank O, W_fb W_out, next to W_rec: credit crosses between neurons here, and no rule
that is local in that sense can follow it. A cut of all paths (truncation in blocks) cuts c_{t+1} and f_{t+1}.
"""

from __future__ import annotations

from torch import Tensor

from bpgen.network import Trajectory


class OutputFeedback:
    """Equations (1) and (2), one step back at a time.

    Args:
        trajectory: the run, of a network with output feedback.
        signal: q [L,B,N], for its shape and type.

    Attributes:
        u: u_t [B,O], the latest step first.
    """

    def __init__(self, trajectory: Trajectory, signal: Tensor) -> None:
        W_fb = trajectory.network.W_fb
        assert W_fb is not None, "only a network with output feedback has this path"
        self._W_fb, self._W_out = W_fb, trajectory.params["W_out"]
        self._kappa = trajectory.network.kappa
        self._nothing = self._f = signal.new_zeros(*signal.shape[1:-1], W_fb.shape[1])
        self.u: list[Tensor] = []

    def back(self, c: Tensor | None) -> Tensor:
        """f_t W_out [B,1,N] from c_{t+1} [B,K·N]; with None all paths from later steps are cut."""
        u = self._nothing if c is None else c @ self._W_fb
        self._f = u if c is None else self._kappa * self._f + (1 - self._kappa) * u
        self.u.append(u)
        return (self._f @ self._W_out).unsqueeze(-2)
