"""Sequences of different lengths in one batch: the loss of each up to its own last step.

Sequence b has the steps 1..T_b of the T in the batch; the rest is padding. Then, with weights m of the steps,
    last step:  L = (1/B) Σ_b ℓ(y_{T_b,b})                       m_tb = 1 at t = T_b
    all steps:  L = (1/B) Σ_b Σ_{t<=T_b} m_tb ℓ(y_{t,b})         m = 1/T_b (cross_entropy) or 1 (mse), unless given
which is the mean of the losses of the sequences taken one by one. No step after the last of a sequence reaches its
loss, so its gradient is that of the sequence alone, for every rule that is defined by its equations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bpgen.errors import require


def checked_lengths(lengths: Any, n_steps: int, batch: int) -> Tensor:
    """Lengths [B] as int64.

    Raises:
        BpgenError: they are no whole numbers [B] from 1 to T.
    """
    try:
        given = torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError):
        given = torch.zeros(())
    whole = not given.is_floating_point() and not given.is_complex() and given.dtype != torch.bool
    require(
        whole and list(given.shape) == [batch] and bool((given >= 1).all()) and bool((given <= n_steps).all()),
        f"lengths must be whole numbers [B] = [{batch}] from 1 to T = {n_steps}, got {lengths!r:.80}.",
    )
    return given.long()


def steps_there(lengths: Tensor, n_steps: int) -> Tensor:
    """Which steps there are, bool [T,B]."""
    return torch.arange(n_steps, device=lengths.device).unsqueeze(1) < lengths


def last_steps(there: Tensor) -> Tensor:
    """Weight 1 at the last of the steps there are [T,B], 0 elsewhere."""
    T = len(there)
    last = T - 1 - there.flip(0).to(torch.uint8).argmax(0)
    return (torch.arange(T, device=there.device).unsqueeze(1) == last).float()
