"""Running many jobs. A launcher is anything that takes jobs and yields results as they end; a cluster is another one.

`execute` is all a launcher has to call, in whatever process or machine it likes: it runs one job in this process and
never raises for what a job did wrong.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from joblib.externals.loky import as_completed, get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from bpgen.errors import BpgenError

ATTEMPTS = 2  # of a run whose process is killed from outside, e.g. for its memory
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


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
    """

    name: str
    config: dict[str, Any]
    resume: str | None
    log: str
    lock: str
    parent: int


@dataclass(frozen=True)
class Result:
    """How a job ended: finished, diverged, interrupted or failed, with the reason if it did not finish."""

    name: str
    status: str
    message: str = ""
    folder: str | None = None


class Launcher(Protocol):
    """Runs jobs somewhere."""

    def launch(self, jobs: Sequence[Job]) -> Iterator[Result]:
        """Start all jobs, and yield the result of each as it ends, in any order."""
        ...


class Local:
    """This machine: a pool of processes that stay, so that torch and Lightning are imported once in each.

    Args:
        processes: runs at once; every run computes on one thread, which is faster than several threads on one run.
    """

    def __init__(self, processes: int) -> None:
        self.processes = processes

    def launch(self, jobs: Sequence[Job], do: Callable[[Job], Result] | None = None) -> Iterator[Result]:
        """Run all jobs by `do` (`execute`); one whose process is killed twice is given up, and the others go on."""
        # loky replaces a process that has grown by 100 MB, which a data set does, and says so as if it were a fault
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
        left, processes = {job.name: job for job in jobs}, self.processes
        killed = dict.fromkeys(left, 0)
        while left:
            for job in left.values():
                Path(job.log).unlink(missing_ok=True)
            pool = get_reusable_executor(processes, timeout=60, env=_ONE_THREAD)
            done = False
            try:
                for future in as_completed([pool.submit(do or execute, job) for job in left.values()]):
                    result = future.result()
                    del left[result.name]
                    yield result
                done = True
            except TerminatedWorkerError:  # which one of them it was shows when they run one at a time
                processes = 1
                for name in [name for name, job in left.items() if Path(job.log).exists()]:
                    killed[name] += 1
                    if killed[name] == ATTEMPTS:
                        del left[name]
                        yield Result(name, "failed", "its process was killed twice from outside (out of memory?)")
            finally:
                if not done:
                    pool.shutdown(wait=True, kill_workers=True)


def execute(job: Job) -> Result:
    """Do one job in this process."""
    _end_with(job.parent)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(Path(job.log).open("w", encoding="utf-8"))
        stack.enter_context(shared_lock(job.lock))
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        try:
            return _fit(job)
        except BpgenError as error:
            return Result(job.name, "failed", str(error))
        except Exception as error:  # whatever a stranger's rule raises is the result of this run, not of the study
            traceback.print_exc()
            return Result(job.name, "failed", f"{type(error).__name__}: {error} (traceback in {job.log})")


def _fit(job: Job) -> Result:
    from bpgen.run.config import Config
    from bpgen.run.fit import fit, resume  # torch and Lightning: in the working process only

    say: Any = lambda line: print(line, flush=True)  # noqa: E731
    outcome = resume(job.resume, say, draw=False) if job.resume else fit(Config.of(job.config), say, draw=False)
    return Result(job.name, outcome.status, outcome.message, str(outcome.folder.path))


# A killed study must leave nobody behind who still writes into its folder.

_watched = False


def _end_with(parent: int, every: float = 0.2) -> None:
    """End this process, if it is a child of `parent`, when that is gone; its run can be continued."""
    global _watched
    if _watched or os.getppid() != parent:
        return
    _watched = True

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def shared_lock(file: str) -> Iterator[None]:
    """Hold a lock that many processes may hold at once; it ends with the process, however that ends."""
    with Path(file).open("a") as handle:
        _lock(handle, exclusive=False, wait=True)
        yield


@contextlib.contextmanager
def alone(folder: Path, patience: float = 10.0) -> Iterator[None]:
    """Be the only study in a folder, after the processes of a killed one have ended.

    Raises:
        BpgenError: another study is running there.
    """
    busy = f"{folder} is in use by another bpgen study: wait for it, or choose another --out."
    with (folder / ".study.lock").open("a") as study, (folder / ".runs.lock").open("a") as runs:
        if not _lock(study, exclusive=True, wait=False):
            raise BpgenError(busy)
        until = time.monotonic() + patience
        while not _lock(runs, exclusive=True, wait=False):
            if time.monotonic() > until:
                raise BpgenError(busy)
            time.sleep(0.05)
        runs.close()  # the runs of this study take it now
        yield


def _lock(handle: IO[str], exclusive: bool, wait: bool) -> bool:
    """Whether the lock was had. Without file locks (Windows) it always is."""
    try:
        import fcntl
    except ImportError:
        return True
    kind = (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(handle, kind)
    except BlockingIOError:
        return False
    return True
