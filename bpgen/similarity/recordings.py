"""Recorded activity from one .npz file: conditions x time x neurons, and the inputs that stand for the conditions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bpgen.errors import require
from bpgen.tasks.archive import read_arrays

CURE = "Write it with numpy.savez(file, activity=activity), [conditions, time, neurons], e.g. trial-averaged rates."


class Recording(NamedTuple):
    """Activity of some conditions.

    name: whose it is. activity: [C,T,N]. x: the inputs that a network is to get for them [C,T,I], or None: then they
    are the first sequences of its split, one for each condition.
    """

    name: str
    activity: NDArray[np.float64]
    x: NDArray[np.float64] | None = None


def read_recording(file: str | os.PathLike[str]) -> Recording:
    """The array `activity` [C,T,N] of a file, and `x` [C,T,I] where it has one.

    Raises:
        BpgenError: it cannot be read, or holds something else.
    """
    path = Path(file).expanduser()
    arrays = read_arrays(path, ["activity"], ["x"], called="data", cure=CURE)
    for name, a in arrays.items():
        numbers = a.ndim == 3 and a.size > 0 and a.dtype.kind in "fiub"
        last = "neurons" if name == "activity" else "inputs"
        require(
            numbers,
            f"{name} in {file} must be numbers [conditions, time, {last}], got {a.dtype} of shape {a.shape}. {CURE}",
        )
        finite = np.isfinite(a).reshape(-1, a.shape[-1]).all(0)
        bad = np.flatnonzero(~finite)
        require(
            bool(finite.all()),
            f"{name} in {file} holds numbers that are not finite, in {len(bad)} of {len(finite)} {last} (the first is "
            f"number {bad[0] if len(bad) else ''}, from 0): leave these out, or the conditions that were not recorded.",
        )
    activity, x = arrays["activity"].astype(np.float64), arrays.get("x")
    require(
        x is None or x.shape[:2] == activity.shape[:2],
        f"x in {file} must have the conditions and time steps of activity, got {None if x is None else x.shape} beside "
        f"{activity.shape}.",
    )
    return Recording(path.name, activity, None if x is None else x.astype(np.float64))
