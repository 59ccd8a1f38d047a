"""Sketched RTRL: the influence as each neuron's own part and r directions of the rest, with a bound on what is missing.

    P_t = ∂s_t/∂θ ≈ S_t + U_t R_tᵀ,   J_t = J°_t + Ĵ_t     into what a neuron does to itself, and to all others
    (1) S_t = J°_t S_{t-1} + C_t ∂I_t/∂θ                     the neuron's own part: that of `snap` with n = 1
    (2) M_t = J_t U_{t-1} R_{t-1}ᵀ + Ĵ_t S_{t-1}             the rest: what there was, and what leaves its neuron now
    (3) U_t = the first r left singular vectors of M_t,   R_t = M_tᵀ U_t,   Δ_t = M_t - U_t R_tᵀ is dropped
    (4) ∂L/∂θ ≈ Σ_t q_t (S_t + U_t R_tᵀ),   q_t = e_t W_out D_t
What is missing, E_t = P_t - S_t - U_t R_tᵀ = J_t E_{t-1} + Δ_t, is bounded as it arises; ‖·‖ is the Frobenius norm:
    (5) ‖E_t‖ <= ε_t = ρ_t ε_{t-1} + ‖Δ_t‖,   ρ_t = min(‖J_t‖, √(‖J_t‖₁ ‖J_t‖_∞)) >= ‖J_t‖₂
    (6) E_t E_tᵀ ⪯ Σ_t = (x + y) (J_t Σ_{t-1} J_tᵀ / x + Δ_t Δ_tᵀ / y),   x² = tr J_t Σ_{t-1} J_tᵀ, y² = tr Δ_t Δ_tᵀ
    (7) ‖ĝ - g‖ <= Σ_t Σ_b √(q_t Σ_t q_tᵀ)  and  <= Σ_t Σ_b ‖q_t‖ ε_t
(7) bounds the bias over all recurrent parameters as one vector, without the true gradient: `bias_bound` and
`bias_bound_published` in the result's `aux`. (6) holds for (X+Y)(X+Y)ᵀ ⪯ (1 + y/x) XXᵀ + (1 + x/y) YYᵀ, and follows
directions where (5) takes the worst one at every step: after 28 steps of 32 neurons it is 1.4 to 3.9 times ‖E_t‖, and
(5) more than 10¹¹ times.
Singular vectors are those of M_t M_tᵀ, for which M_t itself is not needed; Δ_t is right to √(machine ε) ‖M_t‖.
Source: Yi and Wang 2026, Certified low-rank RTRL (github sonaradarcn/sketched-rtrl): (1) to (5), for tanh networks.
Deviations: (6), (7); all of Ĵ_t S_{t-1} is taken in before (3) (there a few of its directions, which needs N² r² work
in place of N³), so that (3) is the best there is; a readout with κ > 0 has its filtered activity as one more state.
Shapes: S [B,n,N,X], n = d (+1 if κ > 0) states, X parameters of one neuron; U [B,n·N,r], R [B,N,X,r]; Σ [B,n·N,n·N].
Cost: N² r² + N³ per step and sample (d = K = 1); memory N² r, flat in T.
Exact: r >= n N, where it is `rtrl` (r = 0 is `snap` with n = 1). Neurons: all.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from bpgen.rules import Increments, Limit, Moment, Network, OnlineRule, State, Traits, own_influence, require
from bpgen_rules._filtered_state import direct, told, transition

_TINY = 1e-30


class SKRTRL(OnlineRule):
    """Sketched RTRL (Yi and Wang 2026): SnAp-1, r directions of the rest of the influence, and a bound on the bias.

    Args:
        rank: r, from 0 (SnAp-1) to all N directions (RTRL).
    """

    suits: ClassVar[Mapping[str, Any]] = {"network.n_rec": 32}  # 128 neurons take an hour on the default task
    trains_neurons = True
    traits = Traits(
        needs_future=False,
        online=True,
        time_per_step="N² r² + N³, r the rank",
        memory="N² r",
        exact_when=Limit(("always",), condition="with rank >= N"),
        exact_with={"rank": 1000},
    )

    def __init__(self, rank: int = 4) -> None:
        super().__init__()
        require(rank >= 0, f"rule.rank must be a number of directions, 0 or more, got {rank}.")
        self.rank = rank

    def start(self, network: Network, params: Mapping[str, Tensor], batch: int) -> State:
        """S_0: a learned initial state acts on its neuron. The rest is empty, and nothing is missing."""
        own, N = own_influence(network, params, batch), network.n_rec  # [B,d,X]
        if network.kappa:
            own = torch.nn.functional.pad(own, (0, 0, 0, 1))
        S = own.unsqueeze(2).repeat(1, 1, N, 1)  # [B,n,N,X]
        n, X = S.shape[1], S.shape[3]
        r = min(self.rank, n * N)
        none = {"left": (n * N, r), "right": (N, X, r), "sizes": (r,), "bound": (), "cover": (n * N, n * N)}
        return {"own": S, **{name: S.new_zeros(batch, *shape) for name, shape in none.items()}}

    def step(self, state: State, moment: Moment) -> tuple[State, Increments]:
        """Equations (1) to (7)."""
        S, J = state["own"], transition(moment)
        B, n, N, _ = S.shape
        blocks = J.view(B, n, N, n, N)
        within = blocks.diagonal(dim1=2, dim2=4)  # J° [B,n,n,N]
        across = (blocks * (1 - torch.eye(N).to(J)).unsqueeze(1)).view_as(J)  # Ĵ
        rest, dropped = _rest(state, J, across)
        S = (within.unsqueeze(-1) * S.unsqueeze(1)).sum(2) + direct(moment)
        state = {"own": S, **rest, **_missing(state, J, dropped)}
        if moment.error is None:
            return state, {}
        q = told(moment, moment.error @ moment.params["W_out"])  # [B,n,N]
        row = q.flatten(1).unsqueeze(1)  # [B,1,n·N]
        through = (row @ state["left"]).squeeze(1)  # [B,r]
        own = torch.einsum("bdn,bdnx->nx", q, S) + torch.einsum("br,bnxr->nx", through, state["right"])
        bounds = {
            "bias_bound": (row @ state["cover"] @ row.mT).clamp(min=0).sqrt().sum(),
            "bias_bound_published": (row.flatten(1).norm(dim=1) * state["bound"]).sum(),
        }
        return state, {**moment.gradient(own), **bounds}


def _rest(state: State, J: Tensor, across: Tensor) -> tuple[State, Tensor]:
    """Equations (2) and (3), and Δ_t Δ_tᵀ [B,n·N,n·N]."""
    S, R, sizes = state["own"], state["right"], state["sizes"]
    (B, n, N, _), r = S.shape, sizes.shape[1]
    squares = torch.einsum("bdnx,benx->bden", S, S)  # S Sᵀ, of each neuron [B,n,n,N]
    left = (across.view(B, n * N, n, 1, N) * squares.unsqueeze(1)).sum(2).flatten(2)  # Ĵ S Sᵀ
    if r == 0:
        return {name: state[name] for name in ("left", "right", "sizes")}, left @ across.mT
    moved = J @ state["left"]  # J U [B,n·N,r]
    met = torch.einsum("bnxr,bdnx->brdn", R, S).flatten(2)  # Rᵀ Sᵀ [B,r,n·N]
    cross = (moved @ met + 0.5 * left) @ across.mT
    gram = (moved * sizes.unsqueeze(1)) @ moved.mT + cross + cross.mT  # M Mᵀ; Rᵀ R is diagonal
    finite = gram.flatten(1).isfinite().all(1)[:, None, None]  # a run that diverges says so by its gradients
    found, vectors = torch.linalg.eigh(torch.where(finite, gram, 0.0))
    found, vectors = found.clamp(min=0), torch.where(finite, vectors, torch.nan)
    V, U = vectors[..., :-r], vectors[..., -r:]
    fresh = (across.mT @ U).view(B, n, N, 1, r)
    R = (R.flatten(1, 2) @ (moved.mT @ U)).view_as(R)
    for d in range(n):
        R = torch.addcmul(R, S[:, d].unsqueeze(-1), fresh[:, d])
    return {"left": U, "right": R, "sizes": found[:, -r:]}, (V * found[:, None, :-r]) @ V.mT


def _missing(state: State, J: Tensor, dropped: Tensor) -> State:
    """Equations (5) and (6)."""
    size = J.abs()
    rho = torch.minimum(J.flatten(1).norm(dim=1), (size.sum(1).amax(1) * size.sum(2).amax(1)).sqrt())
    came = J @ state["cover"] @ J.mT
    x, y = (_trace(square).clamp(min=0).sqrt() for square in (came, dropped))
    cover = (came / x.clamp(min=_TINY)[:, None, None] + dropped / y.clamp(min=_TINY)[:, None, None]) * (x + y)[
        :, None, None
    ]
    return {"bound": rho * state["bound"] + y, "cover": cover}


def _trace(square: Tensor) -> Tensor:
    return square.diagonal(dim1=1, dim2=2).sum(1)
