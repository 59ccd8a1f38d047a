"""A problem from what a Python caller hands in: tensors, numpy arrays or lists, of whatever type of number.

Numbers are cast to the network's dtype and device where nothing is lost by it (spikes as integers or booleans, double
precision); what has no such meaning is an error that says what to do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bpgen.errors import require
from bpgen.losses import Loss
from bpgen.network import Network
from bpgen.numbers import dense
from bpgen.problem import Problem
from bpgen.tasks.contract import filled

_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def problem_of(
    network: Network, x: Any, target: Any, loss: Loss, initial_state: Any = None, lengths: Any = None
) -> Problem:
    """The checked problem of a network at its present weights.

    Args:
        network: the network.
        x: inputs [T,B,I].
        target: classes [B] or [T,B], or values [B,O] or [T,B,O], as the loss asks for; one value [B] or [T,B].
        loss: the loss, with its mask if it has any.
        initial_state: s_0 [B,d,N], or None.
        lengths: steps of each sequence [B] where they differ; what comes after is padding.

    Raises:
        BpgenError: what does not fit, what was expected, and what to do.
    """
    require(isinstance(network, Network), f"network must be a bpgen.Network, got a {type(network).__name__}.")
    like = network.W_rec
    mask = None if loss.mask is None else _numbers("mask", loss.mask, like)
    values = _classes(target, like) if loss.kind == "cross_entropy" else _numbers("target", target, like)
    if loss.kind != "cross_entropy" and network.n_out == 1 and values.ndim == (1 if loss.when == "last" else 2):
        values = values.unsqueeze(-1)
    start = (
        None if initial_state is None else filled(_numbers("initial_state", initial_state, like), None, "initial_state")
    )
    problem = Problem(network, network.params(), _numbers("x", x, like), values, loss.with_mask(mask), start)
    return _without_padding(problem if lengths is None else _of_lengths(problem, lengths)).checked()


def _of_lengths(problem: Problem, lengths: Any) -> Problem:
    """The same where each sequence ends at its own step.

    Raises:
        BpgenError: lengths that are none, targets or weights of another shape, or NaN in a step that there is.
    """
    T, B, given = problem.n_steps, problem.batch, dense(lengths, "lengths")
    require(
        list(given.shape) == [B] and given.dtype in _WHOLE and 1 <= int(given.min()) <= int(given.max()) <= T,
        f"lengths must be whole numbers [B] = [{B}] from 1 to T = {T}, got {given.dtype} {list(given.shape)}.",
    )
    problem.loss.check_shapes(problem.target, T, B, problem.network.n_out)
    own = given.to(problem.x.device).long()
    x = filled(problem.x, torch.arange(T, device=own.device).unsqueeze(1) >= own, "x")
    target, loss = problem.loss.of_lengths(problem.target, own, T)
    mask = None if loss.mask is None else loss.mask.to(problem.x)
    return replace(problem, x=x, target=target, loss=loss.with_mask(mask))


def _without_padding(problem: Problem) -> Problem:
    """The same, with 0 for NaN, and for any class, at steps of weight 0, which must not reach what counts by 0·NaN.

    Raises:
        BpgenError: numbers that are not finite anywhere else, or weights that are none.
    """
    x, target, mask, start = problem.x, problem.target, problem.loss.mask, problem.initial_state
    off = None
    if mask is not None and mask.shape == x.shape[:2] == target.shape[:2]:  # other shapes are refused later
        require(bool((filled(mask, None, "mask") >= 0).all()), "mask must hold numbers >= 0, the weights of the steps.")
        require(bool((mask > 0).any()), "mask is zero everywhere: no step counts.")
        off = mask == 0
    if start is not None:
        filled(start, None, "initial_state")
    if problem.loss.kind != "cross_entropy":
        target = filled(target, off if target.ndim == 3 else None, "target")
    elif off is not None:
        target = target.masked_fill(off, 0)
    return replace(problem, x=filled(x, off if x.ndim == 3 else None, "x"), target=target)


def _numbers(name: str, value: Any, like: Tensor) -> Tensor:
    """Real numbers in the dtype and on the device of `like`.

    Raises:
        BpgenError: no numbers, or finite ones that the dtype cannot hold.
    """
    tensor = dense(value, name)
    cast = tensor.to(like)
    require(
        cast is tensor or not bool((cast.isinf() & ~tensor.isinf()).any()),
        f"{name} holds numbers beyond the network's {like.dtype}: scale them, or make the network torch.float64.",
    )
    return cast


def _classes(value: Any, like: Tensor) -> Tensor:
    """Classes as int64 where they are whole numbers; other targets as they are, for the loss to name what is wrong."""
    tensor = dense(value, "target").to(like.device)
    whole = not tensor.is_floating_point() or bool((tensor == tensor.round()).all())
    return tensor.long() if whole else tensor
