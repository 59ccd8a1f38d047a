"""Hessian-vector products of the true loss on a named block of the weights.

L is always the whole loss, regulariser included, through the unaltered network: nothing in here knows of learning
rules, so no rule's truncated graph can ever be differentiated by mistake. Products are taken by the R-operator
(`bpgen.curvature.roperator`) for the neurons and losses of this package, and by double backward
(`bpgen.curvature.autograd`) for everything else: a stranger's neuron may have a derivative of its own making.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from bpgen.curvature.autograd import NetworkByAutograd
from bpgen.curvature.block import Block, FreeEntries
from bpgen.curvature.roperator import Part, ROperator
from bpgen.errors import require, unknown
from bpgen.losses import L2, Activity, Loss
from bpgen.network import Network

By = Literal["roperator", "autograd"]
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


def several(operator: Products, vectors: Tensor) -> Tensor:
    """H v [V,P] of vectors [V,P]: at once where the operator can (`at_once`), else one after the other."""
    if getattr(operator, "at_once", False):
        return operator(vectors)
    return torch.stack([operator(v) for v in vectors])


class HessianProducts:
    """H v for the Hessian of `loss` with respect to the free entries of a block of the weights.

    The network's parameters, their .grad, its mode and the global random state stay as they are. Products are
    computed in the network's dtype, on its device. It works inside `torch.no_grad` and `torch.inference_mode`.

    Args:
        network: structure and neurons; its own weights are not read.
        params: weights by name.
        x: inputs [T,B,I].
        target: classes int64 [B] or [T,B], or values [B,O] or [T,B,O].
        loss: the true loss, with its regularisers if it has any.
        block: "all" parameters, the name of one ("W_rec"), or the names of several.
        initial_state: s_0 [B,d,N], or None.
        chunk_size: samples per pass; None chooses. Whatever it is, the answer is the same up to rounding. The base
            passes of the R-operator are kept up to half a GiB, and taken again for every product beyond that.
        by: "roperator" or "autograd"; None takes the first wherever it is known to be right.
        part: the "hessian", or its "gauss_newton" or "residual" part; they add up. Both kinds
            of regulariser, convex functions of weights or activities, count as Gauss-Newton.

    Attributes:
        size: P, the number of free entries.
        precision: machine epsilon of the network's dtype.
        by: how products are taken.
        network, params, batch, block, part: what it is the Hessian of; the batch's loss is the whole one.

    Raises:
        BpgenError: an unknown block or option, a block without free entries, or a chunk size below 1.
    """

    at_once = True

    def __init__(
        self,
        network: Network,
        params: Mapping[str, Tensor],
        x: Tensor,
        target: Tensor,
        loss: Loss,
        block: Block = "W_rec",
        initial_state: Tensor | None = None,
        chunk_size: int | None = None,
        *,
        by: By | None = None,
        part: Part = "hessian",
    ) -> None:
        T, B = x.shape[:2]
        sample = T * network.n_rec * (network.neuron.n_states + network.neuron.n_currents)
        chunk_size = max(1, _CHUNK // sample) if chunk_size is None else chunk_size
        require(chunk_size >= 1, f"chunk_size must be a positive number of samples, got {chunk_size}.")
        for name, value, choices in (
            ("products", by or "autograd", ("roperator", "autograd")),
            ("part", part, ("hessian", "gauss_newton", "residual")),
        ):
            if value not in choices:
                raise unknown(name, value, choices)
        self._width = max(1, _CHUNK // (sample * min(B, chunk_size)))  # vectors at once
        require(
            by != "roperator" or network.W_fb is None,
            "the R-operator knows no output feedback; products='autograd' does.",
        )
        self.by: By = by or ("roperator" if knows(network, loss) else "autograd")
        with torch.inference_mode(False), torch.no_grad():
            self.network, self.block, self.part = network, block, part
            self._free = FreeEntries(network, params, block)
            self.params = {name: p.detach().clone() for name, p in params.items()}
            penalty = loss.regulariser
            self._l2 = None if type(penalty) is not L2 or part == "residual" else self._coefficients(penalty)
            self._loss = dataclasses.replace(loss, regulariser=None) if type(penalty) is L2 else loss
            self.batch = Batch.of(x, target, initial_state, loss)
            batch = self.batch._replace(loss=dataclasses.replace(self.batch.loss, regulariser=self._loss.regulariser))
            self._kept: list[tuple[ROperator | NetworkByAutograd, float]] = []
            self._rest: list[tuple[Batch, float]] = []
            spent = 0
            for chunk, share in batch.chunks(chunk_size):
                if (self.by == "autograd" and chunk_size < B) or spent > _KEEP:
                    self._rest.append((chunk, share))
                    continue
                self._kept.append((operator := self._operator(chunk), share))
                spent += getattr(operator, "nbytes", 0)
        self.size, self.precision = self._free.size, torch.finfo(x.dtype).eps

    def __call__(self, v: Tensor) -> Tensor:
        """H v, float64, of v [P], or of several v [V,P] at once."""
        with torch.inference_mode(False), torch.no_grad():
            rows = v.reshape(-1, self.size).double()
            total = torch.zeros_like(rows) if self._l2 is None else self._l2 * rows
            directions = [self._free.directions(some, self.params) for some in rows.split(self._width)]
            for operator, share in self._parts():
                with torch.set_grad_enabled(self.by == "autograd"):
                    products = [self._free.vectors(operator(d, self.part)) for d in directions]
                total += share * torch.cat(products).to(total)
            return total.view(v.shape)

    def _parts(self) -> Iterator[tuple[ROperator | NetworkByAutograd, float]]:
        yield from self._kept
        for chunk, share in self._rest:
            yield self._operator(chunk), share

    def _operator(self, batch: Batch) -> ROperator | NetworkByAutograd:
        x, target, initial_state, loss = batch
        if self.by == "roperator":
            return ROperator(self.network, self.params, x, target, loss, initial_state)
        with torch.enable_grad():
            return NetworkByAutograd(self.network, self.params, self._free.names, x, target, loss, initial_state)

    def _coefficients(self, l2: L2) -> Tensor:
        """The Hessian [P] of an L2, which is diagonal."""
        like = {name: torch.full_like(p, l2.coefficients.get(name, 0.0)) for name, p in self.params.items()}
        return self._free.gather(like).double()


def knows(network: Network, loss: Loss) -> bool:
    """Whether the R-operator is known to be right: this package's own network, neurons and losses, nothing derived.

    A loss may have an L2 and an `Activity`. Any other term, and output feedback, are left to autograd.
    """
    own = type(network) is Network and type(network.neuron).__module__.startswith("bpgen.neurons.")
    others = {f.name for f in dataclasses.fields(loss)} - {"kind", "when", "mask", "regulariser", "activity"}
    plain = type(loss) is Loss and not any(getattr(loss, name) for name in others)
    costs = type(loss.regulariser) in (type(None), L2) and type(loss.activity) in (type(None), Activity)
    return own and network.W_fb is None and plain and costs


class Batch(NamedTuple):
    """What a loss is taken over: x [T,B,I], target, s_0 [B,d,N] and the loss with its step weights [T,B]."""

    x: Tensor
    target: Tensor
    initial_state: Tensor | None
    loss: Loss

    @classmethod
    def of(cls, x: Tensor, target: Tensor, initial_state: Tensor | None, loss: Loss) -> Batch:
        """The batch in tensors that autograd may save, which it refuses to do with those of inference mode."""

        def ordinary(tensor: Tensor) -> Tensor:
            return tensor.clone() if tensor.is_inference() else tensor

        with torch.inference_mode(False):
            return cls(
                ordinary(x),
                ordinary(target),
                None if initial_state is None else ordinary(initial_state),
                loss if loss.mask is None else loss.with_mask(ordinary(loss.mask)),
            )

    def chunks(self, size: int) -> Iterator[tuple[Batch, float]]:
        """Parts of at most `size` samples, each with its share: every loss is a mean over the samples."""
        x, target, initial_state, loss = self
        for first in range(0, x.shape[1], size):
            here = slice(first, first + size)
            part = Batch(
                x[:, here],
                target[here] if loss.when == "last" else target[:, here],
                None if initial_state is None else initial_state[here],
                loss if loss.mask is None else loss.with_mask(loss.mask[:, here]),
            )
            yield part, part.x.shape[1] / x.shape[1]
