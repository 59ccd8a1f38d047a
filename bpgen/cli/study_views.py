"""What the commands with many runs print: what came out, how a study stands, its runs as commands, a sweep file."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from bpgen.cli.output import console
from bpgen.errors import BpgenError


def print_status(study: Any, launcher: Any) -> None:
    """Conditions with the fate of their runs, then every run that did not finish and why; nothing is run."""
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
    console().print(table)
    for line in launcher.status(study.folder):
        print(line)
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


def print_results(results: Any) -> None:
    """What came out of a study, in sentences, and where everything is; the tables are in summary.md."""

    from bpgen.analysis.matching import finished
    from bpgen.study.catalogue import ENDED
    from bpgen.study.conclusions import conclusions, in_words

    say = console(soft_wrap=False, markup=False, emoji=False).print
    count = Counter(run.status for run in results.runs)
    counts = [f"{count[kind]} {kind}" for kind in (*ENDED, "interrupted", "failed") if count[kind]]
    before = sum(run.skipped for run in results.runs)
    said = f"{', '.join(counts) or 'none at an end'}; {before} of them done by an earlier call"
    say(f"\n{results.plan.name}: {len(results.runs)} runs, {said}")
    if results.plan.question:
        say(results.plan.question)
    found = conclusions(results.table) if not finished(results.table).empty else []
    for line in in_words(found):
        say(line)
    if not found:
        say("nothing to compare: it takes two conditions with runs that have finished")
    for run in (*results.tuning, *results.runs):
        if run.status != "finished":
            say(f"  {run.name}: {run.status}: {run.message.removeprefix(f'{run.status}: ')}")
    folder = results.folder
    print(f"\nsummary   {folder / 'summary.md'}\ntable     {folder / 'table.csv'}\nfigures   {folder / 'figures'}")
    print(f"next      one page to read and send: bpgen report {shlex.quote(str(folder))}")
