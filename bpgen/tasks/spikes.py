"""Spikes made of numbers, and spikes perturbed as spikes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Encoder = Literal["poisson", "rate", "latency"]


def encoded(u: Tensor, encoder: Encoder, steps: int, largest: float, random: torch.Generator) -> Tensor:
    """Spikes float32 [steps·T,...] of numbers u [T,...] in [0, 1], each shown for `steps` steps.

        poisson   each step independently with probability `largest`·u
        rate      regular: a spike whenever `largest`·u, summed over the steps, passes a whole number
        latency   one spike, the sooner the larger u is: at step round((1-u)(steps-1)); none of u = 0
    The three of E. Stromatias et al., Front. Neurosci. 11 (2017) 350, and W. Guo et al., Front. Neurosci. 15 (2021)
    638474.

    Args:
        u: the numbers.
        encoder: how.
        steps: for each number.
        largest: spikes in a step at u = 1, at most 1; "latency" does not use it.
        random: of "poisson".
    """
    shown = torch.arange(1, steps + 1, dtype=u.dtype).view(1, steps, *([1] * (u.ndim - 1)))
    wide = u.unsqueeze(1)
    if encoder == "poisson":
        spikes = torch.rand(len(u), steps, *u.shape[1:], generator=random, dtype=u.dtype) < largest * wide
    elif encoder == "rate":
        spikes = (shown * largest * wide).floor() > ((shown - 1) * largest * wide).floor()
    else:
        spikes = (shown - 1 == ((1 - wide) * (steps - 1)).round()) & (wide > 0)
    return spikes.flatten(0, 1).float()


def perturbed(x: Tensor, share: float, random: torch.Generator) -> Tensor:
    """Numbers of spikes x, each spike deleted with probability `share`, and on average as many inserted anywhere."""
    kept = torch.binomial(x, torch.full_like(x, 1 - share), generator=random)
    return kept + torch.poisson(torch.full_like(x, share * float(x.mean())), generator=random)
