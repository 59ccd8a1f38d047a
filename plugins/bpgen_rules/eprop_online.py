"""E-prop forward in time: an eligibility trace in every synapse, multiplied by a learning signal as it comes.

    (1) ε_t = A_t ε_{t-1} + C_t ∂I_t/∂w           eligibility vector of a synapse [d], along its neuron's own path
    (2) ē_t = κ ē_{t-1} + (1-κ) D_t ε_t           eligibility trace, filtered as the readout filters
    (3) ∂L/∂w ≈ Σ_t q_t ē_t,   q_t = e_t B        learning signal of the instantaneous error; B = W_out by default
Source: Bellec et al. 2020, Nat. Commun. 11:3625, and its methods for (2).
For ALIF, (1) is their trace (`bpgen.neurons.lif`, 5). The sum over a sequence is that of `eprop`, which filters
the learning signal backwards instead; a learned initial state is a parameter with ε_0 = 1.
Deviation: the readout has its exact gradient.
Shapes: ε [B,d,N,X], ē [B,N,X], X = K(N+I+1) weights of one neuron.
Cost: N² per step and sample; memory N², flat in T.
Exact: W_rec = 0; always equal to `eprop`, and to `snap` with n = 1 without autapses. Neurons: all.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from bpgen.rules import Broadcast, Increments, Moment, Network, OnlineRule, State, Traits, own_influence


class EPropOnline(Broadcast, OnlineRule):
    """E-prop with explicit eligibility traces, online."""

    traits = Traits(
        signal_scope="broadcast",
        recurrence="diagonal",
        needs_future=False,
        online=True,
        time_per_step="N²",
        memory="N²",
        exact_when="W_rec = 0",
    )

    def start(self, network: Network, params: Mapping[str, Tensor], batch: int) -> State:
        """ε_0 and ē_0."""
        own = own_influence(network, params, batch)  # [B,d,X]
        vector = own.unsqueeze(2).repeat(1, 1, network.n_rec, 1)
        return {"vector": vector, **({"trace": torch.zeros_like(vector[:, 0])} if network.kappa else {})}

    def step(self, state: State, moment: Moment) -> tuple[State, Increments]:
        """Equations (1) to (3)."""
        vector, trace = self.follow(state["vector"], moment)
        if moment.kappa:
            trace = moment.kappa * state["trace"] + (1 - moment.kappa) * trace
        state = {"vector": vector, **({"trace": trace} if moment.kappa else {})}
        if moment.error is None:
            return state, {}
        q = self.feedback.signal(moment, moment.error)
        return state, moment.gradient(torch.einsum("bn,bnx->nx", q, trace))

    def follow(self, vector: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
        """Equation (1), and D_t ε_t: from ε_{t-1} [B,d,N,X] to ε_t and [B,N,X]."""
        direct = moment.direct.unsqueeze(2)  # [B,K,1,X]
        vector = moment.own(vector) + moment.drive(direct.expand(-1, -1, vector.shape[2], -1))
        return vector, moment.read(vector)
