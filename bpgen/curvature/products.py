"""Hessian-vector products of the true loss on a named block of the weights.

L is always the whole loss, regulariser included, through the unaltered network: nothing in here knows of learning
rules, so no rule's truncated graph can ever be differentiated by mistake. Products are taken by the R-operator
(`bpgen.curvature.roperator`) wherever it is known or proven to be right (`bpgen.curvature.proof`), and by double
backward (`bpgen.curvature.autograd`) everywhere else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor

from bpgen.curvature.autograd import NetworkByAutograd
from bpgen.curvature.block import Block, BlockProblem, FreeEntries
from bpgen.curvature.proof import roperator_is_right
from bpgen.curvature.roperator import Part, ROperator
from bpgen.errors import choice, require
from bpgen.losses import L2
from bpgen.problem import Problem

By = Literal["roperator", "autograd"]
Backend = Literal["ours", "pyhessian"]  # of trace and density
_CHUNK = 2**22  # numbers T·B·N·(d+K) of a pass where no chunk size is given
_KEEP = 2**29  # bytes of base passes that are kept between products


class Products(Protocol):
    """A symmetric operator H [P,P]: what Lanczos needs, whoever computes it.

    size: P.
    precision: relative rounding error of the arithmetic behind a product.
    """

    size: int
    precision: float

    def __call__(self, v: Tensor) -> Tensor:
        """H v, float64 [P], of v float64 [P]."""
        ...


def products_of(operator: Products, vectors: Tensor) -> Tensor:
    """H v [V,P] of vectors [V,P]: at once where the operator can (`batched`), else one after the other."""
    if getattr(operator, "batched", False):
        return operator(vectors)
    return torch.stack([operator(v) for v in vectors])


class HessianProducts:
    """H v for the Hessian of a problem's loss with respect to the free entries of a block of the weights.

    The network's parameters, their .grad, its mode and the global random state stay as they are. Products are
    computed in the network's dtype, on its device. It works inside `torch.no_grad` and `torch.inference_mode`.

    Args:
        problem: whose Hessian; regularisers are part of it if the loss has any.
        block: "all" parameters that are trained, the name of one ("W_rec"), or the names of several.
        chunk_size: samples per pass; None chooses. Whatever it is, the answer is the same up to rounding. The base
            passes of the R-operator are kept up to half a GiB, and taken again for every product beyond that.
        by: "roperator" or "autograd"; None takes the first wherever it is known to be right.
        part: the "hessian", or its "gauss_newton" or "residual" part; they add up. Both kinds
            of regulariser, convex functions of weights or activities, count as Gauss-Newton.

    Attributes:
        size: P, the number of free entries.
        precision: machine epsilon of the network's dtype.
        by: how products are taken.
        free: the entries of the block.
        problem, block, part: what it is the Hessian of.

    Raises:
        BpgenError: an unknown block or option, a block without free entries, or a chunk size below 1.
    """

    batched = True

    def __init__(
        self,
        problem: Problem,
        block: Block = "W_rec",
        *,
        chunk_size: int | None = None,
        by: By | None = None,
        part: Part = "hessian",
    ) -> None:
        network = problem.network
        sample = problem.n_steps * network.n_rec * (network.neuron.n_states + network.neuron.n_currents)
        chunk_size = max(1, _CHUNK // sample) if chunk_size is None else chunk_size
        require(chunk_size >= 1, f"chunk_size must be a positive number of samples, got {chunk_size}.")
        self._width = max(1, _CHUNK // (sample * min(problem.batch, chunk_size)))  # vectors at once
        names = FreeEntries(network, problem.params, block).names
        unknown = "output feedback" if network.W_fb is not None else ", ".join(set(names) & set(network.neuron.learned))
        require(by != "roperator" or not unknown, f"the R-operator knows no {unknown}; products='autograd' does.")
        right = by is None and roperator_is_right(problem, names)
        self.by: By = choice("products", by, By) if by else ("roperator" if right else "autograd")
        self.block, self.part = block, choice("part", part, Part)
        self._kept: list[tuple[ROperator | NetworkByAutograd, float]] = []
        self._rest: list[tuple[Problem, float]] = []
        with torch.inference_mode(False), torch.no_grad():
            here = BlockProblem(problem, block)
            self.problem, self.free, loss = here.problem, here.free, here.problem.loss
            self._l2: Tensor | None = None
            if type(loss.regulariser) is L2:
                self._l2 = None if part == "residual" else self._coefficients(loss.regulariser)
                loss = dataclasses.replace(loss, regulariser=None)
            self._take_base_passes(dataclasses.replace(self.problem, loss=loss), chunk_size)
        self.size, self.precision = here.free.size, torch.finfo(problem.x.dtype).eps

    def __call__(self, v: Tensor) -> Tensor:
        """H v, float64, of v [P], or of V vectors v [V,P] at once."""
        with torch.inference_mode(False), torch.no_grad():
            rows = v.reshape(-1, self.size).double()
            total = torch.zeros_like(rows) if self._l2 is None else self._l2 * rows
            directions = [self.free.directions(some, self.problem.params) for some in rows.split(self._width)]
            for operator, share in self._parts():
                with torch.set_grad_enabled(self.by == "autograd"):
                    products = [self.free.vectors(operator(d, self.part)) for d in directions]
                total += share * torch.cat(products).to(total)
            return total.view(v.shape)

    def _take_base_passes(self, problem: Problem, chunk_size: int) -> None:
        """Those of the parts of the batch that there is room for; of the others only the parts are kept."""
        spent = 0
        for chunk, share in problem.chunks(chunk_size):
            if (self.by == "autograd" and chunk_size < problem.batch) or spent > _KEEP:
                self._rest.append((chunk, share))
                continue
            self._kept.append((operator := self._operator(chunk), share))
            spent += getattr(operator, "nbytes", 0)

    def _parts(self) -> Iterator[tuple[ROperator | NetworkByAutograd, float]]:
        yield from self._kept
        for chunk, share in self._rest:
            yield self._operator(chunk), share

    def _operator(self, problem: Problem) -> ROperator | NetworkByAutograd:
        with torch.set_grad_enabled(self.by == "autograd"):
            return ROperator(problem) if self.by == "roperator" else NetworkByAutograd(problem, self.free.names)

    def _coefficients(self, l2: L2) -> Tensor:
        """The Hessian [P] of an L2, which is diagonal."""
        like = {name: torch.full_like(w, l2.coefficients.get(name, 0.0)) for name, w in self.problem.params.items()}
        return self.free.gather(like).double()
