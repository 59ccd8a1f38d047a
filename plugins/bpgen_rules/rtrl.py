"""Real-time recurrent learning: the exact gradient, forward in time.

    (1) S_t = J_t S_{t-1} + C_t ∂I_t/∂θ,    J_t = A_t + C_t W_rec D_{t-1}      influence ∂s_t/∂θ of all recurrent θ
    (2) G_t = κ G_{t-1} + (1-κ) D_t S_t                                        influence on what the readout sees
    (3) ∂L/∂θ = Σ_t (e_t W_out) G_t
Source: Williams and Zipser 1989, Neural Computation 1; the leaky readout (2) is bpgen's.
Over many steps at fixed weights, with P_t = J_k ... J_{t+1}, S_k is taken at the end alone and credit goes backwards:
    (4) S_k = P_0 S_0 + Σ_t P_t C_t ∂I_t/∂θ
    (5) Σ_t (e_t W_out) D_t S_t = Σ_t c_t ∂I_t/∂θ + λ_0 S_0     c, λ_0: BPTT's credit of these steps, and of their start
A learned initial state is part of θ: its influence starts as the identity. ∂I_t/∂θ is not stored (`Moment.direct`).
Deviation: none for a weight change after the sequence; with changes within it (chunks) S_t holds sensitivities at
the weights of earlier steps, as in the paper.
Shapes: S [B,d,N,N,X], X = K(N+I+1) parameters of one neuron; G [B,N,N,X], kept apart only if κ > 0.
Cost: N⁴ per step and sample (N³ parameters times N, for d = K = 1), N³ over many steps; memory N³, flat in T.
Exact: always, at fixed weights; equal to `bptt`. Neurons: all.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from bpgen.rules import (
    Increments,
    Limit,
    Moment,
    Network,
    OnlineRule,
    State,
    Steps,
    Traits,
    block_gradients,
    own_influence,
    propagate,
)

_PIECE = 16  # steps whose products with presynaptic sides are one


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

    at_once = True
    filters_back = True

    def block(self, state: State, steps: Steps) -> tuple[State, Increments]:
        """Equations (4) and (5)."""
        run, S = steps.run, state["influence"]
        credit = propagate(run, steps.error_back @ run.params["W_out"], carrier=run.params["W_rec"])
        met = None if credit.initial is None else torch.einsum("bdn,bdnpx->px", credit.initial, S)
        end = state if steps.ends else {"influence": _influence_after(steps, S)}
        return end, block_gradients(run, credit, met)

    def step(self, state: State, moment: Moment) -> tuple[State, Increments]:
        """Equations (1) to (3)."""
        S = state["influence"]
        S = (moment.J @ S.flatten(3).flatten(1, 2)).view(S.shape)
        added = torch.stack([moment.of_credit(C) for C in moment.C.unbind(1)], dim=1)  # neuron p's own parameters
        S.diagonal(dim1=2, dim2=3).add_(added.transpose(2, 3))
        if moment.kappa:
            G = moment.kappa * state["read"] + (1 - moment.kappa) * moment.read(S)
            state = {"influence": S, "read": G}
        else:
            state = {"influence": S}
        if moment.error is None:
            return state, {}
        q = moment.error @ moment.params["W_out"]
        if moment.kappa:
            return state, moment.gradient(torch.einsum("bk,bkpx->px", q, G))
        return state, moment.gradient(torch.einsum("bdk,bdkpx->px", q.unsqueeze(1) * moment.D, S))


def _influence_after(steps: Steps, S: Tensor) -> Tensor:
    """Equation (4): S_k [B,d,N,N,X], from the last step back."""
    B, d, N, _, X = S.shape
    pre, rest = steps.pre, X - steps.C.shape[3] * steps.pre.shape[-1]  # a learned initial state has no source
    P = torch.eye(d * N).to(S).expand(B, -1, -1)
    came: Tensor | None = None
    for last in range(len(pre), 0, -_PIECE):
        first, weights = max(0, last - _PIECE), []
        for t in range(last, first, -1):
            C = steps.C[t - 1]  # [B,d,K,N]
            weights.append((P.view(B, d * N, d, 1, N) * C.unsqueeze(1)).sum(2))  # P_t C_t [B,d·N,K,N]
            P = P @ Moment.of(steps, t).J
        factors = torch.stack(weights[::-1], dim=-1)  # [B,d·N,K,N,k]
        here = factors.flatten(1, 3) @ pre[first:last].transpose(0, 1)  # [B,d·N·K·N,Q]
        came = here if came is None else came + here
    assert came is not None
    added = came.view(B, d, N, -1, N, pre.shape[-1]).transpose(3, 4).flatten(4)  # [B,d,N,N,K·Q]
    added = torch.nn.functional.pad(added, (0, rest)) if rest else added
    return (P @ S.flatten(3).flatten(1, 2)).view(S.shape) + added
