"""What a study would do and how long it would take, without doing it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from bpgen.errors import BpgenError
from bpgen.study.launch import Job, Launcher
from bpgen.study.runs import ENDED, Run
from bpgen.training.build import make_task
from bpgen.training.run_folder import RunFolder

_STEPS = 20  # of the short timing; it evaluates at its start, in the middle and at its end


@dataclass(frozen=True)
class Estimate:
    """Seconds one run of a condition takes, and where the number comes from."""

    seconds: float
    source: str


def estimates(runs: Sequence[Run], launcher: Launcher) -> dict[str, Estimate]:
    """For every condition with runs to do: from its runs that have ended, else from a run of a few steps.

    The short run gives seconds per step and per evaluation; both are multiplied out. It is an estimate: the cost of
    an evaluation depends on the curvature it meets.
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
            trainer = {**run.config["trainer"], "max_steps": _STEPS}
            config = {**run.config, "trainer": trainer, "evaluation": {"every": _STEPS // 2}, "out": scratch}
            jobs.append(Job(label, config, None, f"{scratch}/{run.hash}.log", f"{scratch}/lock", 0))
        for result in launcher.launch(jobs):
            run = todo[result.name]
            if result.folder is None:
                raise BpgenError(f"condition {result.name} cannot run: {result.message}")
            known[result.name] = _from_short(run, result.folder)
    return known


def _from_short(run: Run, folder: str) -> Estimate:
    short = RunFolder(folder)
    seconds, taken = short.summary()["seconds"], max(short.rows()[-1]["step"], 1)
    per_step = seconds["training"] / taken
    per_evaluation = sum(seconds["measuring"].values()) / len(short.rows())
    steps = n_steps(run)
    total = steps * per_step + n_evaluations(run, steps) * per_evaluation
    return Estimate(total, f"{taken:.0f} steps and {len(short.rows())} evaluations, timed and multiplied out")


def n_steps(run: Run) -> int:
    """Weight updates of a run."""
    trainer = run.config["trainer"]
    if trainer["max_steps"] is not None:
        return int(trainer["max_steps"])
    return int(trainer["max_epochs"] * _batches(run) // trainer["accumulate"])


def n_evaluations(run: Run, steps: int) -> int:
    """Evaluations of a run, the first one included."""
    every = run.config["evaluation"]["every"]
    if every == "log":
        return int(run.config["evaluation"]["points"]) + 1
    return 1 + steps // (_batches(run) if every == "epoch" else int(every))


def _batches(run: Run) -> int:
    return -(-make_task(run.config).split("train").size // int(run.config["trainer"]["batch_size"]))
