"""How long a run will take, found out from its own first steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import lightning.pytorch as pl

from bpgen.run.build import build
from bpgen.run.config import Config
from bpgen.run.durations import brief, duration
from bpgen.threads import using
from bpgen.training.trainer import quiet_lightning, trainer_for

_FIRST = 1.0  # seconds of steps to judge by


class Enough(Exception):
    """The first steps of a dry run are done."""


class Measured(Protocol):
    """How often a run measures, and how long that takes: an `EvaluationClock`, or what stands for several."""

    @property
    def rows(self) -> Sequence[Any]: ...  # noqa: D102
    @property
    def seconds(self) -> Mapping[str, float]: ...  # noqa: D102
    def left(self, trainer: pl.Trainer) -> int: ...  # noqa: D102


class TimeLeft(pl.Callback):
    """Says once, after the first steps, how long the rest of a run will take.

    Args:
        say: where the line goes.
        clock: of the run: how often it measures, and how long that takes.
        stop: end the training there, by `Enough`.
    """

    def __init__(self, say: Callable[[str], None], clock: Measured, stop: bool = False) -> None:
        self.say, self.clock, self.stop = say, clock, stop
        self._began: tuple[int, float] | None = None  # step and time after the first update, which is slower

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Look whether enough steps were seen."""
        now, done, total = self._training(), trainer.global_step, trainer.estimated_stepping_batches
        if self._began is None:
            self._began = (done, now) if done else None
            return
        steps, spent = done - self._began[0], now - self._began[1]
        if not steps or (spent < _FIRST and done < total):
            return
        trainer.callbacks = [c for c in trainer.callbacks if c is not self]  # type: ignore[attr-defined]
        if math.isfinite(total) and done < total:
            self.say(self._line(trainer, int(total) - done, spent / steps))
        if self.stop:
            raise Enough

    def _training(self) -> float:
        """The time, without what was spent on measuring."""
        return time.perf_counter() - sum(self.clock.seconds.values())

    def _line(self, trainer: pl.Trainer, steps: int, step_seconds: float) -> str:
        """How long, and of what that is made up."""
        seconds, parts = steps * step_seconds, [f"{steps} steps of {brief(step_seconds)}"]
        if self.clock.rows:  # a continued run has not measured yet
            each, times = sum(self.clock.seconds.values()) / len(self.clock.rows), self.clock.left(trainer)
            seconds += times * each
            parts.append(f"{times} evaluations of {brief(each)}")
        return f"about {duration(seconds)} left: {', '.join(parts)}"


def dry_run(config: Config, say: Callable[[str], None]) -> None:
    """Say what a run would do and how long it would take, from its first evaluation and steps; nothing is written.

    Raises:
        BpgenError: bad input.
    """
    experiment = build(config)
    for line in experiment.announcements:
        say(line)
    callbacks = [experiment.clock, TimeLeft(say, experiment.clock, stop=True)]
    with using(config.threads, experiment.multiplications) as chosen, quiet_lightning(), suppress(Enough):
        if chosen is not None:
            say(str(chosen))
        trainer_for(config.trainer, callbacks, None, None).fit(experiment.module, datamodule=experiment.data)
