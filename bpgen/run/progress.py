"""What a user sees while a run trains: a bar on a terminal, one line per evaluation in a log file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bpgen.callbacks.evaluation import Metrics
from bpgen.columns import Column

_REFRESH = 50  # batches between two looks at the bar: drawing costs more than a small step


class ProgressBar(pl.Callback):
    """One bar for the whole run, with the loss of the last batch and what was last measured; gone when it is over.

    Args:
        columns: what can be measured.
    """

    def __init__(self, columns: Iterable[Column] = ()) -> None:
        self._columns, self._measured = [c for c in columns if c.brief != "loss"], ""
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

    def on_evaluation(self, trainer: pl.Trainer, module: pl.LightningModule, row: Metrics) -> None:
        """Keep what was measured."""
        self._measured = "".join(f", {text}" for text in _briefly(self._columns, row, "{:.3g}"))
        self._show(trainer, module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar away."""
        self._progress.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Take the bar away."""
        self._progress.stop()

    def _show(self, trainer: pl.Trainer, module: Any) -> None:
        loss = "" if math.isnan(module.last_loss) else f", loss {module.last_loss:.3f}"
        now = f"{loss}{self._measured}"
        self._progress.update(self._task, completed=trainer.global_step, now=now)


class ProgressLines(pl.Callback):
    """The same for output that is not a terminal: a line per evaluation, handed to `say`.

    Args:
        say: where lines go.
        columns: what can be measured.
    """

    def __init__(self, say: Callable[[str], None], columns: Iterable[Column] = ()) -> None:
        self._say, self._columns = say, list(columns)

    def on_evaluation(self, trainer: pl.Trainer, module: pl.LightningModule, row: Metrics) -> None:
        """Say a line."""
        where = f"epoch {row['epoch']:.4g}, step {row['step']}"
        self._say(": ".join([where, *filter(None, [", ".join(_briefly(self._columns, row, "{:.4g}"))])]))


def _briefly(columns: Iterable[Column], row: Metrics, form: str) -> list[str]:
    """What was measured of these columns, in a few words."""
    there = [c for c in columns if c.brief and not math.isnan(row.get(c.name, math.nan))]
    return [f"{column.brief} {form.format(row[column.name])}" for column in there]
