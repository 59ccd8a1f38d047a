"""Batches whose order is a function of (seed, epoch), so that a resumed run sees the batches it would have seen.

Whole sequences, sequences that come k steps at a time, or k steps at a time of a stream without end. In chunks the
weights change after each of them; the network and an online rule go on from chunk to chunk, and start afresh with the
next batch. A stream never starts afresh. The losses of the chunks add up to that of the sequence (`Loss.of_chunk`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bpgen.errors import require
from bpgen.losses import Loss
from bpgen.numbers import dense
from bpgen.streams import generator
from bpgen.tasks import Split, Task
from bpgen.tasks.contract import filled


def with_targets_for(loss: Loss, split: Split, n_out: int) -> Split:
    """The same sequences with targets as the loss wants them.

    One class a sequence is repeated over the steps for a loss at all steps; a loss of values gets classes one-hot.

    Raises:
        BpgenError: values cannot become classes, or a target of all steps is missing.
    """
    x, target, mask = split
    require(
        loss.when == "all" or mask is None or bool((mask[-1] > 0).all()),
        "in some sequences the last step does not count (a mask or lengths): use --loss.when all.",
    )
    if not target.is_floating_point():
        if loss.when == "all" and target.ndim == 1:
            target = target.expand(x.shape[0], -1)
        elif loss.when == "last" and target.ndim == 2:
            target = target[-1]
        if loss.kind != "cross_entropy":
            target = F.one_hot(target, n_out).to(x.dtype)
    else:
        require(loss.kind != "cross_entropy", "this task has continuous targets: use --loss.kind mse.")
        require(
            loss.kind == "mse" or bool(((target >= 0) & (target <= 1)).all()),
            "binary cross-entropy is for labels that apply (1) or do not (0), and this task has other values: use "
            "--loss.kind mse.",
        )
        if loss.when == "last" and target.ndim == 3:
            target = target[-1]
        require(
            (target.ndim == 3) == (loss.when == "all"),
            "this task has one target a sequence: use --loss.when last.",
        )
    return Split(x, target, mask if loss.when == "all" else None)


class SeededLoader:
    """Shuffled batches of a split held in memory; the last batch of an epoch may be smaller.

    Its whole state is (epoch, position). Lightning never asks a sized loader for one item past its end: the state
    therefore moves on before each batch is handed out.
    """

    def __init__(self, split: Split, batch_size: int, seed: int) -> None:
        require(batch_size >= 1, f"trainer.batch_size must be positive, got {batch_size}.")
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.epoch = self.position = 0

    def __len__(self) -> int:
        return -(-self.split.size // self.batch_size)

    def __iter__(self) -> Iterator[Split]:
        batches = self.order().split(self.batch_size)
        for position in range(self.position, len(batches)):
            self.move_to(position + 1)
            yield self.split.take(batches[position])

    @property
    def epochs(self) -> float:
        """How many epochs have been handed out."""
        return self.epoch + self.position / len(self)

    def order(self) -> Tensor:
        """The sequences in the order of this epoch."""
        return torch.randperm(self.split.size, generator=generator(self.seed, "order", self.epoch))

    def move_to(self, position: int) -> None:
        """Stand at a position of this epoch, or, past its end, at the start of the next."""
        self.epoch, self.position = (self.epoch + 1, 0) if position == len(self) else (self.epoch, position)

    def state_dict(self) -> dict[str, int]:
        """Where the next batch is."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue there."""
        self.epoch, self.position = state["epoch"], state["position"]


class Chunk(NamedTuple):
    """k steps of B sequences: x [k,B,I]; target of these steps, or of the last; step weights mask [k,B] or None.

    starts, ends: whether the sequences begin and end here. share: the part of the sequence that these steps are.
    """

    x: Tensor
    target: Tensor
    mask: Tensor | None
    starts: bool
    ends: bool
    share: float


class ChunkLoader(SeededLoader):
    """The batches of `SeededLoader`, cut in time; its position counts chunks.

    Args:
        split: sequences, with targets as the loss wants them.
        loss: what is minimised.
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
                whole = self.split.take(order[batch])
            self.move_to(position + 1)
            steps = slice(part * self.chunk, (part + 1) * self.chunk)
            target, loss = self.loss.with_mask(whole.mask).of_steps(whole.target, steps)
            x, starts, ends = whole.x[steps], part == 0, part + 1 == self.n_chunks
            yield Chunk(x, target, loss.mask, starts, ends, len(x) / len(whole.x))


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
            part = with_targets_for(self.loss, Split(x, target, weight), self.task.n_out)
            yield Chunk(*part, t == 0, False, len(x) / self.task.n_steps)
            t += self.chunk


def as_split(batch: Any) -> Split:
    """A batch of a user's own loader, (x, target) or (x, target, mask), time first; its padding becomes 0.

    Raises:
        BpgenError: it is something else, or holds no numbers, or NaN where the mask is not 0.
    """
    if isinstance(batch, Split):
        return batch
    several = isinstance(batch, (tuple, list))
    require(
        several and len(batch) in (2, 3),
        f"a batch must be (x, target) or (x, target, mask), with x [T,B,I], got a {type(batch).__name__}"
        f"{f' of {len(batch)}' if several else ''}.",
    )
    x, target = dense(batch[0], "x of a batch"), dense(batch[1], "the target of a batch")
    mask = None if len(batch) == 2 or batch[2] is None else dense(batch[2], "the mask of a batch")
    require(x.ndim == 3, f"x of a batch must be [T,B,I] (time first), got {list(x.shape)}.")
    require(
        mask is None or bool((mask >= 0).all() & mask.isfinite().all()),
        "the mask of a batch must hold finite numbers >= 0: they are weights of the steps.",
    )
    off = mask == 0 if mask is not None and mask.shape == x.shape[:2] == target.shape[:2] else None
    if target.is_floating_point():
        target = filled(target, off, "the target of a batch")
    else:
        target = target.long() if off is None else target.long().masked_fill(off & (target < 0), 0)
    return Split(filled(x, off, "x of a batch"), target, mask)


def on_device(batch: Any, device: torch.device) -> Any:
    """A `Split` or a `Chunk` on a device; itself where it is there already."""
    if batch.x.device == device:
        return batch
    mask = None if batch.mask is None else batch.mask.to(device)
    return batch._replace(x=batch.x.to(device), target=batch.target.to(device), mask=mask)
