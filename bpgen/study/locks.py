"""File locks: one study at a time in a folder, and none before the processes of a killed one have ended."""

from __future__ import annotations

import contextlib
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
