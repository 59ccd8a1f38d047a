"""The loss of training batches for a logger: what a learning curve shows between two evaluations."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl

COLUMN = "train/loss_step"  # as Lightning calls a loss logged on its steps
_POINTS = 200  # in a run; one takes 0.3 ms beside steps of 2 ms


class BatchLoss(pl.Callback):
    """Hands the trainer's loggers the mean loss of the last batches, some 200 times in a run."""

    def __init__(self) -> None:
        self._sum, self._batches, self._every, self._last = 0.0, 0, 1, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The number of steps is known now."""
        total = trainer.estimated_stepping_batches
        self._every = math.ceil(total / _POINTS) if math.isfinite(total) else _POINTS
        self._last = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Add a batch up, and hand on the mean when it is time."""
        self._sum, self._batches = self._sum + pl_module.last_loss, self._batches + 1
        step = trainer.global_step
        if step // self._every > self._last // self._every:
            for logger in trainer.loggers:
                logger.log_metrics({"step": float(step), COLUMN: self._sum / self._batches}, step=step)
            self._sum, self._batches, self._last = 0.0, 0, step
