"""A cluster under SLURM: arrays of tasks, each with a pack of runs, by submitit (the extra `cluster`).

The study's folder has to lie where all machines see it. A task that reaches its time limit or is preempted is requeued,
and its runs go on from their checkpoints. The tasks need nobody to watch: when the call that submitted them has ended,
however that was, the same command finds them again and submits only what is not under way. A run that fails stops no
other one. Runs in a task that died are done once more, each alone, so that the one at fault is found; those in a task
that was cancelled count as failed until `--retry`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bpgen.errors import BpgenError, require
from bpgen.study import fates
from bpgen.study.launchers import slurm_queue
from bpgen.study.launchers.base import Job, JobResult, Launcher
from bpgen.study.launchers.slurm_queue import Ledger, Task
from bpgen.study.launchers.slurm_task import Pack

_ARRAY = 1000  # tasks; SLURM's own limit is 1001 where nobody changed it
_NOBODYS_FAULT = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "REVOKED")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Slurm(Launcher):
    """Runs jobs as tasks of SLURM arrays.

    Args:
        pack: runs in a task, one after the other in one process; a start costs seconds.
        partition: of the cluster; none is its default.
        time: limit of a task, in minutes; a task that gets there is requeued and goes on.
        parallel: tasks at once, at most.
        cpus: for a task.
        memory: for a task, in GB; none is the cluster's default.
        gpus: for a task.
        requeues: how often a task may run into its time limit.
        warning: seconds before the time limit at which a run is asked to write its checkpoint.
        sbatch: further options of sbatch, e.g. "{account: mine, qos: long}".
        every: seconds between two looks at the queue.
    """

    remote = True

    def __init__(
        self,
        pack: int = 25,
        partition: str | None = None,
        time: int = 60,
        parallel: int = 100,
        cpus: int = 1,
        memory: float | None = None,
        gpus: int = 0,
        requeues: int = 100,
        warning: int = 90,
        sbatch: dict[str, Any] | None = None,
        every: float = 10.0,
    ) -> None:
        numbers = {"pack": pack, "time": time, "parallel": parallel, "cpus": cpus, "every": every}
        for name, value in numbers.items():
            require(value > 0, f"{name} (--engine.{name}) must be positive, got {value}.")
        for name, value in {"gpus": gpus, "requeues": requeues, "warning": warning}.items():
            require(value >= 0, f"{name} (--engine.{name}) must not be negative, got {value}.")
        self.pack, self.requeues, self.every = pack, requeues, every
        self.processes = parallel
        asked = {"partition": partition, "mem": memory and f"{round(memory * 1024)}MB", "gpus_per_node": gpus or None}
        self.parameters = {
            **{"time": time, "cpus_per_task": cpus, "array_parallelism": parallel, "signal_delay_s": warning},
            **{name: value for name, value in asked.items() if value is not None},
            "setup": [f"export {' '.join(f'{name}={cpus}' for name in _THREADS)}"],
            "additional_parameters": {**(sbatch or {}), "requeue": True},
        }

    def launch(self, jobs: Sequence[Job]) -> Iterator[JobResult]:
        """Submit what is not under way, and wait for all of it."""
        if not jobs:
            return
        study, left = jobs[0].study, {job.name: job for job in jobs}
        ledger = Ledger(study)
        try:
            while left:
                alive = slurm_queue.alive(ledger.submissions)  # before the results: what ends in between has both
                tasks, results = ledger.tasks(), fates.noted(study)
                for name in [name for name in left if name in tasks and name in results]:
                    ledger.close(tasks.pop(name), name, results[name].status)
                    del left[name]
                    yield results[name]
                if alive is not None:
                    yield from self._submit_lost(study, ledger, left, alive)
                if left:
                    time.sleep(self.every)
        except KeyboardInterrupt:
            ids = " ".join(sorted({task.submission.job_id or "" for task in ledger.tasks().values()}))
            print(
                f"\nthe SLURM jobs go on; the same command finds them again, `scancel {ids}` ends them", file=sys.stderr
            )
            raise

    def status(self, study: Path) -> list[str]:
        """Arrays with tasks that wait or run."""
        submissions = Ledger(study).submissions
        states = slurm_queue.alive(submissions)
        return ["SLURM does not answer"] if states is None else list(slurm_queue.in_words(submissions, states))

    def _submit_lost(
        self, study: Path, ledger: Ledger, left: dict[str, Job], alive: dict[tuple[str, int], str]
    ) -> Iterator[JobResult]:
        """Submit the runs that are in no living task; those that are beyond help are yielded as failed."""
        tasks, packed, alone = ledger.tasks(), list[Job](), list[Job]()
        for job in list(left.values()):
            task = tasks.get(job.name)
            if task is None:
                packed.append(job)
            elif task.key not in alive:
                state = slurm_queue.ended_as(task)
                reason = _beyond_help(task, state)
                if reason:
                    result = JobResult(job.name, "failed", reason)
                    fates.note(study, result)
                    del left[job.name]
                    yield result
                else:
                    (packed if state in _NOBODYS_FAULT else alone).append(job)
                ledger.close(task, job.name, state)
        self._submit(study, ledger, [packed[i : i + self.pack] for i in range(0, len(packed), self.pack)], False)
        self._submit(study, ledger, [[job] for job in alone], True)

    def _submit(self, study: Path, ledger: Ledger, packs: list[list[Job]], alone: bool) -> None:
        for start in range(0, len(packs), _ARRAY):
            part = packs[start : start + _ARRAY]
            for job in (job for pack in part for job in pack):
                fates.forget(study, job.name)
            executor = self._executor(study)
            submission = ledger.open([[job.name for job in pack] for pack in part], alone)
            try:
                executor.update_parameters(job_name=submission.name, **self.parameters)
                submitted = executor.map_array(Pack(), part)
            except Exception as error:  # submitit has many, and sbatch's own words are in them
                for pack in submission.packs:
                    submission.closed.update(dict.fromkeys(pack, "not submitted"))
                ledger.save(submission)
                raise BpgenError(f"SLURM did not take the jobs: {_last_line(error)}") from error
            submission.job_id = str(submitted[0].job_id).partition("_")[0]
            ledger.save(submission)

    def _executor(self, study: Path) -> Any:
        try:
            from submitit import SlurmExecutor
        except ImportError:
            raise BpgenError("the engine slurm needs submitit: pip install 'bpgen[cluster]'.") from None
        try:
            return SlurmExecutor(study.resolve() / slurm_queue.FOLDER / "tasks", max_num_timeout=self.requeues)
        except RuntimeError:
            raise BpgenError("there is no SLURM here (no command srun): log in to a cluster that has it.") from None


def _beyond_help(task: Task, state: str) -> str:
    """Why a run is not submitted again after its task has ended without it; empty if it is."""
    if state == "CANCELLED":
        return f"cancelled (SLURM job {task.id})"
    if task.submission.alone and state not in _NOBODYS_FAULT:
        return f"its process died twice, the second time alone: SLURM job {task.id} ended as {state}"
    return ""


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else repr(error))
