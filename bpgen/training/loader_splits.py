"""The splits behind a user's own data loaders, as measurements see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bpgen.errors import require
from bpgen.losses import Loss
from bpgen.tasks import Split
from bpgen.tasks.base import SplitName
from bpgen.training.loaders import Chunk, as_split, with_targets_for
from bpgen.training.splits import Splits, some

if TYPE_CHECKING:
    import lightning.pytorch as pl


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
            index = range(size) if n is None or n >= size else some(size, n, name, seed).tolist()
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
