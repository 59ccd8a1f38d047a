"""What one task of a SLURM array does: some runs, one after the other, in a process that can be warned and requeued.

A run in training answers a signal with a checkpoint (`bpgen.run.record`); one that is still being built is stopped
where it is. After SIGUSR1 or SIGUSR2, by which SLURM warns of the time limit, the task asks SLURM to requeue it (done
by submitit); after SIGTERM it is SLURM's turn to end it, and to requeue it if it was preempted.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

from bpgen.study import fates
from bpgen.study.launchers.base import Job, JobResult, execute

PATIENCE = 60  # seconds that SLURM has to end a process after SIGTERM; without an end, the run goes on
_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
_SIGNALS = (signal.SIGTERM, *_WARNINGS)


class _Stop(KeyboardInterrupt):
    """Ends the building of a run; nothing catches it but the task."""


class Pack:
    """Does the runs of one task; submitit calls it, and `checkpoint` when the task is to be requeued."""

    def __call__(self, jobs: Sequence[Job]) -> None:
        """Do every run that has not ended, and write down what became of it."""
        for job in jobs:
            while (result := self._execute(job)).status == "interrupted":
                if result.signal in _WARNINGS:
                    os.kill(os.getpid(), signal.SIGUSR2)  # submitit's handler: saves the task, requeues it, exits
                time.sleep(PATIENCE)
            if result.status != "waiting":
                fates.note(job.study, result)

    def checkpoint(self, jobs: Sequence[Job]) -> Any:
        """The same again: every run knows by its folder where it stands."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, jobs)

    def _execute(self, job: Job) -> JobResult:
        received: list[int] = []

        def stop(signum: int, frame: FrameType | None) -> None:
            received.append(signum)
            raise _Stop

        before = {signum: signal.signal(signum, stop) for signum in _SIGNALS}
        own = replace(job, lock=str(job.study / ".slurm.lock"))  # may outlive the call of the study that wants it
        try:
            result = execute(own)
        except _Stop:
            result = JobResult(job.name, "interrupted")
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
        done = result.status in ("finished", "diverged")
        return result if done or not received else result._replace(status="interrupted", signal=received[0])
