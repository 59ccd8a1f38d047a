"""Several seeds of one config, each in a folder of its own: what `bpgen fit --seeds` does.

They are trained at once where that is possible and faster, else one after the other; either way each is an ordinary
run. Together they have one training step (`bpgen.training.seeds`); evaluations, curvature among them, are taken seed by
seed. An interrupted seed goes on alone, by `bpgen fit --resume`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch

from bpgen.run.build import build
from bpgen.run.config import Config
from bpgen.run.experiment import Before, Ending, Experiment, Say
from bpgen.run.fit import Audience, carry_out, conclude, say_at_once
from bpgen.run.folder import RunFolder
from bpgen.run.progress import ProgressLines, bar
from bpgen.run.record import Contents, Interrupt, Record
from bpgen.run.seat import Seat, Seats
from bpgen.run.time_left import TimeLeft
from bpgen.threads import using
from bpgen.tracking.batch_loss import BatchLoss
from bpgen.training.at_once import slower
from bpgen.training.seeds import SeedsData, SeedsTraining
from bpgen.training.trainer import quiet_lightning, trainer_for


def fit_seeds(
    config: Config, seeds: Sequence[int], say: Say = say_at_once, terminal: bool = False, draw: bool = True
) -> list[Ending]:
    """Train and measure a network for each seed, in new folders; see `bpgen.run.fit.fit`.

    Args:
        config: all of it but the seed; a name becomes NAME-seedSEED.
        seeds: one for each run.
        say, terminal, draw: as for `fit`.

    Returns:
        How each run ended, of those that were begun: an interruption ends them all.

    Raises:
        BpgenError: bad input; found before anything is written.
    """
    experiments, audience = _built(config, seeds), Audience(say, terminal, draw)
    reason = why_apart(experiments)
    if reason is None:
        say(f"{len(seeds)} seeds are trained at once: {', '.join(map(str, seeds))}")
        return _together(experiments, audience)
    say(f"{len(seeds)} seeds, one after the other: {reason}")
    endings: list[Ending] = []
    for experiment in experiments:
        with RunFolder.create(experiment.config, experiment.remembered) as folder:
            endings.append(carry_out(experiment, folder, Before(experiment.config.hash), audience))
        if endings[-1].status == "interrupted":
            break
    return endings


def why_apart(experiments: Sequence[Experiment]) -> str | None:
    """Why these runs, which differ in their seed alone, are better done one after the other; None where not."""
    first = experiments[0]
    options, splits = first.config.trainer, [experiment.data.splits.whole("train") for experiment in experiments]
    if len(experiments) == 1:
        return "there is one"
    if options.chunk is not None:
        return "chunks of a sequence carry a state on (trainer.chunk)"
    if options.patience is not None:
        return "each ends by itself (trainer.patience)"
    alone = [measurement.name for measurement in first.measurements if measurement.enabled and measurement.alone]
    if alone:
        return f"a measurement asks the trainer of each ({', '.join(alone)})"
    if any(split.x.shape != splits[0].x.shape for split in splits):
        return "their data differ in size"
    if slower(first.multiplications, options.accelerator):
        return "networks of this size keep a processor busy by themselves"
    some = torch.arange(min(options.batch_size, splits[0].size))
    return SeedsTraining([e.module for e in experiments]).why_not([split.take(some) for split in splits])


def _built(config: Config, seeds: Sequence[int]) -> list[Experiment]:
    """The runs; they share a task whose data do not depend on the seed."""
    configs = [replace(config, seed=s, name=config.name and f"{config.name}-seed{s}") for s in seeds]
    task = None if config.task.options.get("data_seed") == "run" else config.make_task()
    return [build(each, task) for each in configs]


def _together(experiments: Sequence[Experiment], audience: Audience) -> list[Ending]:
    """Train at once, and conclude each run."""
    first, befores = experiments[0], [Before(e.config.hash) for e in experiments]
    say = audience.say
    for line in first.announcements:
        say(line)
    with ExitStack() as stack:
        seats = []
        for place, (experiment, before) in enumerate(zip(experiments, befores, strict=True)):
            folder = stack.enter_context(RunFolder.create(experiment.config, experiment.remembered))
            logger = experiment.open(folder, before, say, beside=True)
            seats.append(_seat(place, experiment, folder, logger, audience))
        module = SeedsTraining([e.module for e in experiments])
        started = time.perf_counter()
        multiplications = len(experiments) * first.multiplications
        with using(first.config.threads, multiplications) as chosen, quiet_lightning():
            if chosen is not None:
                say(str(chosen))
            trainer = trainer_for(first.config.trainer, _callbacks(seats, audience), None, str(seats[0].folder.path))
            stopped: BaseException | None = None
            try:
                trainer.fit(module, datamodule=SeedsData([e.data for e in experiments]))
            except BaseException as error:  # a part that exits has failed, not the program
                stopped = error
            rest = (time.perf_counter() - started - sum(sum(e.clock.seconds.values()) for e in experiments)) / len(
                seats
            )
            return [_concluded(seat, module.ended.get(seat.place, stopped), trainer, rest, audience) for seat in seats]


def _seat(place: int, experiment: Experiment, folder: RunFolder, logger: Any, audience: Audience) -> Seat:
    clock = experiment.clock.attach(Record(folder))
    callbacks: list[pl.Callback] = [clock, Contents(folder)]
    if logger is not None:
        callbacks.append(BatchLoss())
    if not audience.terminal:
        clock.attach(ProgressLines(partial(_say_of, audience.say, experiment.config.seed), clock.columns))
    return Seat(place, experiment, folder, callbacks, logger)


def _say_of(say: Say, seed: int, line: str) -> None:
    say(f"seed {seed}: {line}")


def _callbacks(seats: Sequence[Seat], audience: Audience) -> list[pl.Callback]:
    """Of the whole training."""
    together = Seats(seats)
    if not audience.terminal:
        return [together, _InterruptAll(seats), TimeLeft(audience.say, together)]
    shown = bar(seats[0].experiment.clock.columns)
    seats[0].experiment.clock.attach(shown)
    return [together, _InterruptAll(seats), shown]


def _concluded(seat: Seat, error: BaseException | None, trainer: pl.Trainer, rest: float, audience: Audience) -> Ending:
    """What ended the run of one seed, written down. Its time is what it was measured for, and its share of the rest."""
    experiment, before = seat.experiment, Before(seat.experiment.config.hash)
    ending, spent = experiment.ending(trainer, seat.folder, error), rest + sum(experiment.clock.seconds.values())
    trained = experiment.trained(seat.folder, before, seat.logger, ending, spent)
    trained.summary["together"] = [each.experiment.config.seed for each in seat.seats.seats]
    return conclude(experiment, seat.folder, trained, audience.draw)


class _InterruptAll(Interrupt):
    """A signal stops all seeds, each with a checkpoint of its own."""

    def __init__(self, seats: Sequence[Seat]) -> None:
        super().__init__(seats[0].folder)
        self._seats = seats

    def save(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Of those that are still trained."""
        for seat in self._seats:
            if seat.place not in pl_module.ended:
                seat.save_checkpoint(seat.folder.checkpoint)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """What a folder holds is the knowledge of each seat."""
