"""File locks that end with the process that holds them, however that ends."""

from __future__ import annotations

from typing import IO


def take(handle: IO[str], exclusive: bool, wait: bool) -> bool:
    """Whether the lock on an open file was had, until it is closed. Without file locks (Windows) it always is.

    Args:
        handle: the file, open for writing (network file systems want that).
        exclusive: nobody else may hold it at the same time, rather than many together.
        wait: until it is free.
    """
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
