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

from bpgen.rules import Increments, Limit, Moment, Network, OnlineRule, State, Steps, Traits, gradients_of_currents
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

    at_once = True

    def block(self, state: State, steps: Steps) -> tuple[State, Increments]:
        """Equations (1) to (3); the sum over steps is one product, and κ = 0 needs no R."""
        run, kappa, T = steps.run, steps.run.network.kappa, steps.run.n_steps
        one, two = steps.draws["signs"].unbind(-1)  # [k,B] each
        u, M, R = state["u"], state["M"], state["R"]
        size_of_C, size_of_v = steps.C.flatten(2).norm(dim=2), steps.pre.norm(dim=2)  # [k,B]
        second = two * torch.sqrt((size_of_C + 1e-7) / (size_of_v + 1e-7))  # ν₂ p₂
        v, C = second.unsqueeze(-1) * steps.pre, (1 / second)[..., None, None, None] * steps.C
        told, posts, us = steps.error_at_all @ run.params["W_out"], [], []
        silent, square = T - len(steps.error), M.flatten(1, 2)
        for t in range(T):
            moment = Moment.of(steps, t + 1)
            square = moment.J @ square  # J M [B,d·N,K·N]
            first = one[t] * balance(square, u)  # ν₁ p₁
            square = square * (1 / first)[:, None, None]
            M = square.view_as(M)
            M.unflatten(3, C.shape[3:]).diagonal(dim1=2, dim2=4).add_(C[t])  # [B,d,K,N]: each neuron's own currents
            u = torch.addcmul(v[t], first.unsqueeze(1), u)
            if kappa:
                R = (1 - kappa) * moment.read(M) + scaled(kappa / first, R)
            if t >= silent:
                q = told[t].unsqueeze(1)
                posts.append(q @ R if kappa else (q * moment.D).flatten(1).unsqueeze(1) @ square)  # [B,1,K·N]
                us.append(u)
        R = R if kappa else Moment.of(steps, T).read(M)
        if not posts:
            return {"u": u, "M": M, "R": R}, {}
        W = torch.cat(posts).squeeze(1).mT @ torch.cat(us)
        return {"u": u, "M": M, "R": R}, gradients_of_currents(run.network, run.params, W)

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
