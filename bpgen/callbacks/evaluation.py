"""One evaluation: where training is, and what there is to measure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from bpgen.curvature.block import Block
from bpgen.network import Network
from bpgen.problem import Problem
from bpgen.tasks import Split
from bpgen.tasks.base import SplitName
from bpgen.training.splits import Splits

if TYPE_CHECKING:
    from bpgen.training.module import RuleTraining

Metrics = dict[str, float | int]  # metrics by the name of their column


@dataclass(frozen=True)
class Evaluation:
    """Where training is: what a measurement is a function of.

    module: network, rule and loss at their present state.
    splits: training, validation and test sequences.
    epoch, step: how far training is. lr: the present learning rate.
    """

    module: RuleTraining
    splits: Splits
    epoch: float = 0.0
    step: int = 0
    lr: float = float("nan")

    @property
    def network(self) -> Network:
        """The network at its present weights."""
        return self.module.network

    @property
    def spiking(self) -> bool:
        """Whether curvature is that of the surrogate network, because the true loss is piecewise constant."""
        return self.network.neuron.spiking

    def subset(self, split: SplitName, n: int | None) -> Split | None:
        """A fixed random subset of a split, the same at every evaluation and under every rule; all of it for None."""
        return self.splits.subset(split, n, self.module.seed)

    def training(self, n: int | None) -> Split:
        """The fixed random subset of the training sequences."""
        split = self.subset("train", n)
        assert split is not None, "there is no training without training sequences"
        return split

    def noisy(self, split: SplitName, n: int | None) -> Split | None:
        """The subset of a split under the test's noise; None without such a split, or without noise."""
        return self.splits.noisy(split, n, self.module.seed)

    def problem(self, split: Split, regulariser: bool = True) -> Problem:
        """The network at its present weights on a split, without noise; with or without the loss's regularisers."""
        loss = self.module.loss if regulariser else self.module.loss.without_regulariser()
        params = self.network.params()
        return Problem(self.network, params, split.x, split.target, loss.with_mask(split.mask))

    def regularisers(self, inside: bool) -> str:
        """In words, whether the loss has regularisers, and whether a measurement keeps them."""
        loss = self.module.loss
        if loss.regulariser is None and loss.activity is None:
            return "no regularisers"
        return f"regularisers {'inside' if inside else 'left out'}"

    def block(self, asked: Block) -> Block:
        """A block of the weights, of which "all" are those that this training changes."""
        return self.module.trained if asked == "all" else asked

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Leave mode, gradients and global random states as found, whatever happens inside."""
        python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        modes = [(part, part.training) for part in self.module.modules()]
        grads = [(p, p.grad) for p in self.module.parameters()]
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
