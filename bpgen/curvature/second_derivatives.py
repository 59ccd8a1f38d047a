"""Second derivatives inside one neuron, contracted with the credit that meets them.

With F an elementwise map z [...,n,N] -> [...,m,N] per neuron and u [...,m,N] fixed, the derivative of its pull-back is
    (1) M = ∂(J(z)ᵀ u)/∂z = ∂² <u, F(z)>/∂z²        symmetric, n × n per neuron
It is taken once by double backward, n elementwise passes (half the time of forward mode), and kept: after that a
product of Pearlmutter's R-operator costs one multiplication for every entry that is not zero. Entries that vanish along
the whole trajectory (all of a ReLU's, most of an LSTM's) are dropped and cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bpgen.network import Trajectory

_PIECE = 2**19  # numbers of z that are taken at once: what fits a cache is many times faster


class SecondDerivatives:
    """M of equation (1) along a trajectory, as its entries that are not zero.

    Args:
        function: F, elementwise over neurons.
        point: z [L,B,n,N].
        credit: u [L,B,m,N].
    """

    def __init__(self, function: Callable[[Tensor], Tensor], point: Tensor, credit: Tensor) -> None:
        n, steps = point.shape[-2], max(1, _PIECE // point[0].numel())
        pieces: dict[tuple[int, int], list[Tensor]] = {(i, j): [] for j in range(n) for i in range(j + 1)}
        for z, u in zip(point.split(steps), credit.split(steps), strict=True):
            for j, column in enumerate(_columns(function, z, u)):
                for i in range(j + 1):
                    pieces[i, j].append(column[..., i, :])
        alive = {ij: parts for ij, parts in pieces.items() if any(part.any() for part in parts)}
        self.entries = {ij: torch.cat(parts) for ij, parts in alive.items()}  # (i, j), i <= j -> M_ij [L,B,N]

    def __bool__(self) -> bool:
        return bool(self.entries)

    def add(self, dz: Sequence[Tensor], into: Sequence[Tensor]) -> None:
        """Add M dz of V tangents of the n components, each [L,V,B,N], to as many of the same shape."""
        for (i, j), M in self.entries.items():
            into[i].addcmul_(M.unsqueeze(1), dz[j])
            if i != j:
                into[j].addcmul_(M.unsqueeze(1), dz[i])


def _columns(function: Callable[[Tensor], Tensor], z: Tensor, u: Tensor) -> list[Tensor]:
    """The columns M_j [L,B,n,N], by two backward passes: each neuron's is its own, so that one pass takes all."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        pulled = torch.autograd.grad(function(z), z, u, create_graph=True, materialize_grads=True)[0]
        keep = {"retain_graph": True, "materialize_grads": True}
        if not pulled.requires_grad:
            return [torch.zeros_like(z)] * z.shape[-2]
        return [torch.autograd.grad(row, z, torch.ones_like(row), **keep)[0] for row in pulled.unbind(-2)]


def of_dynamics(trajectory: Trajectory, credit: Tensor) -> SecondDerivatives:
    """M of f at (s_{t-1}, I_t) for the credit λ_t [T,B,d,N], t = 1..T; its n = d + K components are s first."""
    neuron = trajectory.network.neuron
    d = neuron.n_states
    point = torch.cat([trajectory.states[:-1], trajectory.currents[1:]], dim=-2)
    return SecondDerivatives(lambda z: neuron.f(z[..., :d, :], z[..., d:, :]), point, credit)


def of_activity(trajectory: Trajectory, credit: Tensor) -> SecondDerivatives:
    """M of g at s_t for the credit [T+1,B,1,N] that arrives at h_t, t = 0..T."""
    neuron = trajectory.network.neuron
    return SecondDerivatives(lambda s: neuron.g(s).unsqueeze(-2), trajectory.states, credit)
