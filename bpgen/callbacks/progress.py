"""What a user sees while a run trains: a bar on a terminal, one line per evaluation in a log file."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar

from bpgen.training.run_folder import Row


class ProgressBar(TQDMProgressBar):
    """Progress with the training loss and the last sharpness."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=50, leave=False)
        self._sharpness: float | None = None

    def on_evaluation(self, trainer: pl.Trainer, module: pl.LightningModule, row: Row) -> None:
        """Keep the last sharpness."""
        self._sharpness = row.get("sharpness/lambda_max", row.get("sharpness/surrogate/lambda_max"))

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Loss of the last batch and last sharpness."""
        metrics: dict[str, Any] = {"loss": f"{pl_module.last_loss:.3f}"}
        if self._sharpness is not None:
            metrics["sharpness"] = f"{self._sharpness:.3g}"
        return metrics


class ProgressLines(pl.Callback):
    """The same for output that is not a terminal."""

    def on_evaluation(self, trainer: pl.Trainer, module: pl.LightningModule, row: Row) -> None:
        """Print a line."""
        shown = {
            "loss": "train/loss",
            "val accuracy": "val/accuracy",
            "sharpness": "sharpness/lambda_max",
            "surrogate sharpness": "sharpness/surrogate/lambda_max",
        }
        numbers = ", ".join(f"{label} {row[key]:.4g}" for label, key in shown.items() if key in row)
        print(f"epoch {row['epoch']:.4g}, step {row['step']}: {numbers}", flush=True)
