"""From a plan to a folder of results: tune, run, collect. The same call continues where an earlier one was stopped.

STUDY/plan.yaml     the plan as it was run        STUDY/table.csv    a row per run and evaluation; table.csv.gz to share
STUDY/runs/         a folder per run              STUDY/runs.csv     a row per run: status, reason, seconds
STUDY/tuning.csv    what was tried on validation  STUDY/logs/        what runs printed
STUDY/plans.yaml    all plans that ran here, the first one first
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bpgen.errors import BpgenError, require
from bpgen.run.config import Config
from bpgen.run.folder import RunFolder
from bpgen.study import collect
from bpgen.study.launchers import Launcher
from bpgen.study.locks import study_lock
from bpgen.study.plan import Condition, Plan, Resolver
from bpgen.study.progress import Progress
from bpgen.study.registered import keep
from bpgen.study.runs import ENDED, Run, forget_failed, slug, update_status
from bpgen.study.together import jobs_of
from bpgen.study.tuning import choose


@dataclass
class StudyResults:
    """What a study has after its runs: all runs with their fate, and the tidy table."""

    plan: Plan
    folder: Path
    runs: list[Run]
    tuning: list[Run]
    table: pd.DataFrame


@dataclass
class Study:
    """A plan in its folder.

    Args:
        plan: what to run.
        folder: where; made if it is not there.
        resolve: from the arguments of `bpgen fit` to its config.
        seeds_of: how many of the plan's seeds a condition runs; all, where it is not named.
    """

    plan: Plan
    folder: Path
    resolve: Resolver
    seeds_of: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.conditions = self.plan.conditions(self.resolve)
        same: dict[str, str] = {}
        for condition in self.conditions:
            label = same.setdefault(condition.config.hash, condition.label)
            require(
                label == condition.label,
                f"conditions {label!r} and {condition.label!r} are the same run: drop one, or make them differ.",
            )

    def run(self, launcher: Launcher, progress: Progress, retry: bool = False) -> StudyResults:
        """Do everything that has not been done, and write the tables.

        Args:
            launcher: where the runs are done.
            progress: shows how it goes.
            retry: do the runs again that failed before.

        Raises:
            BpgenError: another study is at work in the folder.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BpgenError(
                f"cannot write the study to {self.folder}: {error.strerror}. Choose another --out."
            ) from None
        with study_lock(self.folder):
            self._load_data()
            keep(self.folder, self.plan.content())
            tuning = self.tuning_runs()
            forget_failed(tuning if retry else (), self.folder)
            self._launch("tuning", [run for run in tuning if run.status != "failed"], launcher, progress)
            runs = self.main_runs(tuning)
            forget_failed(runs if retry else (), self.folder)
            collect.run_table(runs, self.folder).to_csv(self.folder / "runs.csv", index=False)  # what is planned
            self._launch("runs", [run for run in runs if run.status != "failed"], launcher, progress)
            table = collect.evaluation_table(runs, self.folder, self.plan.looks)
            collect.write_tables(table, self.folder)
            collect.run_table(runs, self.folder).to_csv(self.folder / "runs.csv", index=False)
            return StudyResults(self.plan, self.folder, runs, tuning, table)

    def _load_data(self) -> None:
        """Load the data of every task once: what is missing is said before any run, and fetched only once."""
        tasks = {repr(condition.config.task): condition.config for condition in self.conditions}
        for config in tasks.values():
            config.make_task().split("train")

    def tuning_runs(self) -> list[Run]:
        """All runs of the tuning stage: conditions x candidates x tuning seeds."""
        tune = self.plan.tune
        if tune is None:
            return []
        runs: list[Run] = []
        for condition, values in itertools.product(self.conditions, _combinations(tune.axes)):
            own = {key: value for key, value in values.items() if _has_option(condition, key)}
            if own != values and any(r.condition is condition and r.tuned == own for r in runs):
                continue  # a rule without this option is tried once for all its values
            overrides = {**condition.overrides, **tune.overrides, **own}
            config = self.plan.resolved(self.resolve, overrides)
            runs += [self._run(condition, seed, config, own, "tuning") for seed in tune.seeds]
        update_status(runs, self.folder)
        return runs

    def main_runs(self, tuning: Sequence[Run]) -> list[Run]:
        """All runs of the study proper, each with what was chosen for its condition."""
        tune, chosen = self.plan.tune, dict[str, dict[str, Any]]()
        if tune is not None:
            chosen, table = choose(self.conditions, tune, tuning)
            if self.folder.is_dir() and all(run.status in (*ENDED, "failed") for run in tuning):
                table.to_csv(self.folder / "tuning.csv", index=False)
        runs = []
        for condition in self.conditions:
            values = chosen.get(condition.label)
            overrides = {**condition.overrides, **(values or {})}
            config = self.plan.resolved(self.resolve, overrides) if values else condition.config
            seeds = self.plan.seeds[: self.seeds_of.get(condition.label)]
            runs += [self._run(condition, seed, config, values or {}, "") for seed in seeds]
        update_status(runs, self.folder)
        for run in runs:
            if tune is not None and run.condition.label not in chosen:
                run.status, run.message = "failed", "no candidate of the tuning stage finished (see tuning.csv)"
        return runs

    def _run(self, condition: Condition, seed: int, config: Config, tuned: dict[str, Any], stage: str) -> Run:
        parent = self.folder / "runs" / stage / slug(condition.label)
        if stage:
            parent = parent / (slug("-".join(f"{k.split('.')[-1]}={v}" for k, v in tuned.items())) or "as_is")
        group = config.tracking.group or self.plan.name
        job = config.tracking.job_type or stage or "train"
        tracking = replace(config.tracking, group=group, job_type=job, study=self.plan.name, condition=condition.label)
        whole = replace(config, seed=seed, out=str(parent), tracking=tracking)
        return Run(condition, seed, whole.completed(whole.make_task()), tuned, stage)

    def _launch(self, stage: str, runs: Sequence[Run], launcher: Launcher, progress: Progress) -> None:
        if not runs:
            return
        by_seed = sorted(runs, key=lambda run: run.seed)  # so that a study stopped early has complete pairs
        by_hash = {run.hash: run for run in by_seed if run.status not in ENDED}
        progress.stage(stage, runs, launcher.processes)
        try:
            for several in launcher.launch(jobs_of(by_hash.values(), self.folder, launcher)):
                for result in several.each():
                    run = by_hash[result.name]
                    run.status, run.message = result.status, result.message
                    run.folder = run.folder if result.folder is None else RunFolder(result.folder)
                    progress.ended(run)
                if any(result.status == "interrupted" for result in several.each()):
                    raise KeyboardInterrupt
        finally:
            progress.close()


def _combinations(axes: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _has_option(condition: Condition, option: str) -> bool:
    """Whether the condition's rule has a tuned option; other options exist for all."""
    group, _, name = option.partition(".")
    return group != "rule" or name in condition.config.rule.options
