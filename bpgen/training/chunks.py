"""Training online: sequences that come k steps at a time, with a weight change after each chunk.

A batch of sequences is cut into chunks of k steps; the network and an online rule go on from chunk to chunk, at the
weights as they are by then, and start afresh with the next batch. An endless stream never starts afresh. The losses of
the chunks add up to the loss of the sequence, and so do their shares of the regulariser.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from bpgen.errors import require
from bpgen.losses import Loss
from bpgen.tasks import Split, Task
from bpgen.training.data import SeededLoader, fitted


class Chunk(NamedTuple):
    """k steps of B sequences: x [k,B,I], target [k,B] or [k,B,O], step weights mask [k,B].

    starts, ends: whether the sequences begin and end here. share: the part of the regulariser that the chunk pays.
    """

    x: Tensor
    target: Tensor
    mask: Tensor
    starts: bool
    ends: bool
    share: float


class ChunkLoader(SeededLoader):
    """The batches of `SeededLoader`, cut in time; its position counts chunks.

    Args:
        split: sequences, with targets as the loss wants them.
        loss: what is minimised; it fixes the weights of the steps.
        batch_size: sequences per batch B.
        seed: of the order.
        chunk: k; the last chunk of a sequence may be shorter.
    """

    def __init__(self, split: Split, loss: Loss, batch_size: int, seed: int, chunk: int) -> None:
        super().__init__(split, batch_size, seed)
        self.loss, self.chunk = loss, chunk
        self.n_chunks = -(-len(split.x) // chunk)

    def __len__(self) -> int:
        return super().__len__() * self.n_chunks

    def __iter__(self) -> Iterator[Chunk]:  # type: ignore[override]
        order = self.order().split(self.batch_size)
        whole: Split | None = None
        for position in range(self.position, len(self)):
            batch, part = divmod(position, self.n_chunks)
            if whole is None or part == 0:
                whole = at_all_steps(self.split.take(order[batch]), self.loss)
            self.move_to(position + 1)
            assert whole.mask is not None
            T, steps = len(whole.x), slice(part * self.chunk, (part + 1) * self.chunk)
            x, starts, ends = whole.x[steps], part == 0, part + 1 == self.n_chunks
            yield Chunk(x, whole.target[steps], whole.mask[steps], starts, ends, len(x) / T)


class StreamLoader(SeededLoader):
    """Chunks of a task's endless stream. An epoch is as many chunks as the training split would give; nothing restarts.

    Args:
        task: a task that has a stream.
        loss: what is minimised, at all steps.
        batch_size: streams side by side, B.
        seed: of the streams.
        chunk: k.

    Raises:
        BpgenError: the task has no stream, or the loss is taken at the last step: a stream has none.
    """

    def __init__(self, task: Task, loss: Loss, batch_size: int, seed: int, chunk: int) -> None:
        require(loss.when == "all", "a stream has no last step: use --loss.when all.")
        super().__init__(task.split("train"), batch_size, seed)
        task.stream(batch_size, seed, 0)  # a task without one says so now
        self.task, self.loss, self.chunk = task, loss, chunk

    def __len__(self) -> int:
        return super().__len__() * -(-self.task.n_steps // self.chunk)

    def __iter__(self) -> Iterator[Chunk]:  # type: ignore[override]
        t = (self.epoch * len(self) + self.position) * self.chunk
        stream = self.task.stream(self.batch_size, self.seed, t)
        for position in range(self.position, len(self)):
            self.move_to(position + 1)
            x, target, weight = (torch.stack(steps) for steps in zip(*islice(stream, self.chunk), strict=True))
            part = fitted(Split(x, target, weight), self.loss, self.task.n_out)
            assert part.mask is not None
            yield Chunk(part.x, part.target, part.mask, t == 0, False, len(x) / self.task.n_steps)
            t += self.chunk


def at_all_steps(batch: Split, loss: Loss) -> Split:
    """The same loss written as one over all steps: targets [T,B] or [T,B,O], weights [T,B]."""
    x, target, mask = batch
    weights = torch.zeros(x.shape[:2], dtype=x.dtype)
    if loss.when == "last":
        weights[-1] = 1
        return Split(x, target.expand(len(x), *target.shape), weights)
    if mask is None:
        mask = weights + (1 / len(x) if loss.kind == "cross_entropy" else 1)
    return Split(x, target, mask)
