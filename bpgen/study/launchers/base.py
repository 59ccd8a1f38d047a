"""The contract of a launcher: it takes jobs and yields their results as they end.

`execute` is all a launcher has to call, in whatever process or machine it likes: it runs one job in the process that
calls it and never raises for what the job did wrong. One that runs everything here, one job after the other:

    class Serial(Launcher):
        def launch(self, jobs):
            for job in jobs:
                yield execute(job)
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bpgen.errors import BpgenError
from bpgen.study.locks import shared_lock


@dataclass(frozen=True)
class Job:
    """One run to do.

    Attributes:
        name: unique in the study.
        config: the resolved config; its `out` is where the run's folder is made.
        resume: the run's folder if it was begun before, else none.
        log: file for what the run prints.
        lock: file on which the working process holds a lock.
        parent: the process after which a child that does this job ends itself.
        cwd: the working directory to which all these paths are relative.
    """

    name: str
    config: dict[str, Any]
    resume: str | None
    log: str
    lock: str
    parent: int
    cwd: str = field(default_factory=os.getcwd)


@dataclass(frozen=True)
class JobResult:
    """How a job ended: finished, diverged, interrupted or failed, with the reason if it did not finish."""

    name: str
    status: str
    message: str = ""
    folder: str | None = None


class Launcher(ABC):
    """Runs jobs somewhere.

    Attributes:
        processes: how many it runs at once, from which the time a study takes is estimated.
    """

    processes: int = 1

    @abstractmethod
    def launch(self, jobs: Sequence[Job]) -> Iterator[JobResult]:
        """Start all jobs, and yield the result of each as it ends, in any order."""


def execute(job: Job) -> JobResult:
    """Do one job in this process."""
    _end_with(job.parent)
    os.chdir(job.cwd)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(Path(job.log).open("w", encoding="utf-8"))
        stack.enter_context(shared_lock(job.lock))
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        try:
            return _fit(job)
        except BpgenError as error:
            return JobResult(job.name, "failed", str(error))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a stranger's rule raises is the result of this run, not of the study
            traceback.print_exc()
            return JobResult(job.name, "failed", f"{type(error).__name__}: {error} (traceback in {job.log})")


def _fit(job: Job) -> JobResult:
    from bpgen.run.config import Config
    from bpgen.run.fit import fit  # torch and Lightning: in the working process only
    from bpgen.run.resume import resume

    outcome = resume(job.resume, draw=False) if job.resume else fit(Config.of(job.config), draw=False)
    return JobResult(job.name, outcome.status, outcome.message, str(outcome.folder.path))


_watched = False


def _end_with(parent: int, every: float = 0.2) -> None:
    """End this process, if it is a child of `parent`, when that is gone; its run can be continued.

    A killed study must leave nobody behind who still writes into its folder.
    """
    global _watched
    if _watched or os.getppid() != parent:
        return
    _watched = True

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
