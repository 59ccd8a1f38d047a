"""Kronecker-factored RTRL: the influence as a presynaptic vector times a matrix, right on average.

With u_t ⊗ M_t in place of the influence ∂s_t/∂w, v_t = (h_{t-1}, x_t, 1) the presynaptic side, and two signs ν₁, ν₂:
    (1) u_t = ν₁ p₁ u_{t-1} + ν₂ p₂ v_t,    M_t = ν₁ J_t M_{t-1} / p₁ + ν₂ C_t / p₂
    (2) p₁ = √(‖J_t M_{t-1}‖ / ‖u_{t-1}‖),   p₂ = √(‖C_t‖ / ‖v_t‖)                      for the least variance
    (3) R_t = κ ν₁ R_{t-1} / p₁ + (1-κ) D_t M_t,   ∂L/∂w ≈ Σ_t (e_t W_out R_t) ⊗ u_t
Source: Mujika, Meier and Steger 2018, NeurIPS (arXiv 1805.10842); J_t as in `rtrl`. The new influence of
every neuron and current is C_t times the same v_t, which is all that the method needs: it holds for d, K > 1 too.
Norms are per sample (Frobenius for matrices), ε = 1e-7 is added to each.
Deviation: (3) with κ > 0. A learned initial state earns nothing.
Limits: unbiased at fixed weights only.
Shapes: u [B,Q], Q = N+I+1; M [B,d,N,K·N], R [B,N,K·N]; draws "signs" [T,B,2].
Cost: N³ per step and sample; memory N², flat in T. Exact: on average over ν. Neurons: all.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from bpgen.rules import Increments, Limit, Moment, Network, OnlineRule, State, Traits
from bpgen_rules.uoro import balance, scaled


class KFRTRL(OnlineRule):
    """Kronecker-factored RTRL (Mujika 2018): unbiased, with less noise than UORO for N times the work."""

    traits = Traits(
        needs_future=False,
        online=True,
        time_per_step="N³",
        memory="N²",
        stochastic=True,
        unbiased=True,
        exact_when=Limit(on_average=True, condition="at fixed weights"),
    )

    def draw(self, network: Network, x: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """Signs ν₁, ν₂ [T,B,2]."""
        return {"signs": (2 * torch.randint(2, (*x.shape[:2], 2), generator=random) - 1).to(x.dtype)}

    def start(self, network: Network, params: Mapping[str, Tensor], batch: int) -> State:
        """No influence yet."""
        K, d, N, like = network.neuron.n_currents, network.neuron.n_states, network.n_rec, params["W_rec"]
        Q = N + network.n_in + ("b_rec" in params)
        shapes = {"u": (Q,), "M": (d, N, K * N), "R": (N, K * N)}
        return {name: like.new_zeros(batch, *shape) for name, shape in shapes.items()}

    def step(self, state: State, moment: Moment) -> tuple[State, Increments]:
        """Equations (1) to (3)."""
        one, two = moment.draws["signs"].unbind(-1)  # [B] each
        v, M, kappa = moment.pre, state["M"], moment.kappa
        JM = moment.own(M) + moment.drive(moment.hop(M))
        C = torch.diag_embed(moment.C).transpose(2, 3).flatten(-2)  # [B,d,N,K·N]: each neuron's own currents
        p_1, p_2 = balance(JM, state["u"]), balance(C, v)
        u = scaled(one * p_1, state["u"]) + scaled(two * p_2, v)
        M = scaled(one / p_1, JM) + scaled(two / p_2, C)
        R = (1 - kappa) * moment.read(M) + (scaled(kappa * one / p_1, state["R"]) if kappa else 0)
        state = {"u": u, "M": M, "R": R}
        if moment.error is None:
            return state, {}
        post = torch.einsum("bn,bnj->bj", moment.error @ moment.params["W_out"], R)  # [B,K·N]
        return state, moment.synapses(post.mT @ u)
