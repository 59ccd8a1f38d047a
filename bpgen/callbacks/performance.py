"""How well a network does on a split: loss, accuracy, and what stands for it with values or uneven classes."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bpgen.callbacks.evaluation import Evaluation
from bpgen.problem import Problem
from bpgen.tasks import Split
from bpgen.training.splits import Splits

_CHUNK = 1024  # most sequences run at once,
_NUMBERS = 2**26  # and most numbers T·B·N·(d+K) that a run keeps: bounds of memory that change nothing
_UNEVEN = 1.5  # how many times as often as the rarest class the commonest is, where balanced accuracy says more


class Performance(NamedTuple):
    """On one split; nan where there is no such number.

    loss: without regulariser. accuracy: share of the answers that are right. activity: the cost of the activity.
    balanced: mean over classes of that share. uneven: whether classes differ in how often they occur. r2: of values.
    """

    loss: float = math.nan
    accuracy: float = math.nan
    activity: float = math.nan
    balanced: float = math.nan
    uneven: bool = False
    r2: float = math.nan


@torch.no_grad()
def performance(evaluation: Evaluation, split: Split | None) -> Performance:
    """Of the noise-free network on a split; nan where there is none."""
    if split is None:
        return Performance()
    labels = evaluation.module.loss.kind == "binary_cross_entropy"
    whole, splits = evaluation.problem(split), evaluation.splits
    loss, network = evaluation.module.loss, evaluation.network
    accuracy = _accuracy(2 if labels or splits.continuous else max(2, network.n_out), split.x.device)
    accuracy.reset()
    total, cost, finite, squared = 0.0, 0.0, True, 0.0
    right, asked = torch.zeros(2, 0 if splits.continuous else network.n_out, dtype=torch.float64)
    for part, _ in whole.chunks(_sequences(whole)):
        run = part.run()
        total += part.batch * float(part.loss.data(run.outputs, part.target))
        if part.loss.cost is not None:
            cost += part.batch * float(part.loss.cost.value(run.h))
        finite = finite and bool(run.outputs.isfinite().all())
        predicted, wanted = _answers(part, run.outputs, splits.tolerance, splits.continuous)
        accuracy.update(predicted, wanted)
        if splits.continuous or labels:
            squared += float(_counted(part.loss.mask, run.outputs - part.target).double().square().sum())
        else:
            right += torch.bincount(wanted[predicted == wanted].cpu(), minlength=network.n_out)
            asked += torch.bincount(wanted.cpu(), minlength=network.n_out)
    defined = finite and (labels or (splits.tolerance is not None if splits.continuous else network.n_out > 1))
    some = asked > 0
    return Performance(
        total / whole.batch,
        float(accuracy.compute()) if defined else math.nan,
        cost / whole.batch if loss.activity is not None else 0.0,
        float((right[some] / asked[some]).mean()) if defined and bool(some.any()) else math.nan,
        bool(some.any()) and float(asked.max()) > _UNEVEN * float(asked[some].min()),
        _r2(split, squared) if splits.continuous and finite and not labels else math.nan,
    )


@lru_cache(maxsize=8)
def _accuracy(n_answers: int, device: torch.device) -> Any:
    """Torchmetrics' accuracy, kept: making one for every evaluation costs as much as counting the answers."""
    from torchmetrics.classification import MulticlassAccuracy  # slow to import, and not needed to read options

    return MulticlassAccuracy(n_answers, average="micro", validate_args=False).to(device)


@torch.no_grad()
def confusion(evaluation: Evaluation, split: Split) -> Tensor | None:
    """How often each class (row) was answered as each (column), int64 [O,O]; None where answers are no classes."""
    network = evaluation.network
    if evaluation.splits.continuous or evaluation.module.loss.kind == "binary_cross_entropy" or network.n_out < 2:
        return None
    whole, n_out = evaluation.problem(split), network.n_out
    counts = torch.zeros(n_out * n_out, dtype=torch.int64)
    for part, _ in whole.chunks(_sequences(whole)):
        outputs = part.run().outputs
        if not bool(outputs.isfinite().all()):
            return None
        predicted, wanted = _answers(part, outputs, None, continuous=False)
        counts += torch.bincount((wanted * n_out + predicted).cpu(), minlength=n_out * n_out)
    return counts.view(n_out, n_out)


def _r2(split: Split, squared: float) -> float:
    """1 - Σ error²/Σ (target - mean)², over all outputs together; nan where the targets are all the same."""
    target = _counted(split.mask, split.target).double()
    spread = float((target - target.mean(0)).square().sum())
    return 1 - squared / spread if spread > 0 else math.nan


def _counted(mask: Tensor | None, values: Tensor) -> Tensor:
    """The values [·,O] of the steps that count."""
    return (values if mask is None else values[mask > 0]).flatten(0, -2)


def share_right(answers: Tensor, split: Split, splits: Splits) -> float:
    """How many answers are right; both as the loss wants targets."""
    if splits.continuous:
        right = ((answers - split.target).abs() <= (splits.tolerance or 0)).all(-1)
    elif answers.is_floating_point():  # one-hot
        right = answers.argmax(-1) == split.target.argmax(-1)
    else:
        right = answers == split.target
    return float((right if split.mask is None else right[split.mask > 0]).double().mean())


def _sequences(problem: Problem) -> int:
    """How many to run at once."""
    neuron = problem.network.neuron
    each = problem.n_steps * problem.network.n_rec * (neuron.n_states + neuron.n_currents)
    return max(1, min(_CHUNK, _NUMBERS // each))


def _answers(part: Problem, outputs: Tensor, tolerance: float | None, continuous: bool) -> tuple[Tensor, Tensor]:
    """What was answered and what was wanted, as classes; of values, whether they are right, and 1; of labels, each."""
    predicted, wanted = _compared(part, outputs, tolerance, continuous)
    mask = part.loss.mask
    seen = slice(None) if mask is None else mask > 0
    return predicted[seen].flatten(), wanted[seen].flatten()


def _compared(part: Problem, outputs: Tensor, tolerance: float | None, continuous: bool) -> tuple[Tensor, Tensor]:
    """The same for every step and sequence, those that do not count included."""
    target = part.target
    if part.loss.kind == "binary_cross_entropy":
        return (outputs > 0).long(), (target > 0.5).long()
    if continuous:
        predicted = ((outputs - target).abs() <= (tolerance or 0)).all(-1).long()
        return predicted, torch.ones_like(predicted)
    return outputs.argmax(-1), target.argmax(-1) if part.loss.kind == "mse" else target


@torch.no_grad()
def share_by_sequence(evaluation: Evaluation, split: Split) -> Tensor:
    """The share of answers that are right in every sequence of a split [n], of the noise-free network."""
    whole, splits, shares = evaluation.problem(split), evaluation.splits, []
    for part, _ in whole.chunks(_sequences(whole)):
        predicted, wanted = _compared(part, part.run().outputs, splits.tolerance, splits.continuous)
        right = (predicted == wanted).double()
        right = right.mean(-1) if part.loss.kind == "binary_cross_entropy" else right  # over labels
        if right.dim() == 2:  # [T,B]
            weight = torch.ones_like(right) if part.loss.mask is None else (part.loss.mask > 0).to(right)
            right = (right * weight).sum(0) / weight.sum(0).clamp(min=1)
        shares.append(right)
    return torch.cat(shares)
