"""The leaky readout r_t = κ r_{t-1} + (1-κ) h_t, y_t = W_out r_t + b_out, and its transpose in time."""

from __future__ import annotations

import torch
from torch import Tensor


def filtered(h: Tensor, kappa: float | Tensor, start: Tensor | None = None) -> Tensor:
    """r [T,B,N] of the activities h [T,B,N] from r_0 [B,N] (zero by default) on; r = h at κ = 0. κ may be a tensor."""
    if not isinstance(kappa, Tensor) and kappa == 0:
        return h
    r = torch.zeros_like(h[0]) if start is None else start
    steps = []
    for h_t in h:
        r = kappa * r + (1 - kappa) * h_t
        steps.append(r)
    return torch.stack(steps)


def filtered_back(error: Tensor, kappa: float, n_steps: int) -> Tensor:
    """ē_t = κ ē_{t+1} + (1-κ) e_t, the output error as the activities see it.

    Args:
        error: e [L,B,O] at the last L of `n_steps` steps; zero before.
        kappa: decay per step of the readout.
        n_steps: T.

    Returns:
        ē at the last L steps at κ = 0, where it is e itself; at all T steps otherwise.
    """
    if kappa == 0:
        return error
    carried = torch.zeros_like(error[0])
    steps = []
    for t in reversed(range(n_steps)):
        from_end = t - (n_steps - len(error))
        carried = kappa * carried + (1 - kappa) * error[from_end] if from_end >= 0 else kappa * carried
        steps.append(carried)
    return torch.stack(steps[::-1])
