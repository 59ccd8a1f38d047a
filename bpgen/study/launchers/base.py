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
import glob
import os
import shutil
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from bpgen.errors import BpgenError
from bpgen.study.locks import run_lock, shared_lock


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

    @property
    def study(self) -> Path:
        """The study's folder."""
        return Path(self.cwd, self.lock).parent


class JobResult(NamedTuple):
    """How a job ended: finished, diverged, interrupted or failed, with the reason if it did not finish.

    signal: what interrupted it. A job that another process is at work on is "waiting".
    """

    name: str
    status: str
    message: str = ""
    folder: str | None = None
    signal: int = 0


class Launcher(ABC):
    """Runs jobs somewhere.

    Attributes:
        processes: how many it runs at once, from which the time a study takes is estimated.
        remote: whether its processes may be on other machines and go on when this one ends.
    """

    processes: int = 1
    remote: bool = False

    @abstractmethod
    def launch(self, jobs: Sequence[Job]) -> Iterator[JobResult]:
        """Start all jobs, and yield the result of each as it ends, in any order."""

    def status(self, study: Path) -> list[str]:
        """Lines on what is under way for a study; none where that cannot be known from outside."""
        return []


def execute(job: Job) -> JobResult:
    """Do one job in this process, unless another one is at work on it, or has done it meanwhile."""
    _end_with(job.parent)
    with run_lock(job.study, job.name) as mine:
        return _execute(job) if mine else JobResult(job.name, "waiting", "another process is at work on it")


def _execute(job: Job) -> JobResult:
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

    job, ended = _as_it_stands(job)
    if ended is not None:
        return ended
    outcome = resume(job.resume, draw=False) if job.resume else fit(Config.of(job.config), draw=False)
    signum = outcome.exit_code - 128 if outcome.status == "interrupted" else 0
    return JobResult(job.name, outcome.status, outcome.message, str(outcome.folder.path), signum)


def _as_it_stands(job: Job) -> tuple[Job, JobResult | None]:
    """The job as what is on the disk now wants it done, or its result; it may have waited for days."""
    from bpgen.run.config import Config, config_hash
    from bpgen.run.folder import RunFolder

    config = Config.of(job.config)
    for file in sorted(Path(config.out).glob(f"{glob.escape(config.label)}*/config.yaml")):
        folder = RunFolder(file.parent)
        summary = folder.summary()
        if (summary.get("config_hash") or config_hash(folder.plain_config())) != config.hash:
            continue
        if summary.get("status", "interrupted") != "interrupted":
            result = JobResult(job.name, summary["status"], summary.get("message", ""), str(folder.path))
            return job, result
        if folder.checkpoints:
            return replace(job, resume=str(folder.path)), None
        shutil.rmtree(folder.path)  # killed before its first evaluation was complete
    return job, None


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
