"""What a task is: named splits of sequences, a loss that fits them, and a perturbation of the test set.

Architecture: a task is data and knows no trainer. `bpgen.training` wraps any task for Lightning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from bpgen.errors import BpgenError, choice, require
from bpgen.tasks.chance import chance
from bpgen.tasks.contract import checked_split, checked_splits
from bpgen.tasks.split import SPLITS, Split, SplitName

__all__ = ["SPLITS", "Split", "SplitName", "Task"]


class Task:
    """Base of all tasks; a subclass sets the class facts and writes `load`.

    Class facts: numbers of inputs, outputs and steps; the loss that fits and when it is taken; for continuous targets,
    the `tolerance` within which an output counts as right (None: the task has no accuracy); the `input_range` that
    perturbed inputs are clipped to, for inputs that have one, as pixels do; `reuses_training`, whether validation and
    test may hold sequences of training, because there are too few others or these are what is to be learned; and
    `clean_gap`, True where training and clean test performance of a trained network can differ, else the reason why
    they cannot. `input_names` are for pictures.

    Args:
        noise_sd: how strongly test inputs are perturbed: standard deviation of Gaussian noise, in input units.
    """

    n_in: int
    n_out: int
    n_steps: int
    loss: ClassVar[Literal["cross_entropy", "mse", "binary_cross_entropy"]] = "cross_entropy"
    when: ClassVar[Literal["last", "all"]] = "last"
    input_range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    input_names: Sequence[str] = ()
    tolerance: float | None = None
    reuses_training: bool = False
    clean_gap: bool | str = True
    noise_sd: float = 0.2
    _found: dict[SplitName, Any] | None = None

    def __init__(self, noise_sd: float = 0.2) -> None:
        require(noise_sd >= 0, f"task.noise_sd must be >= 0, got {noise_sd}.")
        self.noise_sd = noise_sd

    def load(self) -> dict[SplitName, Split]:
        """Read or make the data: a `Split` for "train" and, where there are any, for "val" and "test".

        Raises:
            BpgenError: data missing, corrupt or unreadable, with what to do.
        """
        raise NotImplementedError

    def has(self, name: SplitName) -> bool:
        """Whether there is such a split: without one, what would be measured on it is not measured."""
        return choice("split", name, SplitName) in self._loaded()

    def split(self, name: SplitName) -> Split:
        """One split, held to the contract (`bpgen.tasks.contract`); the data are loaded once, at the first call.

        Raises:
            BpgenError: there is no such split, its data cannot be had, or they break the contract.
        """
        require(self.has(name), f"task {type(self).__name__} has no split {name}.")
        if name not in self._checked:
            owner = f"task {type(self).__name__}, split {name}"
            sizes = getattr(self, "n_in", None), getattr(self, "n_out", None)
            self._checked[name] = checked_split(owner, sizes, self._loaded()[name])
        return self._checked[name]

    def trial_info(self, name: SplitName) -> dict[str, NDArray[Any]]:
        """What is known of each sequence of a split beside its inputs and target, [n,...] by name; nothing by default.

        Of drawn trials what they were drawn from, such as the strength of evidence; of a file its further arrays.
        """
        require(self.has(name), f"task {type(self).__name__} has no split {name}.")
        return {}

    def _loaded(self) -> dict[SplitName, Any]:
        if self._found is None:
            self._found = checked_splits(f"task {type(self).__name__}", self.load())
            self._checked: dict[SplitName, Split] = {}
        return self._found

    def stream(self, batch: int, seed: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Endless data, one step at a time from time `start` on: x_t [B,I], target and loss weight [B] of each step.

        Only some tasks have it. A stream depends on (seed, t) alone.

        Raises:
            BpgenError: this task has none.
        """
        raise BpgenError(f"task {type(self).__name__} has no stream: train on its sequences (--trainer.stream false).")

    def perturb(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Inputs with additive Gaussian noise of sd `noise_sd`, clipped to `input_range`.

        For MNIST with sd 0.2 this is the test noise of the released code of Liu et al. 2022. Clipping makes the
        noise of background pixels half-normal, so the mean input rises by 0.4·noise_sd there.
        """
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype) * self.noise_sd
        return (x + noise).clamp(*self.input_range)

    def ideal_answer(self, x: Tensor, noise_sd: float) -> Tensor | None:
        """What an observer answers who knows how trials are made, and the noise, but sees only the inputs x [T,n,I].

        Classes or values, shaped as the targets; None where nobody knows, as of handwriting. What such an observer
        loses under noise, no network can keep: a gap is to be judged beside it.
        """
        return None

    def ideal_accuracy(self, noisy: bool, n: int = 10_000) -> float:
        """The accuracy of that observer on `n` new trials, clean or noisy; nan where none is known."""
        return math.nan

    def describe(self) -> str:
        """Its size, what is reached by chance, and whatever is odd about its data, one line each."""
        sizes = {name: self.split(name).size for name in SPLITS if self.has(name)}
        train = self.split("train")
        kind = ("value", "values") if train.target.is_floating_point() else ("class", "classes")
        kind = ("label", "labels") if self.loss == "binary_cross_entropy" else kind
        asked = f"{self.n_out} {kind[self.n_out > 1]}"
        each = {0: "one a sequence", 1: "one at every step"}[train.sample_axis]
        weighted = "" if train.mask is None or bool((train.mask > 0).all()) else ", at the steps that count"
        first = (
            f"task {type(self).__name__}: T = {len(train.x)} steps, I = {self.n_in} inputs, O = {self.n_out} outputs "
            f"({asked}, {each}{weighted}); sequences: {', '.join(f'{n} {name}' for name, n in sizes.items())}"
        )
        return "\n".join([first, self.chance(), *self.notes()])

    def chance(self) -> str:
        """What is reached without looking at the inputs, in a sentence; on test if there is any."""
        on: SplitName = "test" if self.has("test") else "train"
        return chance(self.loss, self.split("train"), self.split(on), on)

    def notes(self) -> list[str]:
        """What is odd about the data, one line each; nothing by default."""
        return []
