"""Class labels from a file: how many classes they are, and what is odd about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpgen.errors import require
from bpgen.tasks.split import SplitName

_FEW = 1000  # classes that may have gaps of any size
_RENUMBER = "Number them: classes, y = numpy.unique(y, return_inverse=True)."


def n_classes(labels: NDArray[Any], what: str) -> int:
    """The number of outputs for these labels: the largest and one more.

    Args:
        labels: whole numbers, those that count.
        what: names them in messages.

    Raises:
        BpgenError: one is negative, all are the same, or they are so far apart that most outputs would stand for none.
    """
    found = np.unique(labels)
    require(len(found) > 0, f"{what}: no label counts.")
    least, most = int(found[0]), int(found[-1])
    padding = " Steps that do not count have weight 0 in a mask." if least == -100 else ""
    require(least >= 0, f"{what} must count from 0, got {least}.{padding} {_RENUMBER}")
    require(len(found) > 1, f"{what} are all {least}: with one class there is nothing to learn.")
    require(
        most < max(_FEW, 10 * len(found)),
        f"{what} are {len(found)} different numbers up to {most}, which would be {most + 1} outputs. {_RENUMBER}",
    )
    return most + 1


def gaps(labels: NDArray[Any], n_out: int) -> str:
    """Which classes never occur, in a sentence; empty where all do."""
    found = np.unique(labels)
    missing = sorted(set(range(n_out)) - set(found.tolist()))
    if not missing:
        return ""
    which = _listed(missing)
    one = len(missing) == 1
    idle = f"class {which} never occurs, and has an" if one else f"classes {which} never occur, and have an"
    return f"y names {len(found)} classes, {_listed(found.tolist())}; {idle} output all the same. {_RENUMBER}"


def not_trained(train: NDArray[Any], others: Mapping[SplitName, NDArray[Any]]) -> list[str]:
    """Which classes of other splits training does not have, a sentence each."""
    known = np.unique(train)
    sentences = []
    for name, labels in others.items():
        strange = np.setdiff1d(labels, known).tolist()
        if strange:
            what = "class" if len(strange) == 1 else "classes"
            verb, them = ("is", "it") if len(strange) == 1 else ("are", "them")
            sentences.append(
                f"{what} {_listed(strange)} of {name} {verb} not in train, and can only be answered wrongly: move some "
                f"sequences of {them} to train (array `split`), or leave {them} out"
            )
    return sentences


def _listed(numbers: list[int]) -> str:
    """The first few of them: 0, 1, 7; 2 to 6; 0, 1, 2, ... 99."""
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    few = ", ".join(map(str, numbers[:6]))
    return few if len(numbers) <= 6 else f"{few}, ... {numbers[-1]}"
