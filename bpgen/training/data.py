"""Batches whose order is a function of (seed, epoch), so that a resumed run sees the batches it would have seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from bpgen.errors import require
from bpgen.losses import Loss
from bpgen.streams import generator
from bpgen.tasks import Split, Task


def fitted(split: Split, loss: Loss, n_out: int) -> Split:
    """The same sequences with targets as the loss wants them.

    One class a sequence is repeated over the steps for a loss at all steps; classes become one-hot values for mse.

    Raises:
        BpgenError: values cannot become classes, or a target of all steps is missing.
    """
    x, target, mask = split
    if not target.is_floating_point():
        if loss.when == "all" and target.ndim == 1:
            target = target.expand(x.shape[0], -1)
        elif loss.when == "last" and target.ndim == 2:
            target = target[-1]
        if loss.kind == "mse":
            target = F.one_hot(target, n_out).to(x.dtype)
    else:
        require(loss.kind == "mse", "this task has continuous targets: use --loss.kind mse.")
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


class TaskData(pl.LightningDataModule):
    """Any task as a LightningDataModule.

    Args:
        task: the task.
        loss: the loss that its targets have to fit.
        batch_size: sequences per batch B.
        seed: of the order of the batches.
        chunk: hand out this many steps at a time (`bpgen.training.chunks`); None is whole sequences.
        stream: hand out the task's endless stream in place of its training split; needs a chunk.
    """

    def __init__(
        self,
        task: Task,
        loss: Loss,
        batch_size: int = 16,
        seed: int = 0,
        chunk: int | None = None,
        stream: bool = False,
    ) -> None:
        super().__init__()
        self.chunk, self.stream = chunk, stream
        self.task, self.loss, self.batch_size, self.seed = task, loss, batch_size, seed
        self._loader: SeededLoader | None = None
        self._saved: dict[str, int] | None = None

    def train_dataloader(self) -> Any:
        """Shuffled training batches, each a `Split` of B sequences, or a `Chunk` of them."""
        self._loader = self._make_loader()
        if self._saved is not None:
            self._loader.load_state_dict(self._saved)
        return self._loader

    def _make_loader(self) -> SeededLoader:
        from bpgen.training.chunks import ChunkLoader, StreamLoader  # they build on the loader above

        if self.stream:
            assert self.chunk is not None, "a stream comes in chunks"
            return StreamLoader(self.task, self.loss, self.batch_size, self.seed, self.chunk)
        split = fitted(self.task.split("train"), self.loss, self.task.n_out)
        if self.chunk is not None:
            return ChunkLoader(split, self.loss, self.batch_size, self.seed, self.chunk)
        return SeededLoader(split, self.batch_size, self.seed)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """The batch, a `Split` or a `Chunk`, on the device; at once where it is there already."""
        if batch.x.device == device:
            return batch
        mask = None if batch.mask is None else batch.mask.to(device)
        return batch._replace(x=batch.x.to(device), target=batch.target.to(device), mask=mask)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: Lightning itself forgets it in checkpoints taken at the end of an epoch."""
        return {} if self._loader is None else {"loader": self._loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue there, once the loader is made."""
        self._saved = state_dict.get("loader")
