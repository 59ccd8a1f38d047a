"""Any task as data for Lightning's trainer."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import lightning.pytorch as pl
import torch

from bpgen.losses import Loss
from bpgen.tasks import Task
from bpgen.training.loaders import ChunkLoader, SeededLoader, StreamLoader, on_device
from bpgen.training.splits import TaskSplits


class TaskData(pl.LightningDataModule):
    """Any task as a LightningDataModule.

    Args:
        task: the task.
        loss: the loss that its targets have to fit.
        batch_size: sequences per batch B.
        seed: of the order of the batches.
        chunk: hand out this many steps at a time (`Chunk`); None is whole sequences.
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
        self._ready: SeededLoader | None = None
        self._loader: SeededLoader | None = None
        self._saved: dict[str, int] | None = None

    @cached_property
    def splits(self) -> TaskSplits:
        """What measurements look at."""
        return TaskSplits(self.task, self.loss)

    def setup(self, stage: str) -> None:
        """Load the data.

        Raises:
            BpgenError: they are missing or do not fit the loss, or the task has no stream.
        """
        self._ready = self._ready or self._make_loader()

    def train_dataloader(self) -> SeededLoader:
        """Shuffled training batches, each a `Split` of B sequences, or a `Chunk` of them."""
        self._loader, self._ready = self._ready or self._make_loader(), None
        if self._saved is not None:
            self._loader.load_state_dict(self._saved)
        return self._loader

    def _make_loader(self) -> SeededLoader:
        if self.stream:
            assert self.chunk is not None, "a stream comes in chunks"
            return StreamLoader(self.task, self.loss, self.batch_size, self.seed, self.chunk)
        split = self.splits.whole("train")
        if self.chunk is not None:
            return ChunkLoader(split, self.loss, self.batch_size, self.seed, self.chunk)
        return SeededLoader(split, self.batch_size, self.seed)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """The batch, a `Split` or a `Chunk`, on the device; at once where it is there already."""
        return on_device(batch, device)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: Lightning itself forgets it in checkpoints taken at the end of an epoch."""
        return {} if self._loader is None else {"loader": self._loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue there, once the loader is made."""
        self._saved = state_dict.get("loader")
        if self._loader is not None and self._saved is not None:  # it was made to count its batches
            self._loader.load_state_dict(self._saved)
