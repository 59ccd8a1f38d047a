"""How many threads a computation takes: one where its products are small, else as many as there are idle processors.

Two threads share a small product no faster than one computes it, and where something else runs each waits for the
other at every step. A user's word counts: `--threads N`, or OMP_NUM_THREADS. Standard library only, so that the
command line may begin to watch before torch is there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

MOST = 512  # threads; a system that cannot start them ends the program
LARGE = 2**21  # multiplications in a step's product from which on threads gain something: 256 samples of 90 neurons
HELP = "CPU threads; none takes one for small products, else as many as there are idle processors."
_WATCHED = 0.5  # seconds of watching that tell something


class _Clock(NamedTuple):
    """Seconds since some start: of the wall, of all processors' work, and of this process's."""

    wall: float
    busy: float
    own: float


_began: list[_Clock] = []


def prepare() -> None:
    """What a command does before torch is imported: waiting threads sleep and do not spin; see how busy it is here."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _began[:] = [_now()]


def seconds_so_far() -> float:
    """How long the command has been at work, imports included; 0 where no command was prepared."""
    return time.monotonic() - _began[0].wall if _began else 0.0


class Threads(NamedTuple):
    """A number of threads, and why."""

    number: int
    why: str

    def __str__(self) -> str:
        return f"threads: {self.number} ({self.why}); --threads N decides otherwise"


def choose(multiplications: int) -> Threads:
    """The number of threads for products of so many multiplications a step."""
    if multiplications < LARGE:
        return Threads(1, "the products of a step are small")
    cpus = processors()
    idle = max(1, round(cpus - others_busy()))
    return Threads(idle, f"{idle} of {cpus} processors are idle" if idle < cpus else "all processors are idle")


@contextmanager
def using(threads: int | None, multiplications: int) -> Iterator[Threads | None]:
    """Compute on so many threads in here; None chooses, unless OMP_NUM_THREADS is set.

    Yields:
        The choice, where one was made.
    """
    import torch

    before = torch.get_num_threads()
    chosen = None if threads is not None or "OMP_NUM_THREADS" in os.environ else choose(multiplications)
    torch.set_num_threads(threads or (before if chosen is None else chosen.number))
    try:
        yield chosen
    finally:
        torch.set_num_threads(before)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def others_busy() -> float:
    """How many of these processors other processes keep busy: since `prepare`, or else over the last minute."""
    now = _now()
    if _began and now.busy >= 0 and now.wall - _began[0].wall >= _WATCHED:
        wall, busy, own = (b - a for a, b in zip(_began[0], now, strict=True))
        return max(0.0, (busy - own) / wall)
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _now() -> _Clock:
    """By Linux's own account of each processor; -1 where there is none."""
    used = os.times()
    own = used.user + used.system + used.children_user + used.children_system
    try:
        with open("/proc/stat", encoding="ascii") as file:
            rows = {words[0]: [int(w) for w in words[1:9]] for words in map(str.split, file) if words[0][:3] == "cpu"}
        mine = [rows[f"cpu{cpu}"] for cpu in os.sched_getaffinity(0)]
    except (OSError, ValueError, KeyError, AttributeError):
        return _Clock(time.monotonic(), -1.0, own)
    ticks = sum(sum(row) - row[3] - row[4] for row in mine)  # all but idle and waiting for a disk
    return _Clock(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), own)
