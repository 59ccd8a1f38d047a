"""Checks of the splits: they fit what the task declares, and test what was not trained."""

from __future__ import annotations

import torch
from torch import Tensor

from bpgen.conformance.tasks.case import SUITE, Case
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.tasks import Split
from bpgen.tasks.base import SPLITS
from bpgen.tasks.contract import repeated


@SUITE.prop(
    "its splits have the shapes and dtypes of a task",
    "x is float32 [T,n,I], time first; targets are classes or values of a sequence or of every step; a mask is [T,n].",
)
def _form(case: Case) -> None:
    for name, split in case.splits().items():
        x, target, mask = split
        assert x.ndim == 3, f"x of {name} must be [T,n,I], it is {list(x.shape)}."
        T, n, _ = x.shape
        assert n > 0, f"{name} holds no sequence."
        assert x.dtype == torch.float32, f"x of {name} must be float32, it is {x.dtype}."
        classes = not target.is_floating_point()
        wanted = torch.int64 if classes else torch.float32
        assert target.dtype == wanted, f"targets of {name} must be {wanted}, they are {target.dtype}."
        shapes = ([n], [T, n]) if classes else ([n, target.shape[-1]], [T, n, target.shape[-1]])
        what = "classes must be [n] or [T,n]" if classes else "values must be [n,O] or [T,n,O]"
        assert list(target.shape) in shapes, f"{what} with T = {T}, n = {n}; those of {name} are {list(target.shape)}."
        if mask is not None:
            assert list(mask.shape) == [T, n], f"the mask of {name} must be [T,n], it is {list(mask.shape)}."
            assert mask.dtype == torch.float32, f"the mask of {name} must be float32, it is {mask.dtype}."


@SUITE.prop(
    "what counts is finite",
    "NaN where the mask is 0 is padding, and taken out; anywhere else it makes every weight NaN.",
)
def _finite(case: Case) -> None:
    for name, (x, target, mask) in case.splits().items():
        on = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask != 0
        over_steps = target.ndim == (3 if target.is_floating_point() else 2)
        for what, values in (("x", x[on]), ("targets", target[on] if over_steps else target)):
            bad = int((~values.isfinite()).sum())
            assert not bad, f"{what} of {name} holds {bad} nan or infinite values where steps count."


@SUITE.prop(
    "n_in, n_out and n_steps are those of its data",
    "the network is built from the numbers that a task declares, before any data are read.",
)
def _sizes(case: Case) -> None:
    task = case.task
    for name, (x, target, _) in case.splits().items():
        assert x.shape[2] == task.n_in, f"x of {name} has {x.shape[2]} inputs, n_in is {task.n_in}."
        assert x.shape[0] == task.n_steps, f"x of {name} has {x.shape[0]} steps, n_steps is {task.n_steps}."
        if target.is_floating_point():
            assert target.shape[-1] == task.n_out, f"{name} has {target.shape[-1]} values, n_out is {task.n_out}."
        else:
            lowest, highest = int(target.min()), int(target.max())
            assert lowest >= 0, f"classes count from 0; {name} has class {lowest}."
            assert highest < task.n_out, f"{name} has class {highest}, n_out is {task.n_out}: classes count from 0."


@SUITE.prop(
    "its loss and when fit its targets",
    "classes go with cross_entropy, values with mse (labels that apply or do not also with binary_cross_entropy); "
    "`when` says whether a target belongs to a sequence or to a step.",
)
def _loss(case: Case) -> None:
    task = case.task
    for name, (x, target, mask) in case.splits().items():
        kinds = ("mse", "binary_cross_entropy") if target.is_floating_point() else ("cross_entropy",)
        assert task.loss in kinds, f"targets of {name} are for {kinds[0]}, the task says loss = {task.loss!r}."
        assert mask is None or task.when == "all", f"{name} has a mask of the steps, and when is {task.when!r}."
        try:
            Loss.of(task.loss, task.when, mask).check(target, len(x), x.shape[1], task.n_out)
        except BpgenError as error:
            raise AssertionError(f"{name} does not fit loss={task.loss!r}, when={task.when!r}: {error}") from error


@SUITE.prop(
    "every sequence counts",
    "a mask weighs steps: negative weights reward mistakes, and a sequence of zeros teaches nothing.",
    lambda case: "" if any(split.mask is not None for split in _loaded(case)) else "it has no mask",
)
def _mask(case: Case) -> None:
    for name, (_, _, mask) in case.splits().items():
        assert mask is not None, f"{name} has no mask, others have one."
        assert bool((mask >= 0).all() & mask.isfinite().all()), f"the mask of {name} must hold finite numbers >= 0."
        silent = int((mask.sum(0) == 0).sum())
        assert not silent, f"{silent} sequences of {name} have no step that counts."


def _loaded(case: Case) -> list[Split]:
    try:
        return list(case.splits().values())
    except Exception:
        return []


@SUITE.prop(
    "there is something to tell apart",
    "one class, or the same inputs for all, is solved by a bias; a class that only test has cannot be learned.",
)
def _classes(case: Case) -> None:
    splits = case.splits()
    train = splits["train"]
    if train.target.is_floating_point():
        assert train.target.numel() < 2 or bool(train.target.std() > 0), "every target of train is the same number."
        return
    known = _asked(train).unique()
    assert len(known) > 1, f"every target of train is class {int(known[0])}."
    for name in [name for name in SPLITS[1:] if name in splits]:
        new = sorted(set(_asked(splits[name]).unique().tolist()) - set(known.tolist()))
        assert not new, f"{name} asks for class {', '.join(map(str, new))}, which train has not."


def _asked(split: Split) -> Tensor:
    """The classes at the steps that count."""
    return split.target if split.mask is None else split.target[split.mask > 0]


@SUITE.prop(
    "inputs lie in the range that perturbed ones are clipped to",
    "inputs outside `input_range` are cut by the perturbation, and that looks like a gap in generalization.",
)
def _range(case: Case) -> None:
    lowest, highest = case.task.input_range
    for name, split in case.splits().items():
        found = float(split.x.min()), float(split.x.max())
        assert lowest <= found[0] and found[1] <= highest, (  # noqa: PT018
            f"x of {name} goes from {found[0]:.3g} to {found[1]:.3g}, input_range is ({lowest:.3g}, {highest:.3g})."
        )


@SUITE.prop(
    "no sequence of validation or test is one of training",
    "test performance on sequences that were trained is training performance: the gap is then made of nothing.",
    lambda case: "it says reuses_training = True" if case.task.reuses_training else "",
)
def _disjoint(case: Case) -> None:
    splits = case.splits()
    for name in [name for name in SPLITS[1:] if name in splits]:
        again = repeated(splits["train"], splits[name])
        many = f"{again} of {splits[name].size} sequences of {name} are sequences of train, too."
        assert not again, f"{many} Where that is meant, say reuses_training = True."
