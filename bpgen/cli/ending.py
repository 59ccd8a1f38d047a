"""What a user is shown at the end of a run: the result, where everything is, and what to try next."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from bpgen.run.experiment import Ending
from bpgen.run.parts import measurements


def report(ending: Ending) -> int:
    """Print how a run ended and return its exit code."""
    console = Console(highlight=False, soft_wrap=True)
    folder = ending.folder
    if not (folder.path / "summary.json").is_file():  # nothing could be written any more
        print(ending.message, file=sys.stderr)
        return ending.exit_code
    rows = folder.rows()
    if rows:
        console.print(_table(f"{folder.path.name}: {ending.status}", rows))
    path, config = folder.path, folder.config()
    seconds = folder.summary()["seconds"]
    console.print(f"{seconds['total']:.0f} s, of which {seconds['training']:.0f} s training")
    for what, file in (("numbers", folder.metrics_file), ("figures", path / "figures" / "overview.png")):
        if file.is_file():  # a rule may fail before the first evaluation
            console.print(f"{what}   {file}")
    if config.wandb != "off" and (path / "wandb").is_dir():
        place = shlex.quote(str(path / "wandb"))
        unsent = any((path / "wandb").glob("offline-run-*"))
        sends = f"; `wandb sync {place}` uploads it" if unsent else ""
        console.print(f"W&B       `wandb leet {place}` shows it here without an account{sends}")
    if ending.message:
        print(ending.message, file=sys.stderr)
    elif ending.status == "finished":
        other = "bptt" if config.rule.name != "bptt" else "rflo"
        again = shlex.quote(str(path / "config.yaml"))
        console.print(f"next      the same under another rule: bpgen fit --config {again} --rule {other}")
    return ending.exit_code


def _table(title: str, rows: Sequence[Mapping[str, float]]) -> Table:
    """What measurements want to be shown, at the first and the last evaluation."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    ends = {f"step {row['step']:.0f}": row for row in (rows[0], rows[-1])}  # one column where nothing followed
    for step in ends:
        table.add_column(step, justify="right")
    for column in (column for cls in measurements().values() for column in cls.columns):
        there = any(_measured(row, column.name) for row in ends.values())
        elsewhere = any(_measured(row, column.unless) for row in rows)
        if column.shown and there and not elsewhere:
            values = [column.shown.format(r[column.name]) if _measured(r, column.name) else "" for r in ends.values()]
            table.add_row(column.label, *values)
    return table


def _measured(row: Mapping[str, float], key: str) -> bool:
    return not math.isnan(row.get(key, math.nan))
