"""A study that adds seeds until its checks are decided: look after look, for the conditions that still need them.

At which numbers of seeds it looks is part of the plan (`looks`), and what it decides at each follows from the table
alone (`bpgen.analysis.sequential`): so the same call continues a stopped study, and never decides otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from bpgen.study import collect
from bpgen.study.launchers import Launcher
from bpgen.study.progress import Progress
from bpgen.study.runs import ENDED, Run
from bpgen.study.study import Study, StudyResults

Undecided = Callable[[pd.DataFrame], set[str]]  # from a study's table to the conditions that need more seeds


def run_until_decided(
    study: Study, undecided: Undecided, launcher: Launcher, progress: Progress, retry: bool = False
) -> StudyResults:
    """Run a study's looks until no condition needs more seeds; see `Study.run`.

    Args:
        study: its plan has looks.
        undecided: what still needs seeds after a look.
        launcher, progress, retry: of every look.
    """
    wanted = {condition.label for condition in study.conditions}
    looks, results = study.plan.looks, None
    for number, seeds in enumerate(looks, 1):
        study.seeds_of.update(dict.fromkeys(wanted, seeds))
        print(f"look {number} of {len(looks)}: {seeds} seeds of {', '.join(sorted(wanted))}", flush=True)
        results = study.run(launcher, progress, retry)
        wanted &= undecided(results.table)
        if not wanted:
            break
    assert results is not None  # a plan with looks has one at least
    return replace(results, plan=replace(study.plan, seeds=study.plan.seeds[: max(study.seeds_of.values())]))


def go_to_last_look(study: Study, undecided: Undecided) -> None:
    """Give every condition the seeds of the look that the runs on the disk have got to; nothing is run."""
    wanted = {condition.label for condition in study.conditions}
    for seeds in study.plan.looks:
        study.seeds_of.update(dict.fromkeys(wanted, seeds))
        runs = study.main_runs(study.tuning_runs())
        if not all(_settled(run) for run in runs):
            return
        wanted &= undecided(collect.evaluation_table(runs, study.folder, study.plan.looks))
        if not wanted:
            return


def _settled(run: Run) -> bool:
    return run.status in (*ENDED, "failed")
