"""What a user is shown at the end of a run: the result, where everything is, and what to try next."""

from __future__ import annotations

import math
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich.table import Table

from bpgen.analysis.proportions import wilson
from bpgen.cli.output import console
from bpgen.columns import written
from bpgen.run.experiment import Ending
from bpgen.run.outcome import CONFUSION
from bpgen.run.parts import measurements
from bpgen.threads import seconds_so_far


def report(ending: Ending) -> int:
    """Print how a run ended and return its exit code."""
    to = console(soft_wrap=True)
    folder = ending.folder
    if not (folder.path / "summary.json").is_file():  # nothing could be written any more
        print(ending.message, file=sys.stderr)
        return ending.exit_code
    rows, summary = folder.rows(), folder.summary()
    if rows:
        to.print(_table(f"{folder.path.name}: {ending.status}", rows, summary.get("sequences", {})))
    path, config, seconds = folder.path, folder.config(), summary["seconds"]
    confused = confused_most(path / f"{CONFUSION}.csv")
    if confused:
        to.print(confused)
    whole = seconds_so_far()
    loading = f"; {whole:.0f} s with loading and figures" if whole > seconds["total"] + 1 else ""
    to.print(f"{seconds['total']:.0f} s, of which {seconds['training']:.0f} s training{loading}")
    for what, file in (("numbers", folder.metrics_file), ("figures", path / "figures" / "overview.png")):
        if file.is_file():  # a rule may fail before the first evaluation
            to.print(f"{what}   {file}")
    if config.wandb != "off" and (path / "wandb").is_dir():
        place = shlex.quote(str(path / "wandb"))
        unsent = any((path / "wandb").glob("offline-run-*"))
        sends = f"; `wandb sync {place}` uploads it" if unsent else ""
        to.print(f"W&B       `wandb leet {place}` shows it here without an account{sends}")
    if ending.message:
        print(ending.message, file=sys.stderr)
    elif ending.status == "finished":
        other = "bptt" if config.rule.name != "bptt" else "rflo"
        again = shlex.quote(str(path / "config.yaml"))
        to.print(f"next      the same under another rule: bpgen fit --config {again} --rule {other}")
    return ending.exit_code


def report_seeds(endings: Sequence[Ending]) -> int:
    """Print how the runs of several seeds ended: their last evaluations together; returns the worst exit code."""
    to = console(soft_wrap=True)
    rows = [rows[-1] for ending in endings if (rows := ending.folder.rows())]
    table = Table(title=f"{len(rows)} seeds at their last evaluation", title_justify="left")
    table.add_column("")
    for head in ("mean", "sd", "lowest", "highest"):
        table.add_column(head, justify="right")
    for column in (column for cls in measurements().values() for column in cls.columns if column.shown):
        values = [row[column.name] for row in rows if _measured(row, column.name)]
        if values and not any(_measured(row, column.unless) for row in rows):
            sd = statistics.stdev(values) if len(values) > 1 else math.nan
            spread = written(column.shown.replace("+", ""), sd) if len(values) > 1 else ""
            mean, low, high = (written(column.shown, f(values)) for f in (statistics.mean, min, max))
            table.add_row(column.label, mean, spread, low, high)
    if rows:
        to.print(table)
    for ending in endings:
        to.print(f"{ending.status:12}{ending.folder.path}")
        if ending.message:
            print(ending.message, file=sys.stderr)
    return max((ending.exit_code for ending in endings), default=0)


def confused_most(file: Path) -> str:
    """The three commonest mistakes on the test, in a line; empty where no classes were asked, or none confused."""
    if not file.is_file():
        return ""
    table = pd.read_csv(file)
    test = table[table["split"] == "test"]
    asked = test.groupby("target")["n"].sum()
    wrong = test[(test["target"] != test["answer"]) & (test["n"] > 0)]
    worst = wrong.sort_values("n", ascending=False, kind="stable").head(3).itertuples()
    said = ", ".join(f"{row.target} as {row.answer} ({row.n} of {asked[row.target]})" for row in worst)
    return f"confused  test class {said}: {file}" if said else ""


def _table(title: str, rows: Sequence[Mapping[str, float]], sequences: Mapping[str, int]) -> Table:
    """What measurements want to be shown, at the first and the last evaluation, and how sure the last accuracies are.

    Args:
        title: above it.
        rows: of the run.
        sequences: of how many each split's accuracy is a mean.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("")
    ends = {f"step {row['step']:.0f}": row for row in (rows[0], rows[-1])}  # one column where nothing followed
    for step in ends:
        table.add_column(step, justify="right")
    table.add_column(f"95 %, n = {sequences['test']}" if "test" in sequences else "", justify="right")
    for column in (column for cls in measurements().values() for column in cls.columns):
        there = any(_measured(row, column.name) for row in ends.values())
        elsewhere = any(_measured(row, column.unless) for row in rows)
        if column.shown and there and not elsewhere:
            values = [written(column.shown, r[column.name]) if _measured(r, column.name) else "" for r in ends.values()]
            table.add_row(column.label, *values, _interval(column.name, rows[-1], sequences))
    return table


def _interval(name: str, row: Mapping[str, float], sequences: Mapping[str, int]) -> str:
    """The 95 % interval of a test accuracy or its gap, for the number of test sequences."""
    part, _, kind = name.partition("/")
    split = {"gap": "test", "gap_noisy": "test_noisy"}.get(part, part)
    if kind != "accuracy" or not split.startswith("test") or split not in sequences or not _measured(row, name):
        return ""
    ends = wilson(row[f"{split}/accuracy"], sequences[split])
    if part == split:
        return f"{ends[0]:.1%} to {ends[1]:.1%}"
    low, high = sorted(row["train/accuracy"] - float(end) for end in ends)
    return f"{written('{:+.1%}', low)} to {written('{:+.1%}', high)}"


def _measured(row: Mapping[str, float], key: str) -> bool:
    return not math.isnan(row.get(key, math.nan))
