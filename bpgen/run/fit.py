"""The life of one run, from a config to a finished folder: what `bpgen fit` does."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import lightning.pytorch as pl

from bpgen import durable
from bpgen.run.build import build
from bpgen.run.config import Config
from bpgen.run.experiment import Before, Ending, Experiment, Say, Trained
from bpgen.run.folder import RunFolder
from bpgen.run.outcome import draw as draw_run
from bpgen.run.outcome import write_outcome
from bpgen.run.progress import ProgressLines, bar
from bpgen.run.record import Interrupt, Record
from bpgen.run.time_left import TimeLeft
from bpgen.run.tracked import hand_over
from bpgen.tracking.batch_loss import BatchLoss

say_at_once: Say = partial(print, flush=True)  # also where the output is a file


class Audience(NamedTuple):
    """Who watches a run; see `fit`."""

    say: Say
    terminal: bool
    draw: bool


def fit(config: Config, say: Say = say_at_once, terminal: bool = False, draw: bool = True) -> Ending:
    """Train and measure one network, in a new folder.

    Args:
        config: all of it, e.g. `Config.of({"rule": {"name": "rflo"}, "seed": 3})`.
        say: where lines for the user go.
        terminal: draw a progress bar instead of a line per evaluation.
        draw: draw the figures of the run; a study draws its own.

    Raises:
        BpgenError: bad input; found before anything is written.
    """
    experiment = build(config)
    with RunFolder.create(experiment.config, experiment.remembered) as folder:
        return carry_out(experiment, folder, Before(experiment.config.hash), Audience(say, terminal, draw))


def carry_out(experiment: Experiment, folder: RunFolder, before: Before, audience: Audience) -> Ending:
    """Train, and write down, draw and track how it went, in a folder that no other process writes."""
    clock = experiment.clock.attach(Record(folder))
    callbacks: list[pl.Callback] = [clock, Interrupt(folder, before.seconds), *experiment.stopping]
    if experiment.tracker is not None:
        callbacks.append(BatchLoss())
    if audience.terminal:
        callbacks.append(bar(clock.columns))
    else:
        clock.attach(ProgressLines(audience.say, clock.columns))
        callbacks.append(TimeLeft(audience.say, clock))
    return conclude(experiment, folder, experiment.train(folder, callbacks, before, audience.say), audience.draw)


def conclude(experiment: Experiment, folder: RunFolder, trained: Trained, draw: bool) -> Ending:
    """Write down, draw and track how a run went."""
    clock, (ending, summary, logger) = experiment.clock, trained
    try:
        write_outcome(folder, summary, clock.tables)
        if draw:
            draw_run(folder, clock.columns)
    except durable.NotWritten as error:
        ending = ending if ending.status == "interrupted" else Ending.without_room(folder, error)
    if logger is not None:
        hand_over(folder, clock.columns, logger)
        logger.finish(ending.status)
    return ending
