"""Keeps a run's folder complete: at every evaluation, and when Ctrl-C, SIGTERM, SIGUSR1 or SIGUSR2 stops the run.

A stopped run has finished the step it was in, and its checkpoint continues bit for bit.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from bpgen.callbacks.clock import EvaluationClock
from bpgen.callbacks.evaluation import Metrics
from bpgen.run.folder import RunFolder

_INSISTING = (signal.SIGINT, signal.SIGTERM)
_WARNING = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))  # of a batch system
WHERE = ("epoch", "step", "lr")  # the first columns of every row


class Record(pl.Callback):
    """Keeps a run's folder complete after every evaluation.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_evaluation(self, trainer: pl.Trainer, module: Any, row: Metrics) -> None:
        """Metrics first, checkpoint last: what a checkpoint promises is on disk.

        What is measured and not optional stands in every row, if need be empty.
        """
        columns = EvaluationClock.of(trainer).columns
        self.folder.append(row, [*WHERE, *(column.name for column in columns if not column.optional)])
        self.folder.save_weights(trainer.global_step, module.network, module.rule)
        trainer.save_checkpoint(self.folder.checkpoint)


class Contents(pl.Callback):
    """Lets every checkpoint know what is in the run's folder, so that nothing is missing unnoticed when it goes on.

    And how long the run has taken, which nothing else knows of one that is killed.

    Args:
        folder: the run's.
        seconds: that it took before this process.
    """

    def __init__(self, folder: RunFolder, seconds: float = 0.0) -> None:
        self.folder = folder
        self._began = time.perf_counter() - seconds

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add both."""
        checkpoint["folder"] = self.folder.contents()
        checkpoint["seconds"] = time.perf_counter() - self._began


class RunInterrupted(Exception):
    """Training was asked to stop. signum: the signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Interrupt(Contents):
    """Turns signals into a checkpoint and `RunInterrupted`; a second SIGINT or SIGTERM stops at once.

    Its checkpoints, as all others, know what `Contents` tells them: one callback, for each costs some 0.04 ms a step.

    Args:
        folder: the run's.
        seconds: see `Contents`.
    """

    def __init__(self, folder: RunFolder, seconds: float = 0.0) -> None:
        super().__init__(folder, seconds)
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._step = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals, after Lightning has."""
        self._step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._handle) for s in (*_INSISTING, *_WARNING)}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Stop here if asked to, but never between batches that share an update: a checkpoint has no gradients."""
        updated, self._step = trainer.global_step != self._step, trainer.global_step
        if self.received is not None and updated:
            self.save(trainer, pl_module)
            raise RunInterrupted(self.received)

    def save(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the checkpoint to go on from."""
        trainer.save_checkpoint(self.folder.checkpoint)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back, unless Lightning, whose handlers were found here, has done so before."""
        for signum, handler in self._before.items():
            if signal.getsignal(signum) == self._handle:
                signal.signal(signum, handler)
        self._before = {}

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self.teardown(trainer, pl_module, "fit")

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received in _INSISTING and signum in _INSISTING:
            raise RunInterrupted(signum)
        if self.received is not None and signum in _WARNING:
            return  # batch systems warn before they end a process, with more than one signal
        self.received = signum
        print("\nstopping after this step; once more stops at once", file=sys.stderr)
