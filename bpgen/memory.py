"""How much memory there is, and what to say where it cannot be enough: from shapes, before anything is allocated."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

import torch

from bpgen.errors import require

_CGROUP = Path("/sys/fs/cgroup/memory.max")  # of a container or a job of a batch system; "max" where it sets none


def require_bytes(needed: float, what: str, advice: str, device: torch.device | str = "cpu") -> None:
    """See that a device can hold so many bytes.

    Args:
        needed: at least.
        what: needs memory for what, as the message begins.
        advice: what would help.
        device: that is to hold them.

    Raises:
        BpgenError: it cannot, with both sizes.
    """
    there = bytes_of(torch.device(device))
    require(
        needed <= there,
        f"{what}: at least {needed / 2**30:,.0f} GiB, where {there / 2**30:,.0f} GiB are there. {advice}",
    )


def bytes_of(device: torch.device) -> float:
    """Bytes that this process may have of a device's memory; infinite where that cannot be found out."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    limits = [math.inf]
    with suppress(AttributeError, ValueError, OSError):  # not a POSIX system
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(ImportError, OSError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        limits.append(math.inf if soft == resource.RLIM_INFINITY else soft)
    with suppress(OSError, ValueError):
        limits.append(int(_CGROUP.read_text()))
    return float(min(limits))
