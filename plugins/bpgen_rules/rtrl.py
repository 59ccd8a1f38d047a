"""Real-time recurrent learning: the exact gradient, forward in time.

    (1) S_t = J_t S_{t-1} + C_t ∂I_t/∂θ,    J_t = A_t + C_t W_rec D_{t-1}      influence ∂s_t/∂θ of all recurrent θ
    (2) G_t = κ G_{t-1} + (1-κ) D_t S_t                                        influence on what the readout sees
    (3) ∂L/∂θ = Σ_t (e_t W_out) G_t
Source: Williams and Zipser 1989, Neural Computation 1; the leaky readout (2) is bpgen's.
A learned initial state is part of θ: its influence starts as the identity. ∂I_t/∂θ is not stored (`Moment.direct`).
Deviation: none for a weight change after the sequence; with changes within it (chunks) S_t holds sensitivities at
the weights of earlier steps, as in the paper.
Shapes: S [B,d,N,N,X], X = K(N+I+1) parameters of one neuron; G [B,N,N,X], kept apart only if κ > 0.
Cost: N⁴ per step and sample (N³ parameters times N, for d = K = 1); memory N³, flat in T.
Exact: always, at fixed weights; equal to `bptt`. Neurons: all.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from bpgen.rules import Increments, Limit, Moment, Network, OnlineRule, State, Traits, own_influence


class RTRL(OnlineRule):
    """Real-time recurrent learning (Williams and Zipser 1989): exact and online, for N⁴ work a step."""

    suits: ClassVar[Mapping[str, Any]] = {"network.n_rec": 32}  # 128 neurons take hours on the default task
    trains_neurons = True
    traits = Traits(
        needs_future=False,
        online=True,
        time_per_step="N⁴",
        memory="N³",
        exact_when=Limit(("always",), condition="at fixed weights"),
    )

    def start(self, network: Network, params: Mapping[str, Tensor], batch: int) -> State:
        """S_0: neuron p's own initial state acts on p."""
        own = own_influence(network, params, batch)  # [B,d,X]
        N = network.n_rec
        influence = own[:, :, None, None] * torch.eye(N).to(own)[..., None]  # [B,d,N,N,X]
        return {"influence": influence, **({"read": torch.zeros_like(influence[:, 0])} if network.kappa else {})}

    def step(self, state: State, moment: Moment) -> tuple[State, Increments]:
        """Equations (1) to (3)."""
        S = state["influence"]
        currents = moment.hop(S)  # [B,K,N,N,X]
        currents.diagonal(dim1=2, dim2=3).add_(moment.of_each.transpose(2, 3))  # [B,K,X,N]: neuron p's own parameters
        S = moment.own(S) + moment.drive(currents)
        G = moment.read(S)
        if moment.kappa:
            G = moment.kappa * state["read"] + (1 - moment.kappa) * G
        state = {"influence": S, **({"read": G} if moment.kappa else {})}
        if moment.error is None:
            return state, {}
        q = moment.error @ moment.params["W_out"]
        return state, moment.gradient(torch.einsum("bk,bkpx->px", q, G))
