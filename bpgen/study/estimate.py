"""What a study would do and how long it would take, without doing it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean

from bpgen.errors import BpgenError
from bpgen.run.folder import RunFolder
from bpgen.study.launchers import Job, Launcher
from bpgen.study.runs import ENDED, Run

_SHORT, _LONG = 10, 60  # steps of the two timings of a condition: what both need, such as the start, cancels


@dataclass(frozen=True)
class Estimate:
    """Seconds one run of a condition takes, and where the number comes from."""

    seconds: float
    source: str


def estimates(runs: Sequence[Run], launcher: Launcher) -> dict[str, Estimate]:
    """For every condition with runs to do: from its runs that have ended, else from two runs of a few steps.

    They give the seconds of a start, of a step and of an evaluation, which are multiplied out. It is an estimate: an
    evaluation costs more where the curvature is hard to find, and everything does on a busy machine.
    """
    todo: dict[str, Run] = {}
    for run in runs:
        if run.status not in ENDED:
            todo.setdefault(run.kind, run)
    known: dict[str, Estimate] = {}
    for label in list(todo):
        took = [r.seconds for r in runs if r.kind == label and r.seconds is not None]
        if took:
            known[label] = Estimate(mean(took), f"mean of {len(took)} ended runs")
            del todo[label]
    with tempfile.TemporaryDirectory() as scratch:
        jobs = []
        for label, run in todo.items():
            for steps in (_SHORT, _LONG):
                trainer = replace(run.config.trainer, max_steps=steps)
                config = replace(run.config, trainer=trainer, evaluation={"every": steps}, out=scratch)
                name = f"{steps} {label}"
                jobs.append(Job(name, config.plain(), None, f"{scratch}/{steps}-{run.hash}.log", f"{scratch}/lock", 0))
        timed: dict[str, dict[str, float]] = {}
        for result in launcher.launch(jobs):
            if result.folder is None:
                raise BpgenError(f"{result.name.split(' ', 1)[1]} cannot run: {result.message}")
            seconds = RunFolder(result.folder).summary()["seconds"]
            measuring = sum(seconds["measuring"].values())
            timed[result.name] = {"training": seconds["training"], "measuring": measuring / 2}  # at start and end
        for label, run in todo.items():
            known[label] = _from_short(run, timed[f"{_SHORT} {label}"], timed[f"{_LONG} {label}"])
    return known


def _from_short(run: Run, short: dict[str, float], long: dict[str, float]) -> Estimate:
    per_step = max(0.0, long["training"] - short["training"]) / (_LONG - _SHORT)
    start = max(0.0, short["training"] - _SHORT * per_step)
    per_evaluation = (short["measuring"] + long["measuring"]) / 2
    steps = n_steps(run)
    total = start + steps * per_step + n_evaluations(run, steps) * per_evaluation
    return Estimate(total, f"{_SHORT} and {_LONG} steps, timed")


def n_steps(run: Run) -> int:
    """Weight updates of a run."""
    trainer = run.config.trainer
    return (
        trainer.max_steps if trainer.max_steps is not None else trainer.max_epochs * _batches(run) // trainer.accumulate
    )


def n_evaluations(run: Run, steps: int) -> int:
    """Evaluations of a run, the first one included."""
    every = run.config.evaluation["every"]
    if every == "log":
        return int(run.config.evaluation["points"]) + 1
    return 1 + steps // (_batches(run) if every == "epoch" else int(every))


def _batches(run: Run) -> int:
    return -(-run.config.make_task().split("train").size // run.config.trainer.batch_size)
