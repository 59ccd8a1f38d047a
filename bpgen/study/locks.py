"""File locks: one study at a time in a folder, none before a killed one has ended; and one process at every run."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

from bpgen.errors import BpgenError
from bpgen.flock import take

RUNS_LOCK = ".runs.lock"  # in the study's folder; held by every process that does a run


@contextlib.contextmanager
def shared_lock(file: str) -> Iterator[None]:
    """Hold a lock that many processes may hold at once; it ends with the process, however that ends."""
    with Path(file).open("a") as handle:
        take(handle, exclusive=False, wait=True)
        yield


@contextlib.contextmanager
def study_lock(folder: Path, patience: float = 10.0) -> Iterator[None]:
    """Be the only study in a folder, after the processes of a killed one have ended.

    Raises:
        BpgenError: another study is running there.
    """
    busy = f"{folder} is in use by another bpgen study: wait for it, or choose another --out."
    with (folder / ".study.lock").open("a") as study, (folder / RUNS_LOCK).open("a") as runs:
        if not take(study, exclusive=True, wait=False):
            raise BpgenError(busy)
        until = time.monotonic() + patience
        while not take(runs, exclusive=True, wait=False):
            if time.monotonic() > until:
                raise BpgenError(busy)
            time.sleep(0.05)
        runs.close()  # the runs of this study take it now
        yield


@contextlib.contextmanager
def run_lock(study: Path, name: str) -> Iterator[bool]:
    """Be the only process at work on a run, on whatever machine that sees the study's folder; whether it is so.

    One byte of one file stands for each run: a record lock (POSIX), which network file systems keep.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield True
        return
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    with (study / ".at_work.lock").open("a") as handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError:
            yield False
            return
        yield True
