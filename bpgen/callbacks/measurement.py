"""What a measuring callback is: a function of one moment of training that disturbs nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import lightning.pytorch as pl
import numpy as np
import torch

from bpgen.errors import require
from bpgen.losses import Loss
from bpgen.problem import Problem
from bpgen.streams import generator
from bpgen.tasks import Split, Task
from bpgen.tasks.base import SplitName
from bpgen.training.data import fitted
from bpgen.training.module import RuleTraining


@dataclass(frozen=True)
class Moment:
    """One evaluation: where training is, and what there is to measure."""

    module: RuleTraining
    task: Task
    epoch: float
    step: int
    lr: float


class Measurement(pl.Callback):
    """Base of the measuring callbacks. `EvaluationClock` decides when, and calls `measure` undisturbed.

    Attributes:
        name: prefix of its metrics, and its entry in the timings of the summary.
        spiking: whether the run's neurons spike, for `describe`: curvature is then the surrogate network's.
    """

    name: str = ""
    spiking: bool = False

    def __init__(self) -> None:
        self._subsets: dict[tuple[SplitName, int | None], Split] = {}

    @property
    def enabled(self) -> bool:
        """Whether there is anything to measure."""
        return True

    def measure(self, moment: Moment) -> dict[str, float | int]:
        """The metrics at this moment, plain numbers under stable names."""
        raise NotImplementedError

    def check(self, module: RuleTraining, task: Task) -> None:
        """Find out before training what would fail in it; nothing by default.

        Raises:
            BpgenError: it cannot be measured here, with the reason.
        """

    def describe(self, task: Task) -> str:
        """One line for the log: what is measured, on which subset."""
        return self.name

    def subset(self, moment: Moment, split: SplitName, n: int | None) -> Split:
        """A fixed random subset of a split, the same at every evaluation and under every rule; all of it for None."""
        key = (split, n)
        if key not in self._subsets:
            whole = fitted(moment.task.split(split), moment.module.loss, moment.task.n_out)
            if n is not None and n < whole.size:
                order = torch.randperm(whole.size, generator=generator(moment.module.seed, f"subset {split}"))
                whole = whole.take(order[:n].sort().values)
            device = moment.module.network.W_rec.device
            mask = None if whole.mask is None else whole.mask.to(device)
            self._subsets[key] = Split(whole.x.to(device), whole.target.to(device), mask)
        return self._subsets[key]


def problem_of(module: RuleTraining, split: Split, loss: Loss) -> Problem:
    """The module's network at its present weights, on a split and without noise."""
    network = module.network
    return Problem(network, network.params(), split.x, split.target, loss.with_mask(split.mask))


def size_of(option: str, n: int | None) -> int | None:
    """Check the size of a subset."""
    require(n is None or n >= 0, f"{option} must be a number of samples (0 switches it off), got {n}.")
    return n


@contextmanager
def undisturbed(module: RuleTraining) -> Iterator[None]:
    """Leave mode, gradients and global random states as found, whatever happens inside."""
    python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    modes = [(part, part.training) for part in module.modules()]
    grads = [(p, p.grad) for p in module.parameters()]
    try:
        with torch.enable_grad():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(torch_state)
        for part, training in modes:
            part.training = training
        for p, grad in grads:
            p.grad = grad
