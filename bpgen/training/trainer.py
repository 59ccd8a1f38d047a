"""Lightning's trainer as every run uses it, and its hints kept from the user."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from bpgen import durable
from bpgen.training.options import TrainerOptions

PREVIOUS = "previous.ckpt"  # the checkpoint before the last


def trainer_for(options: TrainerOptions, callbacks: list[Any], logger: Any, root: str | None) -> pl.Trainer:
    """A trainer without a validation loop, without files of its own, on one device."""
    return pl.Trainer(
        max_epochs=options.max_epochs if options.max_steps is None else -1,
        max_steps=-1 if options.max_steps is None else options.max_steps,
        accelerator=options.accelerator,
        devices=1,
        logger=logger or False,
        callbacks=callbacks,
        gradient_clip_val=options.clip,
        accumulate_grad_batches=options.accumulate,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=root,
        plugins=[SafeCheckpoints()],
    )


class SafeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole on the disk before they replace the last one, which is kept beside them.

    Lightning's own saver writes to the folder for temporary files, and copies where the run is on another file system.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write one to `path`, and keep what was there as previous.ckpt."""
        file = Path(path)
        durable.write(file, lambda handle: torch.save(checkpoint, handle), keep=file.with_name(PREVIOUS))


class quiet_lightning:
    """Keep Lightning's hints about hardware and data loaders from the user: bpgen's own loader needs none of them."""

    def __enter__(self) -> None:
        self._loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric")]
        self._levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.setLevel(logging.WARNING)
        self._filters = warnings.catch_warnings()
        self._filters.__enter__()
        warnings.filterwarnings("ignore", module="lightning.*")
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch.*")

    def __exit__(self, *exception: Any) -> None:
        self._filters.__exit__(*exception)
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.setLevel(level)
