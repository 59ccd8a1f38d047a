"""UCI handwritten digits row by row: 8 steps of 8 pixels, 10 classes; embedded, no download.

Source: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, https://doi.org/10.24432/C50P49, CC BY 4.0: its 1,797 test-set images in the order in which
scikit-learn ships them (see data/README.md).

What was found in these images, and what the splits do about it:

- No two of the 1,797 images are equal; the closest two lie 5.3 apart (Euclidean, pixels 0 to 16).
- They come in 14 runs of about 130 images by one writer of 13 (runs as listed in the scikit-learn MOOC,
  "Sample grouping"). For 53 % of the images the nearest other image is of the same run, where chance is 7 %.
- So there are two questions, and an option that chooses one. held_out="images" (default, the usual random split,
  stratified by class) asks about new digits by the same writers. held_out="writers" cuts every class in the order
  of the file: no run gives images to both training and test (one run is cut between training and validation, one
  between validation and test, or the sizes could not be 300). Unseen writers are harder: one nearest neighbour
  gets 94 % of that test set right, against 98 to 99 % in random splits.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

import numpy as np
import torch

from bpgen.errors import choice, require
from bpgen.streams import generator
from bpgen.tasks.base import SPLITS, Split, SplitName, Task

_SIZES = [1197, 300, 300]  # of SPLITS


HeldOut = Literal["images", "writers"]


class Digits(Task):
    """Handwritten digits of 8x8 pixels, one image row a step, to be named after the last row.

    1,197 training, 300 validation and 300 test images, the same in every run whatever its seed.

    Args:
        held_out: what the test set has that training has not: new images by the same writers, or new writers.
        noise_sd: standard deviation of the Gaussian noise added to test inputs; pixels go from 0 to 1.
        n_train: how many of the training images are trained on: the first of each class, in its share.
    """

    n_in = 8
    n_out = 10
    n_steps = 8
    input_range = (0.0, 1.0)

    def __init__(self, held_out: HeldOut = "images", noise_sd: float = 0.2, n_train: int = _SIZES[0]) -> None:
        super().__init__(noise_sd)
        require(10 <= n_train <= _SIZES[0], f"task.n_train must be between 10 and {_SIZES[0]}, got {n_train}.")
        self.n_train = n_train
        self.held_out = choice("task.held_out", held_out, HeldOut)

    def load(self) -> dict[SplitName, Split]:
        """Images of the package as x float32 [8, n, 8] in [0, 1] and target int64 [n]."""
        with (files("bpgen.tasks") / "data" / "digits.npz").open("rb") as file, np.load(file) as data:
            images = torch.tensor(data["images"])  # [1797, 8, 8], 0 to 16
            labels = torch.tensor(data["labels"])  # [1797]
        whole = Split(images.permute(1, 0, 2) / 16, labels.long())  # x [8, 1797, 8]
        order = torch.arange(len(labels))  # of the file: writer by writer
        if self.held_out == "images":
            order = _shuffled(order, "images")
        train, *held_out = torch.split(order[_in_class_order(labels[order])], _SIZES)
        parts = (train[: self.n_train], *held_out)
        return {name: whole.take(_shuffled(part, name)) for name, part in zip(SPLITS, parts, strict=True)}


def _in_class_order(labels: torch.Tensor) -> torch.Tensor:
    """All indices, sorted by how far into its own class an image stands.

    Any cut of this order holds the classes in their overall proportions, to within one image, and takes each
    class in the order in which it comes.
    """
    position = torch.empty(len(labels), dtype=torch.float64)
    for label in range(10):
        of_class = labels == label
        size = int(of_class.sum())
        position[of_class] = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    return position.argsort(stable=True)


def _shuffled(index: torch.Tensor, name: str) -> torch.Tensor:
    """`index` in a fixed random order, so that the first sequences of a split are not all by one writer."""
    return index[torch.randperm(len(index), generator=generator(0, f"digits {name}"))]
