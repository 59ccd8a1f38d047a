"""Weights averaged by cell type: what a neuron can know of synapses that are not its own."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bpgen.network import Structure


def type_average(W: Tensor, network: Structure, over: Literal["existing", "all"] = "existing") -> Tensor:
    """W̄ [K·N,N]: each weight replaced by the mean of its block of cell types (post, pre), apart for every current.

    Args:
        W: W_rec [K·N,N], masked.
        network: whose `cell_type` [N] says which neurons are alike, and whose mask which synapses exist.
        over: the mean of the "existing" synapses of a block, zero where no synapse exists; or of "all" its entries,
            those without a synapse counting as zero, and put everywhere, also where there is none.
    """
    types = F.one_hot(network.cell_type).to(W)  # [N,C]
    mask = network.masks().get("W_rec")
    exists = torch.ones_like(W) if mask is None or over == "all" else mask.to(W)
    weights, exists = (V.unflatten(0, (-1, network.n_rec)) for V in (W * exists, exists))  # [K,N,N]
    count = (types.mT @ exists @ types).clamp_min(1)  # synapses of a block, [K,C,C]
    mean = types.mT @ weights @ types / count
    return (types @ mean @ types.mT * exists).flatten(0, 1)
