"""Readout only: the recurrent network is a fixed reservoir and W_out alone learns.

    (1) ∂L/∂W_rec ≈ 0, ∂L/∂W_in ≈ 0;   ∂L/∂W_out = Σ_t e_t r_tᵀ, exact
Source: Jaeger 2001 (echo state networks); Maass, Natschläger and Markram 2002 (liquid state machines).
Shapes: e [T,B,O], r [T,B,N], credit [0,B,K,N].
Cost: nothing per step beyond the forward pass; memory T·N. Exact: never. Neurons: all. The local null of every study.
"""

from torch import Tensor

from bpgen.rules import OfflineRule, Traits, Trajectory


class ReadoutOnly(OfflineRule):
    """Readout only: a fixed reservoir with a trained linear readout."""

    trains_neurons = False
    traits = Traits(
        signal_origin="none",
        signal_scope="none",
        recurrence="none",
        weight_transport=False,
        needs_future=False,
        time_per_step="0",
        trains=("W_out", "b_out"),
    )

    def credit(self, trajectory: Trajectory, error: Tensor) -> Tensor:
        """Equation (1): credit at the last 0 steps."""
        neuron = trajectory.network.neuron
        return trajectory.h.new_zeros(0, trajectory.h.shape[1], neuron.n_currents, trajectory.network.n_rec)
