"""A lab's own data as one .npz file: bring a task without writing code."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from bpgen.errors import BpgenError, require
from bpgen.streams import generator
from bpgen.tasks.base import SPLITS, Split, SplitName, Task

_SHARES = (0.7, 0.15, 0.15)  # of SPLITS, where the file names none


class Npz(Task):
    """Your own data from one .npz file with the arrays x, y and, if you like, mask and split.

    x: inputs [T, n, I], time first: T steps of n sequences.
    y: whole numbers [n] (one class a sequence, asked at the last step) or [T, n] (a class at every step); or numbers
    [n, O] (values at the last step) or [T, n, O] (at every step), learned with the squared error.
    mask: weights of the steps [T, n], for y at every step.
    split: "train", "val" or "test" for each sequence [n]; without it 70, 15 and 15 % at random.
    `numpy.savez("data.npz", x=x, y=y)` writes such a file.

    Args:
        file: path of the .npz file.
        tolerance: for values: an output counts as right within this distance of its target; null leaves accuracy out.
        data_seed: of the random split.
        noise_sd: standard deviation of the Gaussian noise added to test inputs, in units of x.
    """

    def __init__(self, file: str, tolerance: float | None = None, data_seed: int = 0, noise_sd: float = 0.2) -> None:
        super().__init__(noise_sd)
        require(tolerance is None or tolerance > 0, f"task.tolerance must be > 0, got {tolerance}.")
        self.file, self.data_seed, self.tolerance = Path(file).expanduser(), data_seed, tolerance
        arrays = _read(self.file)
        x, y = arrays["x"], arrays["y"]
        require(
            x.ndim == 3 and x.size > 0,
            f"x in {file} must be [T, n, I] (steps, sequences, inputs), got {list(x.shape)}.",
        )
        T, n, self.n_in = x.shape
        self.n_steps, classes = T, np.issubdtype(y.dtype, np.integer) or y.dtype == bool
        fits = y.shape in ((n,), (T, n)) if classes else y.ndim in (2, 3) and y.shape[:-1] in ((n,), (T, n))
        swapped = "" if y.shape[:1] != (T,) else " Is it x that has its trials first? Then swap: x.swapaxes(0, 1)."
        require(
            fits,
            f"y in {file} must be whole numbers [n] or [T, n], or floating-point numbers [n, O] or [T, n, O], with "
            f"T = {T} and n = {n} as in x; got {y.dtype} {list(y.shape)}.{swapped}",
        )
        require(not classes or y.min() >= 0, f"classes y in {file} must count from 0, got {y.min()}.")
        every_step = y.shape[0] == T and y.ndim == (2 if classes else 3)
        for name, array in (("x", x), ("y", y), ("mask", arrays.get("mask"))):
            require(array is None or bool(np.isfinite(array).all()), f"{name} in {file} holds nan or infinite values.")
        mask, split = arrays.get("mask"), arrays.get("split")
        require(
            mask is None or (every_step and mask.shape == (T, n)),
            f"mask in {file} must be [T, n] = {[T, n]} beside a y at every step.",
        )
        if split is not None:
            require(
                split.shape == (n,) and set(SPLITS) == set(split.astype(str)),
                f"split in {file} must name train, val or test for each of the {n} sequences, and each at least once.",
            )
        require(split is not None or n >= 7, f"{file} holds {n} sequences: too few to split into train, val and test.")
        self.n_out = int(y.max()) + 1 if classes else y.shape[-1]
        self.loss = "cross_entropy" if classes else "mse"  # type: ignore[misc]
        self.when = "all" if every_step else "last"  # type: ignore[misc]
        self._whole = Split(
            torch.from_numpy(np.ascontiguousarray(x, np.float32)),
            torch.from_numpy(np.ascontiguousarray(y, np.int64 if classes else np.float32)),
            None if mask is None else torch.from_numpy(np.ascontiguousarray(mask, np.float32)),
        )
        self._names = split

    def load(self) -> dict[SplitName, Split]:
        """The file's own splits, or random ones."""
        n = self._whole.size
        if self._names is not None:
            names = self._names.astype(str)
            return {name: self._whole.take(torch.from_numpy(np.flatnonzero(names == name))) for name in SPLITS}
        order = torch.randperm(n, generator=generator(self.data_seed, "npz split"))
        train, val = round(_SHARES[0] * n), round(_SHARES[1] * n)
        parts = order.split([train, val, n - train - val])
        return {name: self._whole.take(part) for name, part in zip(SPLITS, parts, strict=True)}


def _read(file: Path) -> dict[str, NDArray[np.generic]]:
    try:
        data = np.load(file)
        require(isinstance(data, NpzFile), f"task.file {file} holds one array: write an .npz file with numpy.savez.")
        with data:
            found = data.files
            arrays = {name: data[name] for name in ("x", "y", "mask", "split") if name in found}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is not an .npz file of numbers"
        raise BpgenError(f"cannot read task.file {file}: {why}. Write it with numpy.savez(file, x=x, y=y).") from None
    missing = [name for name in ("x", "y") if name not in arrays]
    require(not missing, f"task.file {file} lacks {' and '.join(missing)}; it holds {', '.join(found) or 'nothing'}.")
    return arrays
