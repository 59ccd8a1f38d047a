"""The networks that a run saved, ready to be measured again exactly as they were measured during training."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bpgen.callbacks.measurement import Moment
from bpgen.errors import BpgenError, require
from bpgen.tasks import Task
from bpgen.training.build import make_loss
from bpgen.training.module import RuleTraining
from bpgen.training.optim import Optimizer, Schedule
from bpgen.training.run_folder import RunFolder, load_run


class Saved(NamedTuple):
    """A run's folder and the steps asked for."""

    folder: RunFolder
    steps: list[int]


def find(path: str | os.PathLike[str], step: str = "last") -> Saved:
    """What a user means by a run folder and a step, or by one file of its weights/.

    Args:
        path: a folder that `bpgen fit` wrote, or RUN/weights/stepN.pt.
        step: a number, "last" or "all"; of a file, only its own.

    Raises:
        BpgenError: not a run, nothing saved there, or no such step.
    """
    place = Path(path).expanduser()
    if place.is_file():
        named = re.fullmatch(r"step(\d+)\.pt", place.name)
        require(
            named is not None and place.parent.name == "weights" and (place.parent.parent / "config.yaml").is_file(),
            f"{path} is not a saved network of a run: name RUN/weights/stepN.pt, or the run's folder and --step N.",
        )
        assert named is not None
        require(step in ("last", str(int(named[1]))), f"{path} is one network: leave out --step, or name the run.")
        return Saved(RunFolder.existing(place.parent.parent), [int(named[1])])
    folder = RunFolder.existing(place)
    saved = sorted(folder.weights())
    require(bool(saved), f"{path} holds no saved weights yet.")
    if step == "all":
        return Saved(folder, saved)
    if step == "last":
        return Saved(folder, saved[-1:])
    try:
        wanted = int(step)
    except ValueError:
        raise BpgenError(f"--step must be a number, last or all, got {step!r}.") from None
    near = min(saved, key=lambda s: abs(s - wanted))
    require(wanted in saved, f"{path} saved nothing at step {step}; the nearest is {near}. --step all takes all.")
    return Saved(folder, [wanted])


def moments(saved: Saved) -> Iterator[Moment]:
    """The evaluations one after another, with network, rule, loss, learning rate and data as they were."""
    rows = {int(row["step"]): row for row in saved.folder.rows() if "step" in row}
    task: Task | None = None
    for step in saved.steps:
        run = load_run(saved.folder.path, step)
        task = run.task if task is None else task  # whose data are loaded once
        config, row = run.config, rows.get(step, {})
        optimizer = Optimizer(**config.get("optimizer", {}))
        schedule = Schedule(**config.get("schedule", {}))
        module = RuleTraining(run.network, run.rule, make_loss(**config["loss"]), optimizer, schedule, config["seed"])
        yield Moment(module, task, row.get("epoch", float("nan")), step, row.get("lr", optimizer.lr))
