"""From a config to everything a run is made of: each part is built once, and all bad input is found here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bpgen.callbacks import Column, Evaluation, EvaluationClock, Measurement
from bpgen.network import Network
from bpgen.registry import find
from bpgen.rules import Rule, check_chunks, chunk_note
from bpgen.run.config import Config
from bpgen.tasks import Task
from bpgen.tracking.wandb import Tracker
from bpgen.training.data import TaskData
from bpgen.training.module import RuleTraining


@dataclass(frozen=True)
class Experiment:
    """What a run is made of.

    config: with what it leaves to the task filled in.
    module: network, rule, loss and optimizer.
    data: the task in batches.
    clock: when to measure; the measurements are attached to it.
    measurements: what to measure, in the order of the table.
    tracker: where it is tracked, if it is.
    """

    config: Config
    module: RuleTraining
    data: TaskData
    clock: EvaluationClock
    measurements: tuple[Measurement, ...]
    tracker: Tracker | None

    @property
    def columns(self) -> list[Column]:
        """What its measurements say of their columns."""
        return [column for measurement in self.measurements for column in measurement.columns]

    @property
    def multiplications(self) -> int:
        """Of the recurrent product of a training step, which decides how many threads can share it."""
        return self.config.trainer.batch_size * self.module.network.W_rec.numel()

    def tracked(self, folder: Path, say: Callable[[str], None], run_id: str | None) -> Any:
        """The open W&B run of a folder, told what is measured; None if it is not tracked. See `Tracker.open`."""
        if self.tracker is None:
            return None
        logger = self.tracker.open(folder, self.config.plain(), say, run_id)
        logger.keep_extremes(column.name for column in self.columns)
        return logger

    @property
    def start(self) -> Evaluation:
        """The evaluation before the first step."""
        return Evaluation(self.module, self.data.splits, lr=self.module.optimizer.lr)

    def announcements(self) -> Iterator[str]:
        """What a user is told before training."""
        yield self.data.task.describe()
        note = chunk_note(self.module.rule, self.data.chunk) if self.data.chunk else ""
        if note:
            yield note
        if self.module.finished_steps:
            yield f"{self.config.rule.label} hands over finished weight changes: optimizer.lr is not used"
        for measurement in self.measurements:
            if measurement.enabled:
                yield measurement.describe(self.start)


def build(config: Config) -> Experiment:
    """Build a run.

    Raises:
        BpgenError: bad input; nothing was written yet.
    """
    tracker = Tracker.of(config.wandb, config.tracking)
    task = config.make_task()
    config = config.completed(task)
    rule: Rule = config.rule.make()
    module = training(config, make_network(config, task), rule)
    trainer = config.trainer
    trainer.check(module.finished_steps)
    data = TaskData(task, module.loss, trainer.batch_size, config.seed, trainer.chunk, trainer.stream)
    if data.chunk is not None:
        check_chunks(module.rule, module.network)
    data.setup("fit")  # data that are missing or do not fit are found now
    measurements = tuple(find("measurement", name).make(**given) for name, given in config.measurements.items())
    clock = EvaluationClock(**config.evaluation).attach(*measurements)
    experiment = Experiment(config, module, data, clock, measurements, tracker)
    clock.check(experiment.start)
    return experiment


def make_network(config: Config, task: Task) -> Network:
    """The network of a config, sized for the task, with the initial weights of the run's seed."""
    return Network(config.neuron.make(), task.n_in, n_out=task.n_out, seed=config.seed, **config.network)


def training(config: Config, network: Network, rule: Rule) -> RuleTraining:
    """Network and rule with the loss and the optimizer of a config.

    Raises:
        BpgenError: they do not fit each other.
    """
    return RuleTraining(network, rule, config.loss.make(), config.optimizer, config.schedule, config.seed)
