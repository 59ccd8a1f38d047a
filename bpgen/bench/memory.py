"""Memory that evaluations leave behind: resident memory after many of them, less before."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path


def growth(evaluate: Callable[[], object], evaluations: int, warm_ups: int) -> float:
    """MiB by which resident memory grows over that many evaluations, after some that do not count; Linux only."""
    for _ in range(warm_ups):
        evaluate()
    before = resident()
    for _ in range(evaluations):
        evaluate()
    return resident() - before


def resident() -> float:
    """Resident memory in MiB, without what waits in cycles or what malloc keeps for later (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
