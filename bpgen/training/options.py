"""What a user can say about training, as values: the loss, the optimizer, its schedule, and the trainer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from bpgen.errors import choice, require
from bpgen.losses import L2, Activity, ActivityForm, Loss, LossName, When


@dataclass(frozen=True)
class Optimizer:
    """What turns a gradient into a weight change.

    Args:
        name: sgd (as in Liu 2022) or adam.
        lr: learning rate η.
        momentum: momentum of sgd, in [0, 1).
        lr_scale: factors on the learning rate by weight, e.g. {"W_out": 0.1}; 0 freezes a weight.
    """

    name: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.02
    momentum: float = 0.0
    lr_scale: dict[str, float] | None = None

    def __post_init__(self) -> None:
        choice("optimizer", self.name, ("sgd", "adam"))
        require(self.lr > 0, f"optimizer.lr must be > 0, got {self.lr}.")
        require(0 <= self.momentum < 1, f"optimizer.momentum must be in [0, 1), got {self.momentum}.")
        require(self.name == "sgd" or self.momentum == 0, "optimizer.momentum is an option of sgd.")
        require(all(s >= 0 for s in (self.lr_scale or {}).values()), "optimizer.lr_scale must hold factors >= 0.")

    def check(self, names: Iterable[str]) -> None:
        """See that it scales the rates of weights that exist.

        Raises:
            BpgenError: `lr_scale` names a weight the network does not have.
        """
        known = list(names)
        for name in self.lr_scale or {}:
            choice("weight in optimizer.lr_scale", name, known)

    def build(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        """The torch optimizer, one parameter group a learning rate; the first group has the unscaled one."""
        named, scales = dict(parameters), self.lr_scale or {}
        groups = [{"params": [p for n, p in named.items() if n not in scales], "lr": self.lr}]
        groups += [{"params": [named[n]], "lr": self.lr * s} for n, s in scales.items()]
        groups = [g for g in groups if g["params"]]
        if self.name == "adam":
            return torch.optim.Adam(groups, lr=self.lr)
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum)


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes along training, step by step.

    Args:
        name: constant; step (times gamma every `every` steps, at once); exponential (the same, smoothly); or
            cosine (to zero at the last step).
        gamma: factor per `every` steps of step and exponential.
        every: steps between two such factors. Liu 2022 releases step, 0.8 every 50,000 steps, which never fires.
        early_factor: remedy of Liu 2022: factor on the learning rate during the first `early_steps` steps, which
            then decays back to 1 with time constant `early_steps`.
        early_steps: length of that early phase; 0 is none.
    """

    name: Literal["constant", "step", "exponential", "cosine"] = "constant"
    gamma: float = 0.8
    every: int = 50_000
    early_factor: float = 1.0
    early_steps: int = 0

    def __post_init__(self) -> None:
        choice("schedule", self.name, ("constant", "step", "exponential", "cosine"))
        require(self.gamma > 0, f"schedule.gamma must be > 0, got {self.gamma}.")
        require(self.every >= 1, f"schedule.every must be a positive number of steps, got {self.every}.")
        require(self.early_factor > 0, f"schedule.early_factor must be > 0, got {self.early_factor}.")
        require(self.early_steps >= 0, f"schedule.early_steps must be >= 0, got {self.early_steps}.")

    def factor(self, step: int, n_steps: float) -> float:
        """Factor on the learning rate at a step (from 0) of `n_steps`."""
        if self.name == "step":
            late = self.gamma ** (step // self.every)
        elif self.name == "exponential":
            late = self.gamma ** (step / self.every)
        elif self.name == "cosine":
            late = 0.5 * (1 + math.cos(math.pi * min(1.0, step / n_steps)))
        else:
            late = 1.0
        if not self.early_steps:
            return late
        over = max(0, step - self.early_steps) / self.early_steps
        return late * (1 + (self.early_factor - 1) * math.exp(-over))


@dataclass(frozen=True)
class LossOptions:
    """The loss that is minimised.

    Args:
        kind: cross_entropy, mse (half the squared error) or binary_cross_entropy (several labels at once); for the last
            two classes become one-hot targets; none is the task's.
        when: take the loss at the "last" step, or at "all" steps; none is the task's.
        l2: penalty ½·l2·‖w‖² on W_in, W_rec and W_out, or factors by weight such as {"W_rec": 0.01}. It is part
            of the loss and of its Hessian.
        activity: cost c of the activity, part of the loss and of its Hessian as well.
        activity_form: rate is ½·c·Σ (mean activity in a sequence - target)² over neurons (Bellec 2020), square is
            ½·c times the mean squared activity. Both are taken of each sequence up to its last step that counts (a
            mask or lengths): what follows is padding.
        activity_target: the target of the rate form, activity per step.
    """

    kind: LossName | None = None
    when: When | None = None
    l2: float | dict[str, float] = 0.0
    activity: float = 0.0
    activity_form: ActivityForm = "rate"
    activity_target: float = 0.0

    def make(self) -> Loss:
        """The loss.

        Raises:
            BpgenError: an option outside its range.
        """
        penalty = Activity.of(Activity(self.activity, self.activity_form, self.activity_target))
        return Loss(self.kind or "cross_entropy", self.when or "last", None, L2.of(self.l2), penalty)


@dataclass(frozen=True)
class TrainerOptions:
    """How long training lasts and what a step is.

    Args:
        max_epochs: passes through the training data; ignored when max_steps is given.
        max_steps: weight updates; wins over max_epochs.
        batch_size: sequences per batch B.
        clip: clip the norm of the rule's whole gradient at this value.
        accumulate: batches whose gradients are averaged into one update.
        chunk: train online: change the weights every so many steps of a sequence, and carry the states of network and
            rule on; none is whole sequences. Offline rules are then truncated to the chunk.
        stream: with a chunk: train on the task's endless stream; an epoch is as long as its training split.
        accelerator: where to train; only cpu runs are bit-reproducible.
        best_by: the column whose best evaluation the summary names: the smallest, of accuracies and alignments the
            largest.
        patience: end training after so many evaluations without a better one; none is to the end.
    """

    max_epochs: int = 30
    max_steps: int | None = None
    batch_size: int = 16
    clip: float | None = None
    accumulate: int = 1
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"
    chunk: int | None = None
    stream: bool = False
    best_by: str = "val/loss"
    patience: int | None = None

    def __post_init__(self) -> None:
        require(self.max_epochs >= 1, f"trainer.max_epochs must be positive, got {self.max_epochs}.")
        require(
            self.max_steps is None or self.max_steps >= 1, f"trainer.max_steps must be positive, got {self.max_steps}."
        )
        require(self.batch_size >= 1, f"trainer.batch_size must be positive, got {self.batch_size}.")
        require(self.clip is None or self.clip > 0, f"trainer.clip must be > 0, got {self.clip}.")
        require(self.accumulate >= 1, f"trainer.accumulate must be positive, got {self.accumulate}.")
        require(self.chunk is None or self.chunk >= 1, f"trainer.chunk must be a positive number, got {self.chunk}.")
        require(self.chunk is not None or not self.stream, "trainer.stream needs a trainer.chunk, e.g. 1.")
        require(
            self.patience is None or self.patience >= 1,
            f"trainer.patience must be a positive number of evaluations, got {self.patience}.",
        )
        choice("trainer.accelerator", self.accelerator, ("cpu", "gpu", "auto"))

    def check(self, finished_steps: bool) -> None:
        """See that there is the accelerator that is asked for, and that finished weight changes stay as they are.

        Raises:
            BpgenError: there is none, or they would not.
        """
        there = self.accelerator != "gpu" or torch.cuda.is_available() or torch.backends.mps.is_available()
        require(there, "trainer.accelerator is gpu, and torch finds none here: use cpu or auto.")
        if finished_steps:
            leave_steps_alone(self.clip, self.accumulate)


def plain_steps(optimizer: Optimizer, schedule: Schedule) -> Optimizer:
    """The optimizer of a rule that hands over finished weight changes: learning rate 1, and nothing that rescales.

    Raises:
        BpgenError: the options ask for something that would rescale them; optimizer.lr alone is passed over.
    """
    plain = replace(optimizer, lr=Optimizer().lr) == Optimizer() and schedule == Schedule()
    require(
        plain,
        "this rule hands over finished weight changes (trait update='step'), which an optimizer must not rescale: "
        "use optimizer sgd without momentum and lr_scale, and a constant schedule.",
    )
    return Optimizer(lr=1.0)


def leave_steps_alone(clip: float | int | None, accumulate: int) -> None:
    """See that finished weight changes reach the weights as they are.

    Raises:
        BpgenError: the trainer would clip or average them.
    """
    require(
        not clip and accumulate == 1,
        "this rule hands over finished weight changes (trait update='step'): leave trainer.clip and "
        "trainer.accumulate at their defaults.",
    )
