"""What a user sees while a run trains: a bar in a terminal or a notebook, one line per evaluation in a log file."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bpgen.callbacks.evaluation import Metrics
from bpgen.columns import Column
from bpgen.run.screen import in_notebook

_REFRESH = 50  # batches between two looks at the bar: drawing costs more than a small step
_DRAWN_ANEW = 0.3  # seconds between two states of the bar in a notebook, each of which is sent to the browser


def bar(columns: Iterable[Column]) -> ProgressBar:
    """The progress bar for where the user is."""
    return NotebookBar(columns) if in_notebook() else ProgressBar(columns)


class ProgressBar(pl.Callback):
    """One bar for the whole run, with the loss of the last batch and what was last measured; gone when it is over.

    Args:
        columns: what can be measured.
        console: where it is drawn.
    """

    def __init__(self, columns: Iterable[Column] = (), console: Console | None = None) -> None:
        self._columns, self._measured = [c for c in columns if c.brief != "loss"], ""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps,"),
            TimeRemainingColumn(),
            TextColumn("left{task.fields[now]}"),
            console=console or Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("training", total=None, now="")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar."""
        total = trainer.estimated_stepping_batches
        self._progress.update(self._task, total=total if math.isfinite(total) else None)
        self._begin()

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
        self._end()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Take the bar away."""
        self._end()

    def _show(self, trainer: pl.Trainer, module: Any) -> None:
        loss = "" if math.isnan(module.last_loss) else f", loss {module.last_loss:.3f}"
        now = f"{loss}{self._measured}"
        self._progress.update(self._task, completed=trainer.global_step, now=now)
        self._draw()

    def _begin(self) -> None:
        self._progress.start()

    def _draw(self) -> None:
        """A terminal's bar draws itself."""

    def _end(self) -> None:
        self._progress.stop()


class NotebookBar(ProgressBar):
    """The same in a Jupyter notebook: one output that is drawn over and over; its last state is what is saved."""

    def __init__(self, columns: Iterable[Column] = ()) -> None:
        self._text, self._output, self._drawn = io.StringIO(), None, -math.inf
        super().__init__(columns, Console(file=self._text, width=130, force_terminal=False, force_jupyter=False))

    def _begin(self) -> None:
        self._draw()

    def _draw(self) -> None:
        from IPython.display import display

        if self._output is None:
            self._output = display(self._state(), raw=True, display_id=True)
        elif time.monotonic() - self._drawn > _DRAWN_ANEW:
            self._end()

    def _end(self) -> None:
        if self._output is not None:  # it failed before anything was drawn
            self._output.update(self._state(), raw=True)

    def _state(self) -> dict[str, str]:
        self._drawn = time.monotonic()
        self._text.truncate(self._text.seek(0))
        self._progress.console.print(self._progress.get_renderable())
        return {"text/plain": self._text.getvalue().rstrip()}


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
