"""What a user sees while a run trains: a bar on a terminal, one line per evaluation in a log file."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bpgen.callbacks.evaluation import Row

_REFRESH = 50  # batches between two looks at the bar: drawing costs more than a small step


class ProgressBar(pl.Callback):
    """One bar for the whole run, with the loss of the last batch and the last sharpness; gone when the run is over."""

    def __init__(self) -> None:
        self._sharpness = ""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps,"),
            TimeRemainingColumn(),
            TextColumn("left{task.fields[now]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("training", total=None, now="")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar."""
        total = trainer.estimated_stepping_batches
        self._progress.update(self._task, total=total if math.isfinite(total) else None)
        self._progress.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *rest: Any) -> None:
        """Move it, now and then."""
        if rest[-1] % _REFRESH == 0:
            self._show(trainer, pl_module)

    def on_evaluation(self, trainer: pl.Trainer, module: pl.LightningModule, row: Row) -> None:
        """Keep the last sharpness."""
        for name in ("sharpness/lambda_max", "sharpness/surrogate/lambda_max"):
            if name in row:
                self._sharpness = f", sharpness {row[name]:.3g}"
        self._show(trainer, module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar away."""
        self._progress.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Take the bar away."""
        self._progress.stop()

    def _show(self, trainer: pl.Trainer, module: Any) -> None:
        loss = "" if math.isnan(module.last_loss) else f", loss {module.last_loss:.3f}"
        now = f"{loss}{self._sharpness}"
        self._progress.update(self._task, completed=trainer.global_step, now=now)


class ProgressLines(pl.Callback):
    """The same for output that is not a terminal: a line per evaluation, handed to `say`."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def on_evaluation(self, trainer: pl.Trainer, module: pl.LightningModule, row: Row) -> None:
        """Say a line."""
        shown = {
            "loss": "train/loss",
            "val accuracy": "val/accuracy",
            "sharpness": "sharpness/lambda_max",
            "surrogate sharpness": "sharpness/surrogate/lambda_max",
        }
        numbers = ", ".join(f"{label} {row[key]:.4g}" for label, key in shown.items() if key in row)
        self._say(f"epoch {row['epoch']:.4g}, step {row['step']}" + (f": {numbers}" if numbers else ""))
