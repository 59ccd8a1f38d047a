"""The fixed subsets of training, validation and test sequences that everything is measured on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bpgen.losses import Loss
from bpgen.streams import generator
from bpgen.tasks import Split, Task
from bpgen.tasks.base import SplitName
from bpgen.tasks.chance import chance_level
from bpgen.training.loaders import on_device, with_targets_for

if TYPE_CHECKING:
    pass


class Splits:
    """Training, validation and test sequences as measurements see them: as many as asked for, always the same.

    Attributes:
        device: where subsets are handed out.
        tolerance: within which an output counts as right, for values; None where there is no accuracy.
        noise_sd: of the noise on test inputs; None where there is none.
        clean_gap: True where training and clean test performance can differ, else why they cannot.
    """

    tolerance: float | None = None
    noise_sd: float | None = None
    clean_gap: bool | str = True

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self._subsets: dict[tuple[str, int | None, int], Split | None] = {}

    @property
    def continuous(self) -> bool:
        """Whether targets are values and no classes."""
        raise NotImplementedError

    def size(self, name: SplitName) -> int | None:
        """Number of sequences; None where it is not known, 0 where there is no such split."""
        raise NotImplementedError

    def draw(self, name: SplitName, n: int | None, seed: int) -> Split | None:
        """A fixed random subset, the same under every rule, with targets as the loss wants them; all of it for None."""
        raise NotImplementedError

    def perturb(self, x: Tensor, random: torch.Generator) -> Tensor:
        """Test inputs with the noise of the test."""
        raise NotImplementedError

    @property
    def chance(self) -> float:
        """The accuracy of answering the commonest class always; nan where it is not known, or targets are values."""
        return math.nan

    def ideal(self, split: Split, noisy: bool) -> Split | None:
        """The sequences with the answers of the task's ideal observer for targets; None where nobody knows them."""
        return None

    def subset(self, name: SplitName, n: int | None, seed: int) -> Split | None:
        """What `draw` gives, drawn once; None where there is no such split."""
        key = name, n, seed
        if key not in self._subsets:
            drawn = self.draw(name, n, seed)
            self._subsets[key] = None if drawn is None else on_device(drawn, self.device)
        return self._subsets[key]

    def noisy(self, name: SplitName, n: int | None, seed: int) -> Split | None:
        """The subset of a split under the test's noise; None where there is no such split or no noise."""
        clean = self.subset(name, n, seed)
        if clean is None or self.noise_sd is None:
            return None
        key = f"noisy {name}", n, seed
        if key not in self._subsets:
            purpose = "training noise" if name == "train" else f"{name} noise"
            x = self.perturb(clean.x.cpu(), generator(seed, purpose))
            self._subsets[key] = clean._replace(x=x.to(self.device))
        return self._subsets[key]

    def described(self, name: SplitName, n: int | None) -> str:
        """How many of how many: `512 of 1197 train`."""
        whole = self.size(name)
        return f"{n or 'all'} {name}" if whole is None else f"{min(n or whole, whole)} of {whole} {name}"


class TaskSplits(Splits):
    """The splits of a task.

    Args:
        task: the task.
        loss: which its targets have to fit.
    """

    def __init__(self, task: Task, loss: Loss) -> None:
        super().__init__()
        self.task, self.loss = task, loss
        self.tolerance, self.noise_sd, self.clean_gap = task.tolerance, task.noise_sd, task.clean_gap

    @property
    def continuous(self) -> bool:
        """See `Splits.continuous`."""
        return self.task.split("train").target.is_floating_point()

    def whole(self, name: SplitName) -> Split:
        """All sequences of a split.

        Raises:
            BpgenError: the data are missing, or do not fit the loss.
        """
        return with_targets_for(self.loss, self.task.split(name), self.task.n_out)

    def size(self, name: SplitName) -> int:
        """See `Splits.size`."""
        return self.task.split(name).size if self.task.has(name) else 0

    def draw(self, name: SplitName, n: int | None, seed: int) -> Split | None:
        """See `Splits.draw`."""
        if not self.task.has(name):
            return None
        whole = self.whole(name)
        return whole if n is None or n >= whole.size else whole.take(some(whole.size, n, name, seed))

    def perturb(self, x: Tensor, random: torch.Generator) -> Tensor:
        """The task's own noise."""
        return self.task.perturb(x, random)

    @property
    def chance(self) -> float:
        """See `Splits.chance`."""
        if self.continuous and self.loss.kind != "binary_cross_entropy":
            return math.nan
        asked = self.task.split("test" if self.task.has("test") else "train")
        return chance_level(self.task.loss, self.task.split("train"), asked)

    def ideal(self, split: Split, noisy: bool) -> Split | None:
        """See `Splits.ideal`."""
        answer = self.task.ideal_answer(split.x.cpu(), self.task.noise_sd if noisy else 0.0)
        if answer is None:
            return None
        return on_device(with_targets_for(self.loss, Split(split.x.cpu(), answer, None), self.task.n_out), self.device)


def some(size: int, n: int, name: str, seed: int) -> Tensor:
    """n of so many sequences, in their order."""
    return torch.randperm(size, generator=generator(seed, f"subset {name}"))[:n].sort().values
