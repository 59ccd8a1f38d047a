"""This machine: a pool of processes that stay, so that torch and Lightning are imported once in each."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from joblib.externals.loky import as_completed, get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from bpgen.errors import require
from bpgen.study.launchers.base import Job, JobResult, Launcher, execute

ATTEMPTS = 2  # of a run whose process is killed from outside, e.g. for its memory
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class LocalPool(Launcher):
    """Runs jobs in processes of this machine; every run computes on one thread, faster than many threads on one run.

    Up to eight seeds of a condition are trained at once in one process where that is faster (`bpgen.study.together`).

    Args:
        processes: runs at once; by default as many as there are CPUs that may be used.
    """

    seeds_at_once = True

    def __init__(self, processes: int | None = None) -> None:
        self.processes = _cpus() if processes is None else processes
        require(self.processes >= 1, f"processes (--jobs) must be positive, got {processes}.")

    def launch(self, jobs: Sequence[Job], do: Callable[[Job], JobResult] = execute) -> Iterator[JobResult]:
        """Run all jobs by `do`; one whose process is killed twice is given up, and the others go on."""
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
                for future in as_completed([pool.submit(do, job) for job in left.values()]):
                    result = future.result()
                    del left[result.name]
                    yield result
                done = True
            except TerminatedWorkerError:  # which one of them it was shows when they run one at a time
                processes = 1
                for name in [name for name, job in left.items() if Path(job.log).exists()]:
                    killed[name] += 1
                    if killed[name] == ATTEMPTS:
                        names = [name, *(other.name for other in left.pop(name).beside)]
                        why = "its process was killed twice from outside (out of memory?)"
                        first, *others = [JobResult(each, "failed", why) for each in names]
                        yield first._replace(beside=tuple(others))
            finally:
                if not done:
                    pool.shutdown(wait=True, kill_workers=True)


def _cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
