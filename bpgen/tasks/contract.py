"""The contract of a split: what every task has to hand over, checked once where it does.

A split is x float32 [T,n,I] with I = n_in, classes int64 [n] or [T,n] in 0..n_out-1 or values float32 [n,O] or [T,n,O]
with O = n_out, and, if steps are weighted, a mask float32 [T,n] of numbers >= 0 that are not all zero; everything is
finite. What `torch.as_tensor` takes is converted. NaN in inputs or values, and any class, at a step of weight 0 is
padding: it becomes 0, so that it cannot reach what counts by way of 0·NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from bpgen.errors import BpgenError, require
from bpgen.numbers import dense
from bpgen.tasks.split import SPLITS, Split, SplitName


def checked_splits(owner: str, found: Any) -> dict[SplitName, Any]:
    """What a task's `load` returned, once it is seen to be splits by their names, with one of training among them.

    Raises:
        BpgenError: it is not.
    """
    got = ", ".join(map(repr, found)) or "nothing" if isinstance(found, Mapping) else type(found).__name__
    require(
        isinstance(found, Mapping) and set(found) <= set(SPLITS),
        f"{owner}: load() must return splits by their names {', '.join(SPLITS)}, got {got}.",
    )
    require("train" in found, f"{owner} has no split train: nothing can be learned. It has {got}.")
    return dict(found)


def checked_split(owner: str, sizes: tuple[Any, Any], found: Any) -> Split:
    """One split as it may be used: of the right types and shapes, finite, without padding.

    Args:
        owner: task and split, for messages.
        sizes: n_in and n_out as the task declares them.
        found: what it handed over; itself, if there is nothing to convert.

    Raises:
        BpgenError: what is wrong, of which task and split.
    """
    require(
        isinstance(found, tuple) and len(found) in (2, 3),
        f"{owner}: must be a Split(x, target, mask), got {type(found).__name__}.",
    )
    for fact, size in zip(("n_in", "n_out"), sizes, strict=True):
        require(isinstance(size, Integral) and int(size) >= 1, f"{owner}: the task must say its {fact}, got {size!r}.")
    n_in, n_out = sizes
    x = _floats(_tensor(found[0], f"{owner}: x"), f"{owner}: x")
    require(
        x.ndim == 3 and x.shape[2] == n_in,
        f"{owner}: x must be [T,n,I], time first, with I = n_in = {n_in}, got {list(x.shape)}.",
    )
    T, n = x.shape[:2]
    require(T >= 1 and n >= 1, f"{owner}: x {list(x.shape)} holds no {'step' if n else 'sequence'}.")
    mask = None if len(found) == 2 or found[2] is None else checked_mask(found[2], owner, [T, n])
    off = None if mask is None else mask == 0
    target = _target(found[1], owner, n_out, [T, n], off)
    x = filled(x, off, f"{owner}: x")
    same = x is found[0] and target is found[1] and (mask is None or mask is found[2])
    return found if same and isinstance(found, Split) else Split(x, target, mask)


def repeated(train: Split, other: Split) -> int:
    """How many sequences of `other` have the inputs of a sequence of `train`, to the last bit."""
    known = set(_bytes(train))
    return sum(sequence in known for sequence in _bytes(other))


def _bytes(split: Split) -> list[bytes]:
    by_sequence = split.x.transpose(0, 1).contiguous().numpy()
    return [sequence.tobytes() for sequence in by_sequence]


def _tensor(value: Any, what: str) -> Tensor:
    tensor = dense(value, what)
    return tensor.detach().cpu() if tensor.requires_grad or tensor.device.type != "cpu" else tensor


def _floats(value: Tensor, what: str) -> Tensor:
    """As float32."""
    if value.dtype == torch.float32:
        return value
    cast = value.to(torch.float32)
    require(
        not bool((cast.isinf() & value.isfinite()).any()),
        f"{what} holds numbers beyond float32 (3e38): rescale them.",
    )
    return cast


def checked_mask(value: Any, owner: str, shape: list[int]) -> Tensor:
    """Weights of the steps [T,n] in float32.

    Raises:
        BpgenError: they are of another shape, negative, not finite, or all zero.
    """
    mask = _floats(_tensor(value, f"{owner}: the mask"), f"{owner}: the mask")
    require(list(mask.shape) == shape, f"{owner}: the mask must be [T,n] = {shape}, got {list(mask.shape)}.")
    require(
        bool(mask.isfinite().all()) and bool((mask >= 0).all()),
        f"{owner}: the mask must hold finite numbers >= 0: they are weights of the steps.",
    )
    require(bool((mask > 0).any()), f"{owner}: the mask is zero everywhere: no step counts.")
    return mask


def _target(value: Any, owner: str, n_out: int, shape: list[int], off: Tensor | None) -> Tensor:
    target = _tensor(value, f"{owner}: the target")
    if target.is_floating_point():
        target = _floats(target, f"{owner}: the target")
        require(
            list(target.shape) in ([shape[1], n_out], [*shape, n_out]),
            f"{owner}: values must be [n,O] or [T,n,O] with T = {shape[0]}, n = {shape[1]}, O = n_out = {n_out}, got "
            f"{list(target.shape)}. Classes are whole numbers [n] or [T,n].",
        )
        return filled(target, off if target.ndim == 3 else None, f"{owner}: the target")
    target = target.to(torch.int64)
    require(
        list(target.shape) in ([shape[1]], shape),
        f"{owner}: classes must be [n] or [T,n] with T = {shape[0]} and n = {shape[1]}, got {list(target.shape)}. "
        f"Values are floating-point numbers [n,O] or [T,n,O].",
    )
    wrong = (target < 0) | (target >= n_out)
    if off is not None and target.ndim == 2 and bool((wrong & off).any()):
        target, wrong = target.masked_fill(wrong & off, 0), wrong & ~off
    if bool(wrong.any()):
        classes = ", ".join(map(str, target[wrong].unique()[:5].tolist()))
        raise BpgenError(f"{owner}: classes must be 0..{n_out - 1} for n_out = {n_out}, got {classes}.")
    return target


def filled(values: Tensor, off: Tensor | None, what: str) -> Tensor:
    """Finite values [T,n,...], NaN of padding (`off` [T,n]) replaced by 0.

    Raises:
        BpgenError: others are not finite.
    """
    if bool(values.sum().isfinite()):  # one pass over the numbers, nearly always
        return values
    bad = ~values.isfinite()
    if off is not None:
        padding = values.isnan() & off.unsqueeze(-1)
        values, bad = values.masked_fill(padding, 0), bad & ~padding
    if bool(bad.any()):
        where = [int(i) for i in bad.nonzero()[0]]
        raise BpgenError(
            f"{what} holds {int(bad.sum())} nan or infinite values, the first at {where}: only NaN where the mask is 0 "
            f"is padding."
        )
    return values
