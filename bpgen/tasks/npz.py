"""A lab's own data as one .npz file: bring a task without writing code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bpgen.errors import choice, require
from bpgen.streams import generator
from bpgen.tasks import labels
from bpgen.tasks.archive import other_names, read_arrays
from bpgen.tasks.arrays import Asked, asked, checked_inputs, steps_there
from bpgen.tasks.base import SPLITS, Split, SplitName, Task
from bpgen.tasks.contract import checked_split
from bpgen.tasks.trials import DataSeed, fixed

_ARRAYS = ("x", "y", "mask", "lengths", "split")
_SHARES = (0.7, 0.15, 0.15)  # of SPLITS, where the file names none
StepWeights = Literal["mean", "sum"]
ClassWeights = Literal["equal", "balanced"]
MaskWeights = Literal["given", "mean"]


class Npz(Task):
    """Your own data from one .npz file with the arrays x, y and, if you like, mask, lengths and split.

    x: inputs [T, n, I], time first: T steps of n sequences.
    y: whole numbers: the class of each sequence [n], asked at its last step, or of every step [T, n]; or numbers with a
    fraction: values [n] or [n, O] at the last step, [T, n] or [T, n, O] at every step, learned with the squared error;
    or 0 and 1 as whole numbers or booleans [n, O] or [T, n, O]: which of O labels apply, any number of them at once.
    mask: weights of the steps [T, n] for y at every step; beside one y a sequence, 1 at its steps and 0 at padding.
    lengths: steps of each sequence [n], where they differ; what comes after is padding, and may be NaN.
    split: "train", "val" or "test" for each sequence [n], the last two if you like: a gap without a test split is not
    measured. Without it 70, 15 and 15 % at random.
    Further arrays with an entry for each sequence [n,...], such as coherence or subject, are not learned from; they
    come with the activity of a run (`bpgen activity`).
    `numpy.savez("data.npz", x=x, y=y)` writes such a file.

    Args:
        file: path of the .npz file.
        tolerance: for values: an output counts as right within this distance of its target; null leaves accuracy out.
        step_weights: of values at every step without a mask: "mean" is the loss of a step on average, "sum" adds the
            steps up, as version 0.1 did: then the learning rate that works falls with the number of steps.
        class_weights: "balanced" weighs every class of the training set as much as any other, "equal" every sequence.
        data_seed: of the random split; "run" is the seed of the run.
        noise_sd: standard deviation of the Gaussian noise added to test inputs, in units of x.
        mask_weights: "mean" divides the weights of each sequence by their sum, so that a mask of ones is no mask; as
            "given", which version 0.1 took, a mask of ones is T times no mask, and needs a smaller learning rate.
    """

    def __init__(
        self,
        file: str,
        tolerance: float | None = None,
        step_weights: StepWeights = "mean",
        class_weights: ClassWeights = "equal",
        data_seed: DataSeed = 0,
        noise_sd: float = 0.2,
        mask_weights: MaskWeights = "mean",
    ) -> None:
        super().__init__(noise_sd)
        require(tolerance is None or tolerance > 0, f"task.tolerance must be > 0, got {tolerance}.")
        self.step_weights = choice("task.step_weights", step_weights, StepWeights)
        self.class_weights = choice("task.class_weights", class_weights, ClassWeights)
        self.mask_weights = choice("task.mask_weights", mask_weights, MaskWeights)
        self.file, self.data_seed, self.tolerance = Path(file).expanduser(), fixed(data_seed), tolerance
        arrays = read_arrays(self.file, _ARRAYS[:2], _ARRAYS[2:])
        x = checked_inputs(arrays["x"], arrays["y"], f"x in {file}")
        self.n_steps, n, self.n_in = x.shape
        self._names = None if "split" not in arrays else _split_names(arrays["split"], n, str(file))
        require(
            self._names is not None or n >= 7,
            f"{file} holds {n} sequences: too few to split at random. Name the split of each in an array `split`, e.g. "
            f"all of them 'train'.",
        )
        answers = asked(arrays["y"], x.shape, f"y in {file}")
        there = steps_there(arrays, x.shape, answers.timed, str(file))
        require(
            answers.loss == "cross_entropy" or class_weights == "equal",
            "task.class_weights are for classes, of which y holds none.",
        )
        self.loss = answers.loss  # type: ignore[misc]
        self._whole = self._weighted(self._cleaned(x, answers, there), answers, there, arrays.get("mask"))
        self._adds_up = answers.timed and "mask" in arrays and self.mask_weights == "given"
        self.when = "last" if self._whole.mask is None and not answers.timed else "all"  # type: ignore[misc]

    def _cleaned(self, x: NDArray[Any], answers: Asked, there: Tensor | None) -> Split:
        """All sequences, held to the contract, their padding 0."""
        y, loss, timed = answers
        classes = loss == "cross_entropy"
        counted = y if there is None or not timed else y[there.numpy()]
        self.n_out = labels.n_classes(counted, f"classes y in {self.file}") if classes else y.shape[-1]
        self._gaps = labels.gaps(counted, self.n_out) if classes else ""
        cover = None if there is None else there.float()
        return checked_split(f"task.file {self.file}", (self.n_in, self.n_out), (x, y, cover))

    def _weighted(self, clean: Split, answers: Asked, there: Tensor | None, mask: NDArray[Any] | None) -> Split:
        """The same with the weights that their steps have in the loss; None for those that it gives by itself."""
        x, target, _ = clean
        T, n = x.shape[:2]
        balanced = self.class_weights == "balanced"
        if not answers.timed:
            if there is None and not balanced:
                return Split(x, target)
            return Split(x, target.expand(T, *target.shape), _last(torch.ones(T, n) if there is None else there))
        if mask is not None:
            weights = torch.from_numpy(mask.astype(np.float32))
            weights = weights if there is None else weights * there
            shared = self.mask_weights == "mean"
            return Split(x, target, weights / weights.sum(0).clamp(min=1e-30) if shared else weights)
        summed = self.loss == "mse" and self.step_weights == "sum"
        if there is None:
            even = not summed and (self.loss == "mse" or balanced)
            return Split(x, target, torch.full((T, n), 1 / T) if even else None)
        return Split(x, target, there.float() if summed else there / there.sum(0))

    def load(self) -> dict[SplitName, Split]:
        """The file's own splits, or random ones."""
        splits = {name: self._whole.take(part) for name, part in self._parts().items() if len(part)}
        if self.class_weights == "equal":
            return splits
        weights = _balanced(splits["train"], self.n_out)
        return {name: _reweighted(split, weights) for name, split in splits.items()}

    def trial_info(self, name: SplitName) -> dict[str, NDArray[Any]]:
        """The place of each sequence in the file, and its entry in every further array of the file [n,...]."""
        super().trial_info(name)
        part, n = self._parts()[name].numpy(), self._whole.size
        others = read_arrays(self.file, (), other_names(self.file, _ARRAYS))
        return {"place": part, **{key: array[part] for key, array in others.items() if array.shape[:1] == (n,)}}

    def _parts(self) -> dict[SplitName, Tensor]:
        """The places in the file of the sequences of each split."""
        n = self._whole.size
        if self._names is not None:
            return {name: torch.from_numpy(np.flatnonzero(self._names == name)) for name in SPLITS}
        order = torch.randperm(n, generator=generator(self.data_seed, "npz split"))
        train, val = (round(share * n) for share in _SHARES[:2])
        return dict(zip(SPLITS, order.split([train, val, n - train - val]), strict=True))

    def notes(self) -> list[str]:
        """Axes that may be swapped; a mask that adds steps up; classes that never occur, or not in training; scales."""
        found = [] if not self._gaps else [self._gaps]
        train, n = self.split("train"), self._whole.size
        if self.n_steps > n:
            found.append(
                f"{self.n_steps} steps of only {n} sequences: do trials come first in x? Then swap its axes, "
                f"x.swapaxes(0, 1)"
            )
        if self.loss == "binary_cross_entropy" and self.when == "last" and self.n_out == self.n_steps:
            found.append(
                f"y [{n}, {self.n_out}] is read as {self.n_out} labels of each sequence; if it holds the class of "
                f"every step, swap its axes: y.T"
            )
        if self._adds_up and train.mask is not None and (steps := float(train.mask.sum(0).mean())) > 2:
            found.append(
                f"the weights of the mask are {steps:.3g} a sequence, and the loss adds them up; "
                f"--task.mask_weights mean makes it that of a step on average, for which usual learning rates are"
            )
        for name, values in (("x", train.x), ("y", train.target if self.loss == "mse" else None)):
            size = 1.0 if values is None else float(values.square().mean().sqrt())
            if not 0.03 < size < 10:
                found.append(f"{name} is about {size:.2g}: learning rates and initial weights are for numbers about 1")
        if self.loss == "cross_entropy":
            asked = {name: _counted(self.split(name)) for name in SPLITS if self.has(name)}
            found += labels.not_trained(asked.pop("train"), asked)
        return found


def _last(there: Tensor) -> Tensor:
    """Weight 1 at the last step of each sequence [T,n]."""
    T = len(there)
    last = T - 1 - there.flip(0).to(torch.uint8).argmax(0)
    return (torch.arange(T).unsqueeze(1) == last).float()


def _counted(split: Split) -> NDArray[Any]:
    """The classes of the steps that count."""
    counted: NDArray[Any] = (split.target if split.mask is None else split.target[split.mask > 0]).numpy()
    return counted


def _balanced(train: Split, n_out: int) -> Tensor:
    """Weights of the classes [O] that make each count as much as any other, and leave the sum of all as it is."""
    assert train.mask is not None
    total = torch.bincount(train.target.flatten(), train.mask.flatten(), minlength=n_out)
    there = total > 0
    return torch.where(there, total.sum() / (there.sum() * total.clamp_min(1e-30)), 1.0).float()


def _reweighted(split: Split, weights: Tensor) -> Split:
    assert split.mask is not None
    return split._replace(mask=split.mask * weights[split.target])


def _split_names(names: NDArray[Any], n: int, file: str) -> NDArray[np.str_]:
    """The split of each sequence."""
    try:
        as_text = names.astype(str) if names.dtype.kind in "US" else np.full(names.shape, str(names.dtype))
    except ValueError:  # bytes that are no text
        as_text = np.full(names.shape, "?")
    strange = sorted(set(as_text.flatten().tolist()) - set(SPLITS))
    got = f", got {', '.join(map(repr, strange[:3]))}" if strange else f", got {list(names.shape)}"
    require(
        names.shape == (n,) and not strange,
        f"split in {file} must name train, val or test for each of the {n} sequences{got}.",
    )
    require("train" in as_text, f"split in {file} leaves no sequence for train: nothing can be learned.")
    return as_text
