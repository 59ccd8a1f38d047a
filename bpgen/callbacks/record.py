"""Writes each evaluation down: a row, the weights, and the checkpoint a resumed run continues from."""

from __future__ import annotations

import lightning.pytorch as pl

from bpgen.training.run_folder import Row, RunFolder


class Record(pl.Callback):
    """Keeps a run's folder complete after every evaluation."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_evaluation(self, trainer: pl.Trainer, module: pl.LightningModule, row: Row) -> None:
        """Row first, checkpoint last: what a checkpoint promises is on disk."""
        self.folder.append(row)
        self.folder.save_weights(trainer.global_step, module.network, module.rule)  # type: ignore[arg-type]
        trainer.save_checkpoint(self.folder.checkpoint)
        for logger in trainer.loggers:
            logger.log_metrics({k: float(v) for k, v in row.items()}, step=trainer.global_step)
