"""What became of runs that were done out of sight: STUDY/fates/HASH.json, written by whoever saw a run end.

A study on a cluster goes on when nobody watches. What has finished says so in its own folder; that a run failed before
it had one, was cancelled, or died with its machine, is said here, for every later call of the study.
"""

from __future__ import annotations

import json
from pathlib import Path

from bpgen import durable
from bpgen.study.launchers.base import JobResult

FOLDER = "fates"


def note(study: Path, result: JobResult) -> None:
    """Write down how a run ended; those that were done beside it have notes of their own."""
    durable.make_folder(study / FOLDER)
    kept = {name: value for name, value in result._asdict().items() if name != "beside"}
    durable.write(_file(study, result.name), json.dumps(kept))


def noted(study: Path) -> dict[str, JobResult]:
    """All that was written down, by the names of the jobs."""
    found = {}
    for file in sorted((study / FOLDER).glob("*.json")):
        try:
            found[file.stem] = JobResult(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue  # gone since, or damaged: then the run's own folder decides
    return found


def forget(study: Path, name: str) -> bool:
    """Let a run be done anew; whether anything was written down."""
    there = _file(study, name).exists()
    _file(study, name).unlink(missing_ok=True)
    return there


def _file(study: Path, name: str) -> Path:
    return study / FOLDER / f"{name}.json"
