"""What `bpgen study` prints instead of running: how a study stands, its runs as commands, a W&B sweep file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from bpgen.errors import BpgenError


def print_status(study: Any) -> None:
    """Conditions with the fate of their runs, then every run that did not finish and why; nothing is run."""
    from rich.console import Console
    from rich.table import Table

    from bpgen.study.catalogue import ENDED, StudyEntry
    from bpgen.study.runlist import reason

    tuning, entry = study.tuning_runs(), StudyEntry(study.folder)
    runs = study.main_runs(tuning)
    for run in runs:
        if run.status == "failed" and run.folder is None:  # what is not tuned yet
            run.status = "waiting"
    table = Table(title=f"{study.plan.name}: {study.folder}", title_justify="left")
    heads = ("finished", "diverged", "failed", "stopped or at work", "waiting")
    for column in ("condition", "stage", *heads):
        table.add_column(column, justify="left" if column in ("condition", "stage") else "right")
    kinds = (*ENDED, "failed", "interrupted", "waiting")
    for stage, group in (("tuning", tuning), ("study", runs)):
        for label in dict.fromkeys(run.condition.label for run in group):
            count = Counter(run.status for run in group if run.condition.label == label)
            table.add_row(label, stage, *(str(count[kind] or "") for kind in kinds))
    Console(highlight=False).print(table)
    for run in (*tuning, *runs):
        why = reason(run, entry)
        if run.status == "diverged" or (why and run.status != "finished"):
            text = why.removeprefix(f"{run.status}: ") or "no reason was written down"
            print(f"{run.name}: {'failed' if run.status == 'waiting' else run.status}: {text}")
    if any(run.status == "failed" for run in (*tuning, *runs)):
        print("failed runs stand as they are; --retry does them again")


def print_commands(study: Any) -> None:
    """A command a line for every run that has not ended."""
    import sys

    from bpgen.study.runlist import commands

    lines = commands(study)
    print("\n".join(lines), end="\n" if lines else "")
    if study.plan.tune is not None and lines:
        print("a tuned study: when these have ended, --commands has what is left", file=sys.stderr)
    if not lines:
        print("nothing left to run; `bpgen study` collects and reports", file=sys.stderr)


def write_sweep(study: Any, file: str) -> None:
    """A W&B sweep file.

    Raises:
        BpgenError: nothing is left to run, or the file cannot be written.
    """
    import yaml

    from bpgen.study.runlist import sweep

    content = sweep(study)
    count = len(content["parameters"]["config"]["values"])
    if not count:
        raise BpgenError("no run of this study is left to begin: there is nothing for a sweep to do.")
    try:
        Path(file).expanduser().write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise BpgenError(f"cannot write {file}: {error.strerror}.") from None
    print(
        f"{file}: {count} runs; next: wandb sweep {file}, then wandb agent with the name it gives, as often as you like"
    )
