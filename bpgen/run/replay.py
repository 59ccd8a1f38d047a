"""The networks that a run saved, read back, and ready to be measured exactly as they were during training."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from bpgen.callbacks import Evaluation
from bpgen.callbacks.best import best_of
from bpgen.errors import BpgenError, require
from bpgen.network import Network
from bpgen.rules import Rule
from bpgen.run import data
from bpgen.run.build import make_network, training
from bpgen.run.config import Config
from bpgen.run.files import load_file
from bpgen.run.folder import RunFolder
from bpgen.run.loaded import LoadedRun
from bpgen.tasks import Task
from bpgen.training.splits import TaskSplits


class SavedSteps(NamedTuple):
    """A run's folder, and steps at which it saved its network."""

    folder: RunFolder
    steps: list[int]


def load_run(folder: str | os.PathLike[str], step: int | Literal["best"] | None = None) -> LoadedRun:
    """Network, rule, task and config of a run, as they were at an evaluation.

    Args:
        folder: a folder that `bpgen fit` wrote.
        step: the evaluation's step, or "best" by the column trainer.best_by; the last one by default.

    Raises:
        BpgenError: not a run folder, or nothing was saved at that step.
    """
    run = RunFolder.existing(folder)
    saved, plain = run.weights(), run.plain_config()
    require(bool(saved), f"{folder} holds no saved weights yet.")
    step = max(saved) if step is None else _best_step(run) if step == "best" else step
    require(step in saved, f"{folder} has no evaluation at step {step}; it has {', '.join(map(str, saved))}.")
    config = run.config()
    task = config.make_task()
    edited = data.changed(run.path, config, task)
    if edited:
        warnings.warn(edited, stacklevel=2)
    loaded = LoadedRun(*_restored(run, config, task, step), task, plain)
    loaded.folder = run
    return loaded


def saved_steps(path: str | os.PathLike[str], step: str = "last") -> SavedSteps:
    """What a user means by a run folder and a step, or by one file of its weights/.

    Args:
        path: a folder that `bpgen fit` wrote, or RUN/weights/stepN.pt.
        step: a number, "last", "best" or "all"; of a file, only its own.

    Raises:
        BpgenError: not a run, nothing saved there, or no such step.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return _one_file(place, step)
    folder = RunFolder.existing(place)
    saved = sorted(folder.weights())
    require(bool(saved), f"{path} holds no saved weights yet.")
    if step == "all":
        return SavedSteps(folder, saved)
    if step == "best":
        return SavedSteps(folder, [_best_step(folder)])
    if step == "last":
        return SavedSteps(folder, saved[-1:])
    try:
        wanted = int(step)
    except ValueError:
        raise BpgenError(f"--step must be a number, last, best or all, got {step!r}.") from None
    near = min(saved, key=lambda s: abs(s - wanted))
    require(wanted in saved, f"{path} saved nothing at step {step}; the nearest is {near}. --step all takes all.")
    return SavedSteps(folder, [wanted])


def _best_step(folder: RunFolder) -> int:
    """The step of the best evaluation.

    Raises:
        BpgenError: the column holds no number.
    """
    by = folder.config().trainer.best_by
    best = best_of(folder.rows(), by)
    if best is None:
        raise BpgenError(f"{folder.path} has no best step: {by} holds no number (--trainer.best_by of the run).")
    return best.step


def evaluations(saved: SavedSteps) -> Iterator[Evaluation]:
    """The evaluations one after another, with network, rule, loss, learning rate and data as they were."""
    rows = {int(row["step"]): row for row in saved.folder.rows() if "step" in row}
    config = saved.folder.config()
    task = config.make_task()
    edited = data.changed(saved.folder.path, config, task)
    require(not edited, f"{edited}: what is measured on them would say nothing about the run. Restore them.")
    splits: TaskSplits | None = None
    for step in saved.steps:
        module = training(config, *_restored(saved.folder, config, task, step))
        splits = splits or TaskSplits(task, module.loss)
        row = rows.get(step, {})
        yield Evaluation(module, splits, row.get("epoch", float("nan")), step, row.get("lr", config.optimizer.lr))


def _restored(folder: RunFolder, config: Config, task: Task, step: int) -> tuple[Network, Rule]:
    """Network and rule with what they had learned by a step."""
    state = load_file(folder.weights()[step], "name another step of the run", "network", "rule")
    network, rule = make_network(config, task), config.rule.make()
    try:
        network.load_state_dict(state["network"])
        rule.bind(network, config.seed).load_state_dict(state["rule"])
    except (RuntimeError, TypeError, AttributeError):
        raise BpgenError(f"{folder.path}/config.yaml does not fit the saved weights: was it edited?") from None
    return network, rule


def _one_file(file: Path, step: str) -> SavedSteps:
    """Of RUN/weights/stepN.pt."""
    named = re.fullmatch(r"step(\d+)\.pt", file.name)
    run = file.parent.parent
    if named is None or file.parent.name != "weights" or not (run / "config.yaml").is_file():
        raise BpgenError(
            f"{file} is not a saved network of a run: name RUN/weights/stepN.pt, or the run's folder and --step N."
        )
    number = int(named[1])
    require(step in ("last", str(number)), f"{file} is one network: leave out --step, or name the run.")
    return SavedSteps(RunFolder.existing(run), [number])
