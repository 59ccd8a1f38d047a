"""The runs of a study as ordinary commands, for any engine: a shell loop, GNU parallel, a batch system, a W&B agent.

Each run has its whole config in STUDY/configs/; what a command makes lies where the study looks for it, so that
`bpgen study` afterwards finds all of it done and only collects.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bpgen.study.catalogue import ENDED, StudyEntry, slug
from bpgen.study.runs import Run
from bpgen.study.study import Study


def to_do(study: Study) -> list[Run]:
    """The runs that have not ended: those of the tuning stage as long as there are any, since the others need them."""
    tuning = study.tuning_runs()
    left = _left(tuning)
    return left or _left(study.main_runs(tuning))


def _left(runs: Sequence[Run]) -> list[Run]:
    by_hash = {run.hash: run for run in runs if run.status not in (*ENDED, "failed")}
    return sorted(by_hash.values(), key=lambda run: run.seed)  # so that a study stopped early has complete pairs


def commands(study: Study) -> list[str]:
    """A command for every run that has not ended; one that was begun is continued.

    Their paths are absolute: they may be typed anywhere on a machine that sees the folder.
    """
    return [_command(study, run) for run in to_do(study)]


def sweep(study: Study) -> dict[str, Any]:
    """The content of a W&B sweep file whose agents do the runs that have not begun, each once.

    An agent's grid is over the configs of the runs, so that conditions stay what the plan says they are, also where
    they differ in more than one option.
    """
    files = [str(_config_file(study, run)) for run in to_do(study) if not _begun(run)]
    return {
        "name": study.plan.name,
        "description": study.plan.question,
        "program": "bpgen",
        "method": "grid",
        "parameters": {"config": {"values": files}},
        "command": ["${env}", "bpgen", "fit", "--wandb=auto", "${args}"],
    }


def reason(run: Run, entry: StudyEntry) -> str:
    """Why a run has not finished; of one that left no folder, what the study wrote down when it last ran."""
    return run.message or (entry.by_hash.get(run.hash, {}).get("reason", "") if run.status == "waiting" else "")


def _begun(run: Run) -> bool:
    return run.folder is not None and run.folder.checkpoint.is_file()


def _command(study: Study, run: Run) -> str:
    if run.folder is not None and _begun(run):
        return f"bpgen fit --resume {shlex.quote(str(run.folder.path.resolve()))}"
    return f"bpgen fit --config {shlex.quote(str(_config_file(study, run)))}"


def _config_file(study: Study, run: Run) -> Path:
    """The run's config, written where its command finds it."""
    file = study.folder.resolve() / "configs" / f"{slug(run.name)}-{run.hash}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = replace(run.config, out=str(Path(run.config.out).resolve()))
    file.write_text(whole.yaml(), encoding="utf-8")
    return file
