"""Which weights a curvature is of: a block of the parameters as one vector of its free entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from bpgen.errors import require, unknown
from bpgen.network import Network
from bpgen.problem import Problem

Block = str | Sequence[str]  # "W_rec", "all" that are trained, another parameter's name, or several names


def label(block: Block) -> str:
    """How results name a block: W_rec, all, W_in+W_out."""
    return block if isinstance(block, str) else "+".join(block)


def trained(module: nn.Module) -> tuple[str, ...]:
    """The parameters that are trained, by name: those that `requires_grad_(False)` has not frozen."""
    return tuple(name for name, p in module.named_parameters() if p.requires_grad)


class FreeEntries:
    """The entries θ [P] of a block that can act, in the order of `params` and row by row.

    Entries that a mask of the network silences are left out: their Hessian rows are zero (or the bare coefficient
    of a regulariser), which would add eigenvalues of no meaning to the spectrum.

    Args:
        network: whose masks count, and which parameters it trains; a module that is no `Network` has no masks.
        params: weights by name.
        block: "all" parameters that are trained, the name of one ("W_rec"), or the names of several; frozen ones only
            by name.

    Attributes:
        names: parameters of the block, in the order of `params`.
        size: P.

    Raises:
        BpgenError: an unknown block, or one without free entries.
    """

    def __init__(self, network: nn.Module, params: Mapping[str, Tensor], block: Block) -> None:
        asked = trained(network) if block == "all" else (block,) if isinstance(block, str) else tuple(block)
        for name in asked:
            if name not in params:
                raise unknown("block", name, ("all", *params))
        self.names = tuple(name for name in params if name in asked)
        masks = network.masks() if isinstance(network, Network) else {}
        self._index = {
            name: masks[name].flatten().nonzero().squeeze(1).to(params[name].device)
            if name in masks
            else torch.arange(params[name].numel(), device=params[name].device)
            for name in self.names
        }
        self.size = sum(map(len, self._index.values()))
        frozen = "; every weight is frozen: name those you ask about" if block == "all" and not asked else ""
        require(self.size > 0, f"block {label(block)!r} has no free entry to take a curvature of{frozen}.")

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

    def directions(self, vectors: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Vectors [V,P] as tensors [V,...] shaped like the block's parameters, and zero where those are not free."""
        parts = vectors.split([len(index) for index in self._index.values()], dim=1)
        spread = {}
        for (name, index), part in zip(self._index.items(), parts, strict=True):
            flat = like[name].new_zeros(len(vectors), like[name].numel())
            spread[name] = flat.index_copy_(1, index, part.to(flat)).unflatten(1, like[name].shape)
        return spread

    def vectors(self, directions: Mapping[str, Tensor]) -> Tensor:
        """The way back: the free entries [V,P] of tensors [V,...]."""
        rows = [directions[name].flatten(1).index_select(1, index) for name, index in self._index.items()]
        return torch.cat(rows, dim=1)


class BlockProblem:
    """A problem as a function of the free entries θ [P] of a block; later training of the weights does not change it.

    Args:
        problem: the problem.
        block: as for `FreeEntries`.
        dtype: to compute in; None is the problem's own.

    Attributes:
        problem: at the present weights, in tensors that autograd may save.
        free: the block's entries.
        theta: the present ones [P].

    Raises:
        BpgenError: an unknown block, or one without free entries.
    """

    def __init__(self, problem: Problem, block: Block = "W_rec", dtype: torch.dtype | None = None) -> None:
        with torch.inference_mode(False):
            problem = problem.detached()
            problem = problem if dtype is None else problem.to(dtype)
            self.problem = replace(problem, params={name: w.clone() for name, w in problem.params.items()})
            self.free = FreeEntries(problem.network, self.problem.params, block)
            self.theta = self.free.gather(self.problem.params)

    def at(self, theta: Tensor) -> Problem:
        """The problem at θ."""
        return self.problem.at(**self.free.scatter(theta, self.problem.params))

    def value(self, theta: Tensor) -> Tensor:
        """L(θ), 0-d, with the regularisers if the loss has any; differentiable."""
        return self.at(theta).value()

    def per_sample(self, theta: Tensor) -> Tensor:
        """The loss of each sequence at θ [B], whose mean is L without regularisers; differentiable."""
        problem = self.at(theta).without_regulariser()
        return problem.per_sample(problem.run(in_place=False))
