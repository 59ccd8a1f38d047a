"""How long a stage of a study still takes."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

from bpgen.study.catalogue import RunEntry
from bpgen.study.runs import ENDED, Run

_EVERY = 2.0  # seconds between two looks at the folders


class RemainingTime:
    """How long a stage still takes: from the runs that have ended, and from how far those at work have come.

    Args:
        runs: of the stage.
        processes: runs at once.
        now: the time in seconds, as files have it.
    """

    def __init__(self, runs: Sequence[Run], processes: int, now: Callable[[], float] = time.time) -> None:
        self.runs, self.processes, self.now = runs, max(1, processes), now
        self.started = now()
        self._looked, self._left = -_EVERY, float("nan")

    def seconds_left(self) -> float | None:
        """None before any run has ended or come anywhere; goes down between two looks at the folders."""
        now = self.now()
        if now - self._looked >= _EVERY:
            self._looked, self._left = now, self._look(now)
        left = self._left - (now - self._looked)
        return None if left != left else max(left, 0.0)

    def _look(self, now: float) -> float:
        took: dict[str, list[float]] = {}
        for run in self.runs:
            seconds = run.seconds
            if seconds is not None:
                took.setdefault(run.kind, []).append(seconds)
        left = [run for run in self.runs if run.status not in (*ENDED, "failed")]
        if not left:
            return 0.0
        at_work = {id(run): found for run in left if (found := self._at_work(run)) is not None}
        whole: dict[str, list[float]] = {}
        for run in left:
            if id(run) in at_work and run.kind not in took:  # nothing of its kind has ended
                began, seconds, share = at_work[id(run)]
                whole.setdefault(run.kind, []).extend([(seconds - began) / share] if share > 0 else [])
        took |= {kind: seconds for kind, seconds in whole.items() if seconds}
        if not took:
            return float("nan")
        everywhere = mean(second for seconds in took.values() for second in seconds)
        work = [mean(took.get(run.kind, [everywhere])) for run in left]
        spent = [now - at_work[id(run)][0] if id(run) in at_work else 0.0 for run in left]
        rest = [max(seconds - gone, 0.0) for seconds, gone in zip(work, spent, strict=True)]
        return max(sum(rest) / self.processes, max(rest))

    def _at_work(self, run: Run) -> tuple[float, float, float] | None:
        """When a run began in this stage, when it last measured, and which share of it was done then."""
        label = glob.escape(run.config.label)
        folders = [f for name in (label, f"{label}-[0-9]*") for f in Path(run.config.out).glob(name)]
        begun = [(f.stat().st_mtime, f.parent) for f in (folder / "config.yaml" for folder in folders) if f.is_file()]
        begun = [(when, folder) for when, folder in begun if when >= self.started]
        if not begun:
            return None
        began, folder = max(begun)
        entry, trainer = RunEntry(folder, None, {}, {}), run.config.trainer
        row = entry.last()
        share = row.get("epoch", 0.0) / trainer.max_epochs
        if trainer.max_steps is not None:
            share = row.get("step", 0.0) / trainer.max_steps
        return began, entry.written, min(share, 1.0)
