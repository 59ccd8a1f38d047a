"""The one evaluation clock: all measurements are taken at the same steps, so that a row of metrics is complete."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch

from bpgen.callbacks.evaluation import Evaluation, Metrics
from bpgen.columns import Column
from bpgen.errors import require
from bpgen.training.callback import Callback, LightningModule, Trainer
from bpgen.training.loader_splits import LoaderSplits
from bpgen.training.splits import Splits


class EvaluationClock(Callback):
    """Decides when to measure; the start and the end of training are always measured.

    It calls every measurement (a callback with `measure`) among the trainer's callbacks or among those it was given by
    `attach`, and then tells the row to every one of them with a method `on_evaluation(trainer, module, row)`.

    Args:
        every: "epoch", a number of steps, or "log" for `points` steps spaced evenly in their logarithm.
        points: number of evaluations with "log".

    Attributes:
        rows: the complete rows so far, e.g. for `pandas.DataFrame(clock.rows)`.
        seconds: time spent so far, by measurement.
        about: what measurements say of all their rows.
        tables: what they say besides of the last network, by name; empty before the end of training.
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
        self.rows: list[Metrics] = []
        self.about: dict[str, Any] = {}
        self.tables: dict[str, Any] = {}
        self._log_steps: frozenset[int] = frozenset()
        self._attached: list[Any] = []
        self._splits: Splits | None = None
        self._checked = False

    @classmethod
    def of(cls, trainer: Trainer) -> EvaluationClock:
        """The clock of a trainer: the one among its callbacks, or a new one that is put before them."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        for callback in callbacks:
            if isinstance(callback, cls):
                return callback
        callbacks.insert(0, cls())  # first, so that callbacks that monitor a metric find the present one
        return cls.of(trainer)

    def attach(self, *callbacks: Callback) -> EvaluationClock:
        """Take callbacks that act at evaluations only: the trainer then need not offer them every hook of every step.

        That saves some 0.2 ms a step for the five that every run has. Their own state is not saved. Returns itself.
        """
        self._attached += callbacks
        return self

    @property
    def columns(self) -> list[Column]:
        """What the measurements that were attached say of their columns."""
        return [column for each in self._attached if hasattr(each, "measure") for column in each.columns]

    def check(self, evaluation: Evaluation, *callbacks: Callback) -> None:
        """Find out before training what would fail in it, once; of these callbacks and of those it was given.

        Raises:
            BpgenError: something cannot be measured here.
        """
        if not self._checked:
            for measurement in _measuring([*callbacks, *self._attached]):
                with evaluation.undisturbed():
                    measurement.check(evaluation)
        self._checked = True

    def left(self, trainer: Trainer) -> int:
        """How many evaluations are still to come."""
        step, total = trainer.global_step, trainer.estimated_stepping_batches
        if self.every == "log":
            return sum(other > step for other in self._log_steps)
        batches = trainer.num_training_batches / trainer.accumulate_grad_batches
        return math.ceil((total - step) / (math.ceil(batches) if self.every == "epoch" else int(self.every)))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the initial network, unless this is a continued run."""
        from bpgen.training.module import RuleTraining

        require(isinstance(pl_module, RuleTraining), "measurements need a bpgen.training.RuleTraining as the module.")
        if self.every == "log":
            total = trainer.estimated_stepping_batches
            steps = np.geomspace(1, total, self.points).round().astype(int)
            self._log_steps = frozenset(steps.tolist())
        if self.last_step < 0:
            self._evaluate(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Measure at every n-th or at log-spaced steps."""
        step = trainer.global_step
        due = step in self._log_steps if self.every == "log" else self.every != "epoch" and step % int(self.every) == 0
        if due and step != self.last_step:  # several batches share a step under accumulation
            self._evaluate(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure at the end of an epoch."""
        if self.every == "epoch" and trainer.global_step != self.last_step:
            self._evaluate(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the final network, and make the tables of it."""
        if trainer.global_step != self.last_step:
            self._evaluate(trainer, pl_module)
        evaluation = self._evaluation(trainer, pl_module)
        for measurement in _measuring([*trainer.callbacks, *self._attached]):  # type: ignore[attr-defined]
            with evaluation.undisturbed():
                self.tables.update(measurement.tables(evaluation))

    def state_dict(self) -> dict[str, Any]:
        """When it last measured, and the time that took."""
        return {"last_step": self.last_step, "seconds": dict(self.seconds)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from there."""
        self.last_step, self.seconds = state_dict["last_step"], dict(state_dict["seconds"])

    def _evaluate(self, trainer: Trainer, module: Any) -> None:
        self.last_step = trainer.global_step
        evaluation = self._evaluation(trainer, module)
        callbacks: list[Any] = [*trainer.callbacks, *self._attached]  # type: ignore[attr-defined]
        self.check(evaluation, *callbacks)
        where: Metrics = {"epoch": evaluation.epoch, "step": evaluation.step}
        row: Metrics = {**where, "lr": evaluation.lr}
        for measurement in _measuring(callbacks):
            started = time.perf_counter()
            with evaluation.undisturbed():
                found = measurement.measure(evaluation)
                if not self.rows:
                    self.about.update(measurement.about(evaluation))
            spent = time.perf_counter() - started
            self.seconds[measurement.name] = self.seconds.get(measurement.name, 0.0) + spent
            twice = ", ".join(sorted(set(found) & set(row)))
            require(not twice, f"two measurements give {twice}: call one of them otherwise, `.named('another_name')`.")
            row.update(found)
            measurement.rows.append({**where, **found})
        self._tell(trainer, module, row, callbacks)
        if not math.isfinite(row.get("train/loss", 0.0)):
            raise module.divergence(f"the training loss is {row['train/loss']}", evaluation.step)

    def _evaluation(self, trainer: Trainer, module: Any) -> Evaluation:
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        return Evaluation(module, self._splits_of(trainer, module), _epochs(trainer), self.last_step, lr)

    def _tell(self, trainer: Trainer, module: LightningModule, row: Metrics, callbacks: list[Any]) -> None:
        """Hand the row to whoever wants it."""
        self.rows.append(row)
        for listener in callbacks:
            if hasattr(listener, "on_evaluation"):
                listener.on_evaluation(trainer, module, row)
        for logger in trainer.loggers:
            logger.log_metrics({name: float(value) for name, value in row.items()}, step=trainer.global_step)
        trainer.callback_metrics.update({name: torch.tensor(float(value)) for name, value in row.items()})

    def _splits_of(self, trainer: Trainer, module: Any) -> Splits:
        """What measurements look at: the splits of the data module, or else of the loaders."""
        if self._splits is None:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            own = getattr(data, "splits", None)
            self._splits = (
                own if isinstance(own, Splits) else LoaderSplits.of(trainer, module.loss, module.network.n_out)
            )
            self._splits.device = module.network.W_rec.device
        return self._splits


def _measuring(callbacks: Iterable[Any]) -> list[Any]:
    """The measurements among them that are switched on."""
    return [callback for callback in callbacks if hasattr(callback, "measure") and callback.enabled]


def _epochs(trainer: Trainer) -> float:
    """How many epochs of batches training has seen."""
    loader: Any = trainer.train_dataloader
    if hasattr(loader, "epochs"):
        return float(loader.epochs)
    batches = trainer.num_training_batches
    seen = trainer.fit_loop.epoch_loop.batch_progress.total.ready
    return seen / batches if math.isfinite(batches) else float(trainer.current_epoch)
