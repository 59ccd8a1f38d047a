"""A limit of time for strangers' imports: one that never ends is named, and not waited for.

An alarm (SIGALRM) raises in the code that hangs, and goes on doing so where that is swallowed. It needs no thread and
costs two calls of the system; but it cannot reach code that does not return to Python, and only the main thread of a
POSIX system has it. Elsewhere, and where something else has the alarm already, there is no limit.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from bpgen.errors import BpgenError

VARIABLE, SECONDS = "BPGEN_IMPORT_SECONDS", 120.0  # packages that bring a framework of their own take a minute
_AGAIN = 1.0  # seconds until it raises once more


class ImportTimeout(BaseException):
    """An import has not ended in time; no `Exception`, which is what strangers' imports catch."""


@contextmanager
def on_imports() -> Iterator[None]:
    """Bound what is imported in the `with` block, by the seconds in BPGEN_IMPORT_SECONDS; 0 is no limit.

    Raises:
        ImportTimeout: it has not ended by then, with where it was.
        BpgenError: the variable holds no number of seconds.
    """
    seconds = _seconds()
    if not seconds or not _alarm_is_free():  # an import inside an import is bounded by the outer one
        yield
        return

    def end(signum: int, frame: FrameType | None) -> None:
        where = f", line {frame.f_lineno} of {frame.f_code.co_filename}" if frame else ""
        raise ImportTimeout(f"its import had not ended after {seconds:g} s{where}; {VARIABLE}=SECONDS allows it more")

    before = signal.signal(signal.SIGALRM, end)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _alarm_is_free() -> bool:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        return False
    return signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def _seconds() -> float:
    given = os.environ.get(VARIABLE, "")
    try:
        seconds = float(given) if given else SECONDS
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise BpgenError(f"{VARIABLE} must be a number of seconds, 0 for no limit, got {given!r}.")
    return seconds
