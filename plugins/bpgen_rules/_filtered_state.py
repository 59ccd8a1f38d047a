"""A step's Jacobian with the readout's filter as one more state of every neuron, below the d others, where κ > 0.

(1) r_t = κ r_{t-1} + (1-κ) D_t s_t    so that what the readout sees is part of the state, and its influence part of it
"""

import torch
from torch import Tensor

from bpgen.rules import Moment


def transition(moment: Moment) -> Tensor:
    """J_t [B,n·N,n·N] of the state, and of the filtered activity below it: r_t = κ r_{t-1} + (1-κ) D_t s_t."""
    J, kappa = moment.J, moment.kappa
    if not kappa:
        return J
    B, d, N = moment.D.shape
    read = (1 - kappa) * (moment.D.unsqueeze(-1) * J.view(B, d, N, d * N)).sum(1)
    kept = (kappa * torch.eye(N).to(J)).expand(B, N, N)
    return torch.cat([torch.cat([J, read], dim=1), torch.cat([kept.new_zeros(B, d * N, N), kept], dim=1)], dim=2)


def own(A: Tensor, C: Tensor, D: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    """A_t [...,n,n,N] and C_t [...,n,K,N] of each neuron, with the filter below where κ > 0."""
    if not kappa:
        return A, C
    read = (1 - kappa) * (D.unsqueeze(-2) * A).sum(-3, keepdim=True)  # [...,1,d,N]
    kept = torch.full_like(read[..., :1, :], kappa)
    A = torch.cat([A, read], dim=-3)
    A = torch.cat([A, torch.cat([torch.zeros_like(A[..., :-1, :1, :]), kept], dim=-3)], dim=-2)
    return A, torch.cat([C, (1 - kappa) * (D.unsqueeze(-2) * C).sum(-3, keepdim=True)], dim=-3)


def told(moment: Moment, q: Tensor) -> Tensor:
    """What a learning signal [B,N] tells the n states [B,n,N]."""
    if not moment.kappa:
        return moment.tell(q)
    return torch.nn.functional.pad(q.unsqueeze(1), (0, 0, moment.s.shape[1], 0))


def direct(moment: Moment) -> Tensor:
    """C_t ∂I_t/∂θ [B,n,N,X] of each neuron's own parameters, and what the filter takes in of it."""
    added = torch.stack([moment.of_credit(C) for C in moment.C.unbind(1)], dim=1)
    if not moment.kappa:
        return added
    return torch.cat([added, (1 - moment.kappa) * moment.read(added).unsqueeze(1)], dim=1)
