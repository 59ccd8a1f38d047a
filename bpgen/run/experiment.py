"""What a run is made of, and how it is trained."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch

from bpgen import durable
from bpgen._version import __version__
from bpgen.callbacks import Evaluation, EvaluationClock, Measurement
from bpgen.callbacks.best import EarlyStopping, best_of
from bpgen.errors import DivergedError, RuleError, failure
from bpgen.rules import chunk_note
from bpgen.run.config import Config
from bpgen.run.folder import RunFolder
from bpgen.run.parts import authored
from bpgen.run.record import RunInterrupted
from bpgen.threads import using
from bpgen.tracking.wandb import Tracker
from bpgen.training.data import TaskData
from bpgen.training.module import RuleTraining
from bpgen.training.trainer import quiet_lightning, trainer_for

_EXIT_CODES = {"finished": 0, "failed": 2, "diverged": 3}
Say = Callable[[str], None]


class Before(NamedTuple):
    """What an earlier part of the same run left.

    hash: of its config. seconds: it took so far. wandb_id: of its W&B run. checkpoint: where to go on.
    threads: on which it computed; they decide the last bit of large products. config: the plain one it began with.
    """

    hash: str
    seconds: float = 0.0
    wandb_id: str | None = None
    checkpoint: str | None = None
    threads: int | None = None
    config: dict[str, Any] | None = None


class Ending(NamedTuple):
    """How a run ended: its folder, status, what there is to say about it, and the exit code that says so."""

    folder: RunFolder
    status: str
    message: str
    exit_code: int

    @classmethod
    def of(cls, folder: RunFolder, status: str, message: str = "") -> Ending:
        """With the exit code of its status."""
        return cls(folder, status, message, _EXIT_CODES[status])

    @classmethod
    def without_room(cls, folder: RunFolder, error: durable.NotWritten) -> Ending:
        """Of a run that could not write its files."""
        path = shlex.quote(str(folder.path))
        if not (folder.path / "config.yaml").is_file():
            what = "Its folder was removed or moved while it ran. Start it again with `bpgen fit`."
        elif not folder.checkpoints:
            what = f"Nothing was trained yet. Make room and start again: bpgen fit --config {path}/config.yaml"
        else:
            what = f"All up to the last checkpoint is safe. Make room and continue with: bpgen fit --resume {path}"
        return cls(folder, "interrupted", f"interrupted: {error} {what}", 2)


class Trained(NamedTuple):
    """How training ended, what summary.json says of it, and the open W&B run, if it is tracked."""

    ending: Ending
    summary: dict[str, Any]
    logger: Any


@dataclass(frozen=True)
class Experiment:
    """What a run is made of.

    config: with what it leaves to the task filled in.
    module: network, rule, loss and optimizer.
    data: the task in batches.
    clock: when to measure; the measurements are attached to it.
    measurements: what to measure, in the order of the table.
    tracker: where it is tracked, if it is.
    remembered: what to know data of a user's own by, see `bpgen.run.data`.
    """

    config: Config
    module: RuleTraining
    data: TaskData
    clock: EvaluationClock
    measurements: tuple[Measurement, ...]
    tracker: Tracker | None
    remembered: str

    @property
    def multiplications(self) -> int:
        """Of the recurrent product of a training step, which decides how many threads can share it."""
        return self.config.trainer.batch_size * self.module.network.W_rec.numel()

    @property
    def start(self) -> Evaluation:
        """The evaluation before the first step."""
        return Evaluation(self.module, self.data.splits, lr=self.module.optimizer.lr)

    @property
    def stopping(self) -> list[EarlyStopping]:
        """What ends the training before its last step, if anything does."""
        options = self.config.trainer
        return [] if options.patience is None else [EarlyStopping(options.best_by, options.patience)]

    @cached_property
    def announcements(self) -> list[str]:
        """What a user is told before training."""
        lines = [self.data.task.describe()]
        if self.data.chunk:
            lines.append(chunk_note(self.module.rule, self.data.chunk))
        if self.module.finished_steps:
            lines.append(f"{self.config.rule.label} hands over finished weight changes: optimizer.lr is not used")
        lines += [measurement.describe(self.start) for measurement in self.measurements if measurement.enabled]
        return [line for line in lines if line]

    def train(self, folder: RunFolder, callbacks: list[pl.Callback], before: Before, say: Say) -> Trained:
        """Train, on the threads that suit it, from the first step or from a checkpoint to the end, whatever that is.

        Args:
            folder: of the run.
            callbacks: what measures, writes down and shows.
            before: what an earlier part of the run left.
            say: where lines for the user go.
        """
        for line in self.announcements:
            say(line)
        logger = self.open(folder, before, say)
        with using(self.config.threads or before.threads, self.multiplications) as chosen, quiet_lightning():
            if chosen is not None:
                say(str(chosen))
            started = time.perf_counter()
            trainer = trainer_for(self.config.trainer, callbacks, logger, str(folder.path))
            error: BaseException | None = None
            try:
                trainer.fit(self.module, datamodule=self.data, ckpt_path=before.checkpoint, weights_only=True)
            except BaseException as stop:  # a part that exits has failed, not the program
                error = stop
            return self.trained(
                folder, before, logger, self.ending(trainer, folder, error), time.perf_counter() - started
            )

    def open(self, folder: RunFolder, before: Before, say: Say, beside: bool = False) -> Any:
        """Let checkpoints know the config, and open the W&B run, if it is tracked: its logger, or None.

        Args:
            folder: of the run.
            before: what an earlier part of the run left.
            say: where lines for the user go.
            beside: whether other runs of this process are tracked at the same time.
        """
        self.module.save_hyperparameters(before.config or self.config.plain(), logger=False)  # into every checkpoint
        if self.tracker is None:
            return None
        logger = self.tracker.open(folder.path, self.config.plain(), say, before.wandb_id, beside)
        logger.keep_extremes(column.name for column in self.clock.columns)
        return logger

    def ending(self, trainer: pl.Trainer, folder: RunFolder, error: BaseException | None) -> Ending:
        """How a run ended that was ended by this error, or by none."""
        if error is None:
            return Ending.of(folder, "finished")
        if isinstance(error, DivergedError):
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            cure = self._cure(lr, folder.rows())
            return Ending.of(folder, "diverged", f"diverged: {error}, with learning rate {lr:g}. Try {cure}.")
        if isinstance(error, (RunInterrupted, KeyboardInterrupt)):
            path = shlex.quote(str(folder.path))
            again = f"continue with: bpgen fit --resume {path}"
            if not folder.checkpoints:
                again = f"nothing was trained yet; start again with: bpgen fit --config {path}/config.yaml"
            message = f"interrupted at step {trainer.global_step}; {again}"
            return Ending(folder, "interrupted", message, 128 + getattr(error, "signum", 2))
        if isinstance(error, durable.NotWritten):
            return Ending.without_room(folder, error)
        if isinstance(error, RuleError):
            return Ending.of(folder, "failed", f"rule {self.config.rule.label} failed: {error}")
        return Ending.of(folder, "failed", str(failure(error, authored(self.config))))

    def trained(self, folder: RunFolder, before: Before, logger: Any, ending: Ending, spent: float) -> Trained:
        """What there is to say of a run that ended like this, after so many seconds."""
        summary = self._summary(ending, before, spent)
        return Trained(ending, summary | ({} if logger is None else {"wandb_id": logger.experiment.id}), logger)

    def _cure(self, lr: float, rows: Sequence[Mapping[str, float]]) -> str:
        """What to try when it diverged at a learning rate: nothing that the curvature at the start forbids."""
        if self.module.finished_steps:
            return "smaller steps by the options of the rule (bpgen fit --rule NAME --help)"
        curvature = rows[0].get("sharpness/lambda_max", 0.0) if rows else 0.0
        smaller = f"a smaller --optimizer.lr (e.g. {lr / 3:.1g})"
        if curvature * lr > 3:  # then 1/λ is below lr/3
            allowed = f"e.g. {1 / curvature:.1g}: the sharpness at the start was {curvature:.2g}"
            smaller = f"inputs and targets scaled to about 1, a smaller --optimizer.lr ({allowed})"
        advice = self.module.rule.when_diverged
        return ", ".join(filter(None, [smaller, advice])) + " or --trainer.clip 1"

    def _summary(self, ending: Ending, before: Before, spent: float) -> dict[str, Any]:
        rows, by = ending.folder.rows(), self.config.trainer.best_by
        best = best_of(rows, by)
        measuring = {name: round(seconds, 3) for name, seconds in self.clock.seconds.items()}
        seconds = before.seconds + spent
        return {
            "status": ending.status,
            "message": ending.message,
            "last": rows[-1] if rows else {},
            "best": {} if best is None else {"column": by, **best._asdict()},
            "seconds": {
                "total": round(seconds, 3),
                "training": round(seconds - sum(measuring.values()), 3),
                "measuring": measuring,
            },
            "seed": self.config.seed,
            "threads": torch.get_num_threads(),
            "config_hash": before.hash,
            "versions": {
                "bpgen": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "lightning": pl.__version__,
            },
            **self.clock.about,
        }
