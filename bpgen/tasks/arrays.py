"""What the arrays of a user's file mean: inputs, what is asked, and which steps there are. Every message has a cure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bpgen.errors import require
from bpgen.tasks.contract import checked_mask

Array = NDArray[Any]
_NO_NUMBERS = {  # by numpy's kind of dtype: what it is, and what to do
    "c": ("complex numbers", "give two real ones for each, e.g. numpy.concatenate([x.real, x.imag], axis=-1)"),
    "M": ("dates", "give numbers, e.g. (x - x.min()) / numpy.timedelta64(1, 's')"),
    "m": ("durations", "give numbers, e.g. x / numpy.timedelta64(1, 's')"),
    "V": ("records of named fields", "give plain numbers, e.g. numpy.lib.recfunctions.structured_to_unstructured(x)"),
    "U": ("text", "give numbers; classes are numbered by classes, y = numpy.unique(y, return_inverse=True)"),
    "S": ("text", "give numbers; classes are numbered by classes, y = numpy.unique(y, return_inverse=True)"),
    "T": ("text", "give numbers; classes are numbered by classes, y = numpy.unique(y, return_inverse=True)"),
}
_FITS = (
    "classes are whole numbers [n] or [T, n]; values are numbers [n], [n, O], [T, n] or [T, n, O]; several labels at "
    "once are 0 and 1, [n, O] or [T, n, O]"
)


class Asked(NamedTuple):
    """What is asked: classes [n] or [T,n]; or values, or 0 and 1 for several labels at once, [n,O] or [T,n,O].

    loss: that of its kind. timed: whether at every step.
    """

    y: Array
    loss: Literal["cross_entropy", "mse", "binary_cross_entropy"]
    timed: bool


def require_numbers(array: Array, what: str) -> None:
    """See that an array holds real numbers (or booleans).

    Raises:
        BpgenError: it does not, with how to get some.
    """
    kind, cure = _NO_NUMBERS.get(array.dtype.kind, ("", ""))
    require(not kind, f"{what} holds {kind} ({array.dtype}): {cure}.")


def checked_inputs(x: Array, y: Array, what: str) -> Array:
    """Inputs [T,n,I].

    Raises:
        BpgenError: they are not numbers, or not in this order.
    """
    require_numbers(x, what)
    cure = " With one input add its axis: x[..., None]." if x.ndim == 2 else ""
    require(
        x.ndim == 3 and x.size > 0,
        f"{what} must be [T, n, I] (steps, sequences, inputs), got {list(x.shape)}.{cure}",
    )
    trials_first = y.shape[:1] == x.shape[:1] and y.ndim > 0 and x.shape[0] != x.shape[1] and y.shape[:2] != x.shape[:2]
    swap = f"read so, x has {x.shape[0]} steps of {x.shape[1]} sequences, y {list(y.shape)} has {x.shape[0]} answers"
    require(
        not (trials_first and x.shape[1] not in y.shape[:2]),
        f"{what} must have its steps first: {swap}. Do trials come first? Then swap the axes: x.swapaxes(0, 1).",
    )
    return x


def asked(y: Array, shape: tuple[int, ...], what: str) -> Asked:
    """What is asked of sequences with inputs of this shape [T,n,I].

    Raises:
        BpgenError: y is neither classes nor values, or does not fit x.
    """
    require_numbers(y, what)
    T, n = shape[:2]
    fits = f"{what} does not fit x with T = {T} steps of n = {n} sequences: {_FITS}; got {y.dtype} {list(y.shape)}."
    if y.dtype.kind in "iub":
        if y.ndim in (2, 3) and y.shape[:-1] in ((n,), (T, n)) and y.shape != (T, n) and y.size > 0:
            _require_labels(y, what)
            return Asked(y.astype(np.float32), "binary_cross_entropy", y.ndim == 3)
        require(y.shape in ((n,), (T, n)), fits)
        return Asked(y, "cross_entropy", y.ndim == 2)
    single = y.shape == (n,) or (y.shape == (T, n) and n != T)
    if single:
        finite = y[np.isfinite(y)]
        whole = bool(finite.size) and bool((finite == np.floor(finite)).all()) and len(np.unique(finite)) <= 1000
        require(
            not whole,
            f"{what} holds whole numbers as {y.dtype}. If they are classes: y.astype(int); if values: y[..., None].",
        )
        y = y[..., None]
    require(y.ndim in (2, 3) and y.shape[:-1] in ((n,), (T, n)) and y.size > 0, fits)
    return Asked(y, "mse", y.ndim == 3)


def _require_labels(y: Array, what: str) -> None:
    """See that whole numbers with an axis more than classes have say which of several labels apply."""
    require(y.shape[-1] != 1, f"{what} has an axis too many, {list(y.shape)}: classes are y[..., 0].")
    require(
        y.min() >= 0 and y.max() <= 1,
        f"{what} holds whole numbers {list(y.shape)} other than 0 and 1. If they are values: y.astype(float).",
    )
    one_hot = bool((y.sum(-1) == 1).all())
    require(not one_hot, f"{what} is one-hot {list(y.shape)}: give the classes themselves, y.argmax(-1).")


def steps_there(arrays: Mapping[str, Array], shape: tuple[int, ...], timed: bool, file: str) -> Tensor | None:
    """Which steps there are [T,n], from `lengths` or `mask`; None where all are.

    Raises:
        BpgenError: they do not fit x, or each other.
    """
    T, n = shape[:2]
    lengths, mask = arrays.get("lengths"), arrays.get("mask")
    there = None
    if lengths is not None:
        require_numbers(lengths, f"lengths in {file}")
        require(
            lengths.shape == (n,) and lengths.dtype.kind in "iu" and lengths.min() >= 1 and lengths.max() <= T,
            f"lengths in {file} must be whole numbers [n] = [{n}] from 1 to T = {T}, got {lengths.dtype} "
            f"{list(lengths.shape)}{f' up to {lengths.max()}' if lengths.size else ''}.",
        )
        there = torch.arange(T).unsqueeze(1) < torch.from_numpy(lengths.astype(np.int64))
    if mask is None:
        return there
    require_numbers(mask, f"mask in {file}")
    weights = checked_mask(mask, f"task.file {file}", [T, n])
    if timed:
        return (weights > 0) if there is None else there & (weights > 0)
    require(there is None, f"{file} has lengths and a mask: beside one y a sequence give one of them.")
    require(
        bool(((weights == 0) | (weights == 1)).all()) and bool((weights > 0).any(0).all()),
        f"mask in {file} must be 1 at the steps of a sequence and 0 at its padding, beside one y a sequence; every "
        f"sequence has a step.",
    )
    return weights > 0
