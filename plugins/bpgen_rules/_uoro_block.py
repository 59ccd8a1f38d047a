"""Equations (1) to (4) of `bpgen_rules.uoro` over many steps at once, θ̃ by its coefficients w [B,k+1] of (4).

u_t is the outer product of post [B,k,K·N], νᵀ C, and pre [B,k,Q].
"""

import torch
from torch import Tensor

from bpgen.rules import State, Steps


def along(state: State, steps: Steps, inner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Equations (1), (2) and (4): s̃ [k,B,d·N], w [k,B,k+1] and ρ₀ [k,B,1] at every step.

    What is the same whatever came before is made for all steps at once: this loop is calls of torch and little else.
    """
    nu, s = steps.draws["signs"].flatten(2), state["s"].flatten(1)
    sizes = inner[:, 1:].diagonal(dim1=1, dim2=2)  # ‖u_t‖² [B,k]
    rho_1 = torch.sqrt((sizes.sqrt() + 1e-7) / (torch.linalg.vector_norm(nu, dim=2).mT + 1e-7))
    pushes = (rho_1.mT.unsqueeze(2) * nu).unbind(0)
    new = torch.nn.functional.pad(torch.diag_embed(1 / rho_1), (1, 0)).unbind(1)  # [B,k+1] each
    products = (2 * inner / rho_1.unsqueeze(1)).unbind(2)  # with u_t / ρ₁, twice; [B,k+1] each
    added = (sizes / rho_1.square()).unsqueeze(2).unbind(1)
    size = state["theta"].flatten(1).square().sum(1, keepdim=True)
    w = torch.nn.functional.pad(torch.ones_like(size), (0, len(nu)))
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for t in range(len(nu)):
        s = steps.carried(s, t + 1)
        norm = torch.linalg.vector_norm(s, dim=1, keepdim=True)
        rho_0 = torch.sqrt((size.clamp(min=0).sqrt() + 1e-7) / (norm + 1e-7))
        size = (size / rho_0 + (w * products[t]).sum(1, keepdim=True)) / rho_0 + added[t]
        w = torch.addcdiv(new[t], w, rho_0)
        s = torch.addcmul(pushes[t], rho_0, s)
        found.append((s, w, rho_0))
    s, w, rho_0 = (torch.stack(each) for each in zip(*found, strict=True))
    return s, w, rho_0


def read(r: Tensor, steps: Steps, s: Tensor, rho_0: Tensor) -> Tensor:
    """Equation (3): r̃ [k,B,N] at every step, from r̃_0 [B,N]."""
    kappa, D = steps.run.network.kappa, steps.D[1:]
    now = (1 - kappa) * (D * s.view_as(D)).sum(2)
    if not kappa:
        return now
    filtered: list[Tensor] = []
    for here, rho in zip(now, rho_0, strict=True):
        r = here + kappa * rho * r
        filtered.append(r)
    return torch.stack(filtered)


def inner_products(theta: Tensor, post: Tensor, pre: Tensor) -> Tensor:
    """Of θ̃_0 and every u_τ (rows) with every u_t [B,k+1,k], of outer products post [B,k,K·N] and pre [B,k,Q]."""
    K = post.shape[2] // theta.shape[1]
    synapses = theta[..., : K * pre.shape[2]].unflatten(2, (K, -1))  # [B,N,K,Q]
    reached = post @ synapses.transpose(1, 2).flatten(1, 2)  # [B,k,Q]
    return torch.cat([(reached * pre).sum(2).unsqueeze(1), (post @ post.mT) * (pre @ pre.mT)], dim=1)


def outer(w: Tensor, theta: Tensor, post: Tensor, pre: Tensor) -> Tensor:
    """w_0 θ̃_0 + Σ_τ w_τ u_τ [B,N,X] of coefficients w [B,k+1]."""
    N = theta.shape[1]
    u = ((w[:, 1:].unsqueeze(2) * post).mT @ pre).unflatten(1, (-1, N)).transpose(1, 2).flatten(2)  # [B,N,K·Q]
    return w[:, :1].unsqueeze(2) * theta + torch.nn.functional.pad(u, (0, theta.shape[2] - u.shape[2]))
