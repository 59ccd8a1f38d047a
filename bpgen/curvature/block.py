"""Which weights a curvature is of: a block of the parameters as one vector of its free entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from bpgen.errors import require, unknown
from bpgen.network import Network

Block = Literal["W_rec", "all"]


class FreeEntries:
    """The entries θ [P] of a block that can act, in the order of `params` and row by row.

    Entries that a mask of the network silences are left out: their Hessian rows are zero (or the bare coefficient
    of a regulariser), which would add eigenvalues of no meaning to the spectrum.

    Args:
        network: whose masks count.
        params: weights by name.
        block: "W_rec", or "all" parameters.

    Attributes:
        names: parameters of the block.
        size: P.

    Raises:
        BpgenError: an unknown block, or one without free entries.
    """

    def __init__(self, network: Network, params: Mapping[str, Tensor], block: Block) -> None:
        if block not in ("W_rec", "all"):
            raise unknown("block", block, ("W_rec", "all"))
        self.names = ("W_rec",) if block == "W_rec" else tuple(params)
        masks = network.masks()
        self._index = {
            name: masks[name].flatten().nonzero().squeeze(1).to(params[name].device)
            if name in masks
            else torch.arange(params[name].numel(), device=params[name].device)
            for name in self.names
        }
        self.size = sum(map(len, self._index.values()))
        require(self.size > 0, f"block {block!r} has no free entry to take a curvature of.")

    def gather(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The free entries [P] of tensors shaped like the parameters."""
        return torch.cat([tensors[name].flatten()[index] for name, index in self._index.items()])

    def scatter(self, theta: Tensor, onto: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The block's tensors of `onto` with their free entries replaced by θ [P]; differentiable in θ."""
        parts = theta.split([len(index) for index in self._index.values()])
        return {
            name: onto[name].flatten().index_copy(0, index, part).view_as(onto[name])
            for (name, index), part in zip(self._index.items(), parts, strict=True)
        }
