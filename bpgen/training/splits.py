"""The fixed subsets of training, validation and test sequences that everything is measured on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bpgen.errors import require
from bpgen.losses import Loss
from bpgen.streams import generator
from bpgen.tasks import Split, Task
from bpgen.tasks.base import SplitName
from bpgen.tasks.chance import chance_level
from bpgen.training.loaders import Chunk, as_split, on_device, with_targets_for

if TYPE_CHECKING:
    import lightning.pytorch as pl


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
        return whole if n is None or n >= whole.size else whole.take(_some(whole.size, n, name, seed))

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


class LoaderSplits(Splits):
    """The splits behind a user's own data loaders, whose batches are (x, target) or (x, target, mask), time first.

    Of a `DataLoader` with a sized data set a random subset is taken, of any other iterable the first sequences.

    Args:
        loaders: by split; None or absent where there is none.
        loss: which targets have to fit.
        n_out: number of outputs.
        perturb: noise for test inputs, `perturb(x, generator)`, if there is any.
        tolerance: see `Splits`.
    """

    def __init__(
        self, loaders: Mapping[str, Any], loss: Loss, n_out: int, perturb: Any = None, tolerance: float | None = None
    ) -> None:
        super().__init__()
        self.loaders = {name: loader for name, loader in loaders.items() if loader is not None}
        self.loss, self.n_out, self.tolerance = loss, n_out, tolerance
        self._perturb = perturb
        self.noise_sd = None if perturb is None else float("nan")  # there is some, of a size that nobody told
        self._continuous: bool | None = None

    @property
    def continuous(self) -> bool:
        """See `Splits.continuous`; found out from the data."""
        if self._continuous is None:
            self.draw("train", 1, 0)
        return bool(self._continuous)

    @classmethod
    def of(cls, trainer: pl.Trainer, loss: Loss, n_out: int) -> LoaderSplits:
        """From what a trainer was given to fit with."""
        module: Any = trainer.datamodule  # type: ignore[attr-defined]
        validation = trainer.fit_loop.epoch_loop.val_loop._data_source
        loaders = {
            "train": trainer.train_dataloader,
            "val": _first(validation.dataloader()) if validation.is_defined() else None,
            "test": None if module is None else _test_loader(module),
        }
        return cls(loaders, loss, n_out, getattr(module, "perturb", None), getattr(module, "tolerance", None))

    def size(self, name: SplitName) -> int | None:
        """See `Splits.size`."""
        if name not in self.loaders:
            return 0
        loader = self.loaders[name]
        if isinstance(loader, DataLoader) and loader.batch_size is None:
            return None  # the items of its data are batches
        data: Any = getattr(loader, "dataset", None)
        return len(data) if hasattr(data, "__len__") and hasattr(data, "__getitem__") else None

    def draw(self, name: SplitName, n: int | None, seed: int) -> Split | None:
        """See `Splits.draw`."""
        if name not in self.loaders:
            return None
        loader, size = self.loaders[name], self.size(name)
        if isinstance(loader, DataLoader) and size is not None:
            index = range(size) if n is None or n >= size else _some(size, n, name, seed).tolist()
            loader = DataLoader(loader.dataset, loader.batch_size, sampler=index, collate_fn=loader.collate_fn)
        else:
            sized = n is not None or hasattr(loader, "__len__")
            require(sized, f"the {name} loader has no length: measure a number of samples of it, and not all (null).")
        split = _joined(loader, n)
        self._continuous = split.target.is_floating_point()
        split = with_targets_for(self.loss, split, self.n_out)
        return split if n is None or n >= split.size else split.take(torch.arange(n))

    def perturb(self, x: Tensor, random: torch.Generator) -> Tensor:
        """The data module's own noise."""
        perturbed: Tensor = self._perturb(x, random)
        return perturbed


def _some(size: int, n: int, name: str, seed: int) -> Tensor:
    """n of so many sequences, in their order."""
    return torch.randperm(size, generator=generator(seed, f"subset {name}"))[:n].sort().values


def _joined(loader: Iterable[Any], n: int | None) -> Split:
    """The batches of a loader side by side, as many as hold n sequences."""
    batches: list[Split] = []
    for batch in loader:
        require(not isinstance(batch, Chunk), "a loader of chunks has no whole sequences to measure on.")
        batches.append(as_split(batch))
        if n is not None and sum(b.size for b in batches) >= n:
            break
    require(bool(batches), "a loader gave no batch.")
    masks = [b.mask for b in batches if b.mask is not None]
    return Split(
        torch.cat([b.x for b in batches], 1),
        torch.cat([b.target for b in batches], batches[0].sample_axis),
        torch.cat(masks, 1) if masks else None,
    )


def _test_loader(module: pl.LightningDataModule) -> Any:
    """A data module's loader of test data, which Lightning itself asks for after training only."""
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    try:
        module.setup("test")
        return _first(module.test_dataloader())
    except MisconfigurationException:  # Lightning's word for: not written
        return None


def _first(loaders: Any) -> Any:
    return next(iter(loaders), None) if isinstance(loaders, (list, tuple)) else loaders
