"""Unbiased online recurrent optimization: RTRL's influence as a random outer product, right on average.

With signs ν_t = ±1, one for each state, and s̃ ⊗ θ̃ in place of the influence ∂s_t/∂θ:
    (1) s̃_t = ρ₀ J_t s̃_{t-1} + ρ₁ ν_t,     θ̃_t = θ̃_{t-1} / ρ₀ + ν_tᵀ (C_t ∂I_t/∂θ) / ρ₁
    (2) ρ₀ = √(‖θ̃_{t-1}‖ / ‖J_t s̃_{t-1}‖),   ρ₁ = √(‖ν_tᵀ C_t ∂I_t/∂θ‖ / ‖ν_t‖)        for the least variance
    (3) r̃_t = κ ρ₀ r̃_{t-1} + (1-κ) D_t s̃_t,   ∂L/∂θ ≈ Σ_t (e_t W_out r̃_t) θ̃_t
Over many steps θ̃ is not written out: it is a sum of θ̃_0 and of u_τ = ν_τᵀ C_τ ∂I_τ/∂θ, one outer product a step, whose
coefficients are scaled as (1) says, and whose norm is theirs in the inner products <u_τ, u_σ>, known beforehand:
    (4) θ̃_t = w_0 θ̃_0 + Σ_τ w_τ u_τ,   ‖θ̃_t‖² = ‖θ̃_{t-1}‖² / ρ₀² + 2 <θ̃_{t-1}, u_t> / (ρ₀ ρ₁) + ‖u_t‖² / ρ₁²
Source: Tallec and Ollivier 2018, ICLR (arXiv 1702.05043); J_t as in `rtrl`. The readout's filter (3) is a
linear function of the state, so the same outer product serves it. Norms are per sample, ε = 1e-7 is added to each.
Deviation: (3) with κ > 0; J_t s̃ is exact, not a finite difference. A learned initial state earns nothing.
Limits: unbiased at fixed weights only, and its variance grows with N and T.
Shapes: s̃ [B,d,N], r̃ [B,N], θ̃ [B,N,X], X = K(N+I+1) weights of one neuron; draws "signs" [T,B,d,N].
Cost: N² per step and sample; memory N², flat in T. Exact: on average over ν. Neurons: all.
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
    gradients_of_own,
    own_influence,
)


class UORO(OnlineRule):
    """Unbiased online recurrent optimization (Tallec and Ollivier 2018): rank one, unbiased, noisy."""

    suits: ClassVar[Mapping[str, Any]] = {
        "optimizer.name": "adam",
        "optimizer.lr": 0.003,
        "optimizer.lr_scale": {"W_rec": 0.03, "W_in": 0.03},  # their gradients are noisy, the readout's is exact
    }
    trains_neurons = True
    traits = Traits(
        needs_future=False,
        online=True,
        time_per_step="N²",
        memory="N²",
        stochastic=True,
        unbiased=True,
        exact_when=Limit(on_average=True, condition="at fixed weights"),
    )

    def draw(self, network: Network, x: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """Signs ν [T,B,d,N]."""
        shape = (*x.shape[:2], network.neuron.n_states, network.n_rec)
        return {"signs": (2 * torch.randint(2, shape, generator=random) - 1).to(x.dtype)}

    def start(self, network: Network, params: Mapping[str, Tensor], batch: int) -> State:
        """No influence yet."""
        own = torch.zeros_like(own_influence(network, params, batch))  # [B,d,X]
        none = own[..., :1].repeat(1, 1, network.n_rec)  # [B,d,N]
        return {"s": none, "r": none[:, 0], "theta": own[:, :1].repeat(1, network.n_rec, 1)}

    at_once = True

    def block(self, state: State, steps: Steps) -> tuple[State, Increments]:
        """Equations (1), (2) and (4); θ̃ and the sum over steps are one product each, at the end."""
        run, kappa, nu, theta = steps.run, steps.run.network.kappa, steps.draws["signs"], state["theta"]
        post = (nu.unsqueeze(3) * steps.C).sum(2).flatten(2).transpose(0, 1)  # νᵀ C [B,k,K·N]
        pre = steps.pre.transpose(0, 1)  # [B,k,Q]
        inner = _inner_products(theta, post, pre)  # [B,k+1,k]
        sizes = inner[:, 1:].diagonal(dim1=1, dim2=2)  # ‖u_t‖² [B,k]
        rho_1 = torch.sqrt((sizes.sqrt() + 1e-7) / (nu.flatten(2).norm(dim=2).mT + 1e-7))
        new = torch.nn.functional.pad(torch.diag_embed(1 / rho_1), (1, 0))  # [B,k,k+1]
        size, s, r = theta.flatten(1).square().sum(1), state["s"], state["r"]
        w = torch.nn.functional.pad(torch.ones_like(rho_1[:, :1]), (0, nu.shape[0]))  # [B,k+1]
        told, given = steps.error_at_all @ run.params["W_out"], torch.zeros_like(w)
        for t in range(len(nu)):
            moment = Moment.of(steps, t + 1)
            s = moment.own(s) + moment.drive(moment.hop(s))  # J s̃
            rho_0 = torch.sqrt((size.clamp(min=0).sqrt() + 1e-7) / (s.flatten(1).norm(dim=1) + 1e-7))
            met = (w * inner[:, :, t]).sum(1)
            size = size / rho_0**2 + (2 * met / rho_0 + sizes[:, t] / rho_1[:, t]) / rho_1[:, t]
            w = w / rho_0.unsqueeze(1) + new[:, t]
            s = scaled(rho_0, s) + scaled(rho_1[:, t], nu[t])
            r = (1 - kappa) * moment.read(s) + (scaled(kappa * rho_0, r) if kappa else 0)
            given = torch.addcmul(given, (told[t] * r).sum(1, keepdim=True), w)
        state = {"s": s, "r": r, "theta": _outer(w, theta, post, pre)}
        return state, gradients_of_own(run.network, run.params, _outer(given, theta, post, pre).sum(0))

    def step(self, state: State, moment: Moment) -> tuple[State, Increments]:
        """Equations (1) to (3)."""
        nu = moment.draws["signs"]
        s = moment.own(state["s"]) + moment.drive(moment.hop(state["s"]))  # J s̃
        post = (nu.unsqueeze(2) * moment.C).sum(1)  # νᵀ C [B,K,N]
        theta = moment.of_credit(post)
        rho_0 = balance(state["theta"], s)
        rho_1 = balance(theta, nu)
        s = scaled(rho_0, s) + scaled(rho_1, nu)
        theta = scaled(1 / rho_0, state["theta"]) + scaled(1 / rho_1, theta)
        kappa = moment.kappa
        r = (1 - kappa) * moment.read(s) + (scaled(kappa * rho_0, state["r"]) if kappa else 0)
        state = {"s": s, "r": r, "theta": theta}
        if moment.error is None:
            return state, {}
        of_sample = (moment.error @ moment.params["W_out"] * r).sum(-1)  # [B]
        return state, moment.gradient(torch.einsum("b,bnx->nx", of_sample, theta))


def _inner_products(theta: Tensor, post: Tensor, pre: Tensor) -> Tensor:
    """Of θ̃_0 and every u_τ (rows) with every u_t [B,k+1,k], of outer products post [B,k,K·N] and pre [B,k,Q]."""
    K = post.shape[2] // theta.shape[1]
    synapses = theta[..., : K * pre.shape[2]].unflatten(2, (K, -1))  # [B,N,K,Q]
    reached = post @ synapses.transpose(1, 2).flatten(1, 2)  # [B,k,Q]
    return torch.cat([(reached * pre).sum(2).unsqueeze(1), (post @ post.mT) * (pre @ pre.mT)], dim=1)


def _outer(w: Tensor, theta: Tensor, post: Tensor, pre: Tensor) -> Tensor:
    """w_0 θ̃_0 + Σ_τ w_τ u_τ [B,N,X] of coefficients w [B,k+1]."""
    N = theta.shape[1]
    u = ((w[:, 1:].unsqueeze(2) * post).mT @ pre).unflatten(1, (-1, N)).transpose(1, 2).flatten(2)  # [B,N,K·Q]
    return w[:, :1].unsqueeze(2) * theta + torch.nn.functional.pad(u, (0, theta.shape[2] - u.shape[2]))


def balance(one: Tensor, other: Tensor) -> Tensor:
    """√(‖one‖ / ‖other‖) [B], of each sample."""
    return torch.sqrt((one.flatten(1).norm(dim=1) + 1e-7) / (other.flatten(1).norm(dim=1) + 1e-7))


def scaled(factor: Tensor, value: Tensor) -> Tensor:
    """A number for each sample [B] times [B,...]."""
    return factor.reshape(-1, *(1,) * (value.ndim - 1)) * value
