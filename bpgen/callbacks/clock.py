"""The one evaluation clock: all measuring callbacks run at the same steps, so that a row of metrics is complete."""

from __future__ import annotations

import math
import time
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np

from bpgen.callbacks.measurement import Measurement, Moment, undisturbed
from bpgen.errors import DivergedError, require
from bpgen.training.data import SeededLoader, TaskData
from bpgen.training.module import RuleTraining

Row = dict[str, float | int]


class EvaluationClock(pl.Callback):
    """Decides when to measure; the start and the end of training are always measured.

    It calls every `Measurement` among the trainer's callbacks or among those it was given by `attach`, and then tells
    the row to every one of them with a method `on_evaluation(trainer, module, row)`.

    Args:
        every: "epoch", a number of steps, or "log" for `points` steps spaced evenly in their logarithm.
        points: number of evaluations with "log".
    """

    def __init__(self, every: Literal["epoch", "log"] | int = "epoch", points: int = 40) -> None:
        require(
            every in ("epoch", "log") or (isinstance(every, int) and every >= 1),
            f"evaluation.every must be 'epoch', 'log' or a positive number of steps, got {every!r}.",
        )
        require(points >= 1, f"evaluation.points must be positive, got {points}.")
        self.every, self.points = every, points
        self.last_step = -1
        self.seconds: dict[str, float] = {}
        self._log_steps: frozenset[int] = frozenset()
        self._attached: list[pl.Callback] = []

    def attach(self, *callbacks: pl.Callback) -> EvaluationClock:
        """Take callbacks that act at evaluations only: the trainer then need not offer them every hook of every step.

        That saves some 0.2 ms a step for the five that every run has. Their own state is not saved. Returns itself.
        """
        self._attached += callbacks
        return self

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the initial network, unless this is a continued run."""
        if self.every == "log":
            total = trainer.estimated_stepping_batches
            steps = np.geomspace(1, total, self.points).round().astype(int)
            self._log_steps = frozenset(steps.tolist())
        if self.last_step < 0:
            self._evaluate(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Measure at every n-th or at log-spaced steps."""
        step = trainer.global_step
        due = step in self._log_steps if self.every == "log" else self.every != "epoch" and step % int(self.every) == 0
        if due and step != self.last_step:  # several batches share a step under accumulation
            self._evaluate(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure at the end of an epoch."""
        if self.every == "epoch" and trainer.global_step != self.last_step:
            self._evaluate(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the final network."""
        if trainer.global_step != self.last_step:
            self._evaluate(trainer, pl_module)

    def _evaluate(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(module, RuleTraining), "EvaluationClock needs a RuleTraining module"
        assert isinstance(data, TaskData), "EvaluationClock needs its data as a TaskData"
        loader: Any = trainer.train_dataloader
        epoch = float(trainer.current_epoch)
        if isinstance(loader, SeededLoader):
            epoch = loader.epoch + loader.position / len(loader)
        self.last_step = trainer.global_step
        moment = Moment(module, data.task, epoch, self.last_step, trainer.optimizers[0].param_groups[0]["lr"])
        row: Row = {"epoch": epoch, "step": moment.step, "lr": moment.lr}
        callbacks: list[Any] = [*trainer.callbacks, *self._attached]  # type: ignore[attr-defined]
        for measurement in callbacks:
            if isinstance(measurement, Measurement) and measurement.enabled:
                started = time.perf_counter()
                with undisturbed(module):
                    row.update(measurement.measure(moment))
                spent = time.perf_counter() - started
                self.seconds[measurement.name] = self.seconds.get(measurement.name, 0.0) + spent
        for listener in callbacks:
            if hasattr(listener, "on_evaluation"):
                listener.on_evaluation(trainer, module, row)
        if not math.isfinite(row.get("train/loss", 0.0)):
            raise DivergedError(f"the training loss is {row['train/loss']} at step {moment.step}")

    def state_dict(self) -> dict[str, Any]:
        """When it last measured, and the time that took."""
        return {"last_step": self.last_step, "seconds": dict(self.seconds)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from there."""
        self.last_step, self.seconds = state_dict["last_step"], dict(state_dict["seconds"])
