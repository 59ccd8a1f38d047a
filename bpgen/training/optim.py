"""Optimizers and learning-rate schedules, as options a user can name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from bpgen.errors import require, unknown


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
        if self.name not in ("sgd", "adam"):
            raise unknown("optimizer", self.name, ("sgd", "adam"))
        require(self.lr > 0, f"optimizer.lr must be > 0, got {self.lr}.")
        require(0 <= self.momentum < 1, f"optimizer.momentum must be in [0, 1), got {self.momentum}.")
        require(self.name == "sgd" or self.momentum == 0, "optimizer.momentum is an option of sgd.")
        require(all(s >= 0 for s in (self.lr_scale or {}).values()), "optimizer.lr_scale must hold factors >= 0.")

    def build(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        """The torch optimizer, one parameter group a learning rate; the first group has the unscaled one.

        Raises:
            BpgenError: `lr_scale` names a weight the network does not have.
        """
        named, scales = dict(parameters), self.lr_scale or {}
        for name in scales:
            if name not in named:
                raise unknown("weight in optimizer.lr_scale", name, named)
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
        if self.name not in ("constant", "step", "exponential", "cosine"):
            raise unknown("schedule", self.name, ("constant", "step", "exponential", "cosine"))
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
