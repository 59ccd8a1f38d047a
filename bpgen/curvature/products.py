"""Hessian-vector products of the true loss on a named block of the weights.

With θ [P] the free entries of the block and g(θ) = ∂L/∂θ,
    H v = ∂/∂θ <g(θ), v>                                                              (Pearlmutter 1994)
is taken by a second backward pass through the gradient's own graph, which is built once and kept for all
products: six matrix products a step of time where the gradient itself costs three. L is always the whole loss,
regulariser included, through the unaltered network: nothing in here knows of learning rules, so no rule's
truncated graph can ever be differentiated by mistake.

Reference: B. A. Pearlmutter, Fast exact multiplication by the Hessian, Neural Computation 6 (1994) 147-160.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bpgen.curvature.block import Block, FreeEntries
from bpgen.errors import require
from bpgen.losses import Loss
from bpgen.network import Network


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
        block: "W_rec", or "all" parameters.
        initial_state: s_0 [B,d,N], or None.
        chunk_size: samples per pass. By default the graph of all B samples is kept and memory grows with T·B·N;
            in chunks no graph is kept: memory grows with the chunk, and each product also costs a gradient.

    Attributes:
        size: P, the number of free entries.
        precision: machine epsilon of the network's dtype.

    Raises:
        BpgenError: an unknown block, a block without free entries, or a chunk size below 1.
    """

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
    ) -> None:
        n_samples = x.shape[1]
        chunk_size = n_samples if chunk_size is None else chunk_size
        require(chunk_size >= 1, f"chunk_size must be a positive number of samples, got {chunk_size}.")
        with torch.inference_mode(False), torch.enable_grad():
            self._network, self._chunk_size = network, chunk_size
            self._free = FreeEntries(network, params, block)
            self._params = {name: p.detach().clone() for name, p in params.items()}
            self._block = [self._params[name].requires_grad_() for name in self._free.names]
            self._batch = Batch.of(x, target, initial_state, loss)
            self._kept = self._gradient(self._batch) if chunk_size >= n_samples else None
        self.size, self.precision = self._free.size, torch.finfo(x.dtype).eps

    def __call__(self, v: Tensor) -> Tensor:
        """H v, float64 [P], of v [P]."""
        with torch.inference_mode(False), torch.enable_grad():
            first = self._block[0]
            zeros = {name: torch.zeros_like(p) for name, p in self._params.items()}
            scattered = self._free.scatter(v.to(first.dtype).to(first.device), zeros)
            direction = list(scattered.values())
            if self._kept is not None:
                return self._differentiated(self._kept, direction, keep=True).to(v.device).double()
            total = torch.zeros(self.size, dtype=torch.float64, device=v.device)
            for part, share in self._batch.chunks(self._chunk_size):
                Hv = self._differentiated(self._gradient(part), direction, keep=False)
                total += share * Hv.to(v.device).double()
            return total

    def _gradient(self, batch: Batch) -> list[Tensor]:
        """∂L/∂(tensors of the block), with a graph behind it."""
        x, target, initial_state, loss = batch
        run = self._network.run(self._params, x, when=loss.when, initial_state=initial_state, in_place=False)
        value = loss.total(run.outputs, target, self._params, run.h)
        return list(torch.autograd.grad(value, self._block, create_graph=True, materialize_grads=True))

    def _differentiated(self, gradient: list[Tensor], direction: list[Tensor], *, keep: bool) -> Tensor:
        """The free entries [P] of ∂<gradient, direction>/∂(tensors of the block)."""
        Hv = torch.autograd.grad(gradient, self._block, direction, retain_graph=keep, materialize_grads=True)
        return self._free.gather(dict(zip(self._free.names, Hv, strict=True)))


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
