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
        beside: jobs of the same config with other seeds, to be done at once with this one (`bpgen.run.together`).
    """

    name: str
    config: dict[str, Any]
    resume: str | None
    log: str
    lock: str
    parent: int
    cwd: str = field(default_factory=os.getcwd)
    beside: tuple[Job, ...] = ()

    @property
    def study(self) -> Path:
        """The study's folder."""
        return Path(self.cwd, self.lock).parent


class JobResult(NamedTuple):
    """How a job ended: finished, diverged, interrupted or failed, with the reason if it did not finish.

    signal: what interrupted it. A job that another process is at work on is "waiting".
    beside: how the jobs ended that were done at once with it.
    """

    name: str
    status: str
    message: str = ""
    folder: str | None = None
    signal: int = 0
    beside: tuple[JobResult, ...] = ()

    def each(self) -> list[JobResult]:
        """It and those beside it."""
        return [self._replace(beside=()), *self.beside]


class Launcher(ABC):
    """Runs jobs somewhere.

    Attributes:
        processes: how many it runs at once, from which the time a study takes is estimated.
        remote: whether its processes may be on other machines and go on when this one ends.
        seeds_at_once: whether it may be given jobs that stand for several seeds (`Job.beside`).
    """

    processes: int = 1
    remote: bool = False
    seeds_at_once: bool = False

    @abstractmethod
    def launch(self, jobs: Sequence[Job]) -> Iterator[JobResult]:
        """Start all jobs, and yield the result of each as it ends, in any order."""

    def status(self, study: Path) -> list[str]:
        """Lines on what is under way for a study; none where that cannot be known from outside."""
        return []


def execute(job: Job) -> JobResult:
    """Do one job, and those beside it, in this process, unless another one is at work on it, or has done it meanwhile.

    What fails in one job is the result of each that is done at once with it.
    """
    _end_with(job.parent)
    jobs = [replace(job, beside=()), *job.beside]
    with contextlib.ExitStack() as locks:
        mine = [each for each in jobs if locks.enter_context(run_lock(each.study, each.name))]
        found = {each.name: JobResult(each.name, "waiting", "another process is at work on it") for each in jobs}
        found |= {each.name: JobResult(each.name, "waiting") for each in mine}  # not begun, after an interruption
        found |= {result.name: result for result in (_execute(mine) if mine else ())}
    return found.pop(job.name)._replace(beside=tuple(found.values()))


def _execute(jobs: Sequence[Job]) -> list[JobResult]:
    job = jobs[0]
    os.chdir(job.cwd)
    for other in jobs[1:]:
        Path(other.log).write_text(f"done at once with other seeds: see {job.log}\n", encoding="utf-8")
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(Path(job.log).open("w", encoding="utf-8"))
        stack.enter_context(shared_lock(job.lock))
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        try:
            return _fit(jobs)
        except BpgenError as error:
            return [JobResult(each.name, "failed", str(error)) for each in jobs]
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a stranger's rule raises is the result of this run, not of the study
            traceback.print_exc()
            what = f"{type(error).__name__}: {error} (traceback in {job.log})"
            return [JobResult(each.name, "failed", what) for each in jobs]


def _fit(jobs: Sequence[Job]) -> list[JobResult]:
    from bpgen.run.config import Config
    from bpgen.run.fit import fit  # torch and Lightning: in the working process only
    from bpgen.run.resume import resume
    from bpgen.run.together import fit_seeds

    results, fresh = list[JobResult](), list[Job]()
    for job, ended in map(_as_it_stands, jobs):
        if ended is not None:
            results.append(ended)
        elif job.resume:
            results.append(_result(job, resume(job.resume, draw=False)))
        else:
            fresh.append(job)
    if len(fresh) > 1:
        seeds = [job.config["seed"] for job in fresh]
        endings = fit_seeds(Config.of(fresh[0].config), seeds, draw=False)
    else:
        endings = [fit(Config.of(job.config), draw=False) for job in fresh]
    return results + [_result(job, ending) for job, ending in zip(fresh, endings, strict=False)]


def _result(job: Job, ending: Any) -> JobResult:
    """Of an `Ending` of its run."""
    signum = ending.exit_code - 128 if ending.status == "interrupted" else 0
    return JobResult(job.name, ending.status, ending.message, str(ending.folder.path), signum)


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
