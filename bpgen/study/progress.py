"""What a user sees while a study runs: a live table on a terminal, one line per run in a log file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bpgen.run.durations import duration
from bpgen.run.screen import at_a_terminal
from bpgen.study.remaining import RemainingTime
from bpgen.study.runs import ENDED, Run


class Progress(Protocol):
    """Shows how a stage of a study goes."""

    def stage(self, title: str, runs: Sequence[Run], processes: int) -> None:
        """A stage begins."""

    def ended(self, run: Run) -> None:
        """A run has ended."""

    def close(self) -> None:
        """The stage is over."""


class PrintedProgress:
    """For output that is not a terminal."""

    def stage(self, title: str, runs: Sequence[Run], processes: int) -> None:
        """Say what there is to do."""
        self._remaining, self._runs = RemainingTime(runs, processes), runs
        done = sum(run.skipped for run in runs)
        print(f"{title}: {len(runs)} runs, {done} done before, {processes} at once", flush=True)

    def ended(self, run: Run) -> None:
        """A line per run."""
        count = sum(r.status in (*ENDED, "failed") for r in self._runs)
        left = self._remaining.seconds_left()
        reason = f" ({run.message.splitlines()[0]})" if run.message else ""
        took = f" in {run.seconds:.0f} s" if run.seconds is not None else ""
        rest = f"; {duration(left)} left" if left else ""
        print(f"[{count}/{len(self._runs)}] {run.name}: {run.status}{took}{reason}{rest}", flush=True)

    def close(self) -> None:
        """Nothing to take away."""


class LiveProgress:
    """For a terminal: conditions with their runs, and the time left; gone when the stage is over."""

    def __init__(self) -> None:
        self._live: Live | None = None

    def stage(self, title: str, runs: Sequence[Run], processes: int) -> None:
        """Show the table."""
        self._remaining, self._runs, self._title, self._last = RemainingTime(runs, processes), runs, title, ""
        self._live = Live(get_renderable=self._draw, console=Console(stderr=True), refresh_per_second=2, transient=True)
        self._live.start()

    def ended(self, run: Run) -> None:
        """Remember the last run, and let those that failed stand."""
        self._last = f"{run.name}: {run.status}"
        if run.status != "finished" and self._live is not None:
            self._live.console.print(f"{run.name}: {run.status}. {run.message}", highlight=False)

    def close(self) -> None:
        """Take the table away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self) -> Group:
        table = Table(title=self._title, title_justify="left")
        for column in ("condition", "finished", "diverged", "failed", "to do"):
            table.add_column(column, justify="left" if column == "condition" else "right")
        for label in dict.fromkeys(run.condition.label for run in self._runs):
            count = Counter(run.status for run in self._runs if run.condition.label == label)
            rest = count.total() - count["finished"] - count["diverged"] - count["failed"]
            table.add_row(label, *(str(n) if n else "" for n in (*(count[s] for s in (*ENDED, "failed")), rest)))
        left = self._remaining.seconds_left()
        spent = duration(time.time() - self._remaining.started)
        known = "no run has measured yet" if left is None else f"{duration(left)} left"
        return Group(table, Text(f"{spent} gone, {known}   {self._last}"))


def progress_display() -> Progress:
    """The one that fits where the user is."""
    return LiveProgress() if at_a_terminal() else PrintedProgress()
