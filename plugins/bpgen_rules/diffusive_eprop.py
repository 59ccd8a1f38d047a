"""E-prop with diffusing neuromodulators: few neurons get the error, and it spreads to those around them.

    (1) m_t = K m_{t-1} + B e_t,  m_0 = 0        concentration at each neuron's site on a torus; B sparse and random
    (2) K = k M                                   k < 1 the decay, M the mean over the 3 x 3 sites around
    (3) ∂L/∂w ≈ Σ_t L_t ē_t,      L_t = m_t       at the steps t that have an error; ē_t the trace of `eprop_online`
    (4) computed as q_t = κ q_{t+1} + (1-κ) L_t, sent back along each neuron's own path: the same sum
Source: Barretto-Bittar, Levina, Giannakakis and Zeraati 2026, arXiv 2603.08949, and the authors' code (k = 0.75).
So L_t = Σ_s K^s B e_{t-s}: an error arrives late, and meets the trace of then. With a loss at the last step alone it
has no time to spread, and the rule is e-prop. K has its eigenvalues in [-k/3, k] and leaves k of the total at every
step; a steady source fills up to 1/(1-k), so compare at matched norms or with Adam. kernel="permuted" and "redrawn" are
K between other pairs of neurons, with the same eigenvalues: what they lose is geometry.
Their networks: half LIF, half ALIF with adaptation="scaled", network.torus 0.012, network.readout_density 0.1.
Deviation: B is random and sparse, theirs the readout's initial weights; the readout has its exact gradient; the cost of
the activity is the framework's, undiffused as theirs; gradients are sums over the window where theirs are means.
Shapes: e [T,B,O], B [O,N], m, L and q [T,B,N], M and K [N,N]; ē never in memory.
Cost: N² per step and sample (the spread, 9 N on a grid), plus the N² weight product; memory T·N.
Exact: W_rec = 0 with symmetric feedback and k = 0. At k = 0 it is `eprop` with the same feedback. Neurons: all.
"""

import torch
from torch import Tensor

from bpgen.rules import Credit, Draws, Limit, OfflineRule, Traits, Trajectory, filtered_back, propagate
from bpgen_rules._diffusion import Diffusing, order_at, window


class DiffusiveEProp(Diffusing, OfflineRule):
    """E-prop whose sparse learning signal diffuses between neurons on a torus (Barretto-Bittar et al. 2026)."""

    traits = Traits(
        signal_origin="random feedback",
        signal_scope="broadcast",
        recurrence="diagonal",
        weight_transport=False,
        needs_future=False,
        exact_when=Limit(("W_rec = 0",), symmetric_feedback=True, condition="without diffusion (k = 0)"),
        exact_with={"decay": 0.0},
    )

    def told(self, trajectory: Trajectory, error: Tensor, draws: Draws) -> Tensor:
        """Equations (1) to (4): q [T,B,N], of e [L,B,O] at the last L steps."""
        direct, before = self.feedback.signal(trajectory, error), trajectory.n_steps - len(error)
        field, fields = direct[0], [direct[0]]
        for i, added in enumerate(direct[1:], start=1):
            field = self.spread(field, order_at(draws, before + i)) + added
            fields.append(field)
        heard = torch.stack(fields) * window(error)
        return filtered_back(heard, trajectory.network.kappa, trajectory.n_steps)

    def credit(self, trajectory: Trajectory, error: Tensor) -> Credit:
        """Equation (4), of what the neurons were told."""
        return propagate(trajectory, error)
