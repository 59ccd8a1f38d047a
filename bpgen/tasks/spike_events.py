"""Recorded spikes from HDF5 files, in the layout of the Spiking Heidelberg Digits.

Source: B. Cramer, Y. Stradmann, J. Schemmel and F. Zenke, The Heidelberg spiking data sets for the systematic
evaluation of spiking neural networks, IEEE Trans. Neural Netw. Learn. Syst. 33 (2022) 2744: `spikes/units` and
`spikes/times` hold an array for every trial, the input neuron and the time in seconds of each spike, and `labels` its
class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bpgen.errors import BpgenError, choice, require
from bpgen.streams import generator
from bpgen.tasks.base import Split, SplitName, Task
from bpgen.tasks.spikes import perturbed

Asked = Literal["last", "all"]


class Recording(NamedTuple):
    """Spikes of n trials one after the other: trial, unit and time in seconds of each, and the classes [n]."""

    trial: NDArray[np.int64]
    unit: NDArray[np.int64]
    time: NDArray[np.float64]
    labels: NDArray[np.int64]


class SpikeEvents(Task):
    """Recorded spikes of HDF5 files (SHD, SSC, your own in that layout), counted in bins of time, to be classified.

    A file holds `spikes/units`, `spikes/times` (seconds) and `labels`. Needs h5py: pip install 'bpgen[events]'. Test
    inputs are perturbed as spikes: some are deleted, and as many, on average, inserted.

    Args:
        train: path of the file with the training trials.
        test: path of the file with the test trials; null takes 15 % of the training file.
        bin_ms: length of a step in ms.
        duration_ms: of a sequence; later spikes are left out. null is the last spike of the training file.
        units: number of inputs: so many groups of neighbouring units, each counted together; null is one for each unit.
        asked: whether the class is asked at the "last" step or at "all" steps.
        data_seed: of the choice of the 15 % that are for validation.
        noise_sd: the probability that a spike of a test input is deleted.
    """

    def __init__(
        self,
        train: str,
        test: str | None = None,
        bin_ms: float = 10.0,
        duration_ms: float | None = None,
        units: int | None = None,
        asked: Asked = "last",
        data_seed: int = 0,
        noise_sd: float = 0.2,
    ) -> None:
        super().__init__(noise_sd)
        require(noise_sd <= 1, f"task.noise_sd is the probability that a spike is deleted, got {noise_sd}.")
        require(bin_ms > 0, f"task.bin_ms must be > 0, got {bin_ms:g}.")
        require(duration_ms is None or duration_ms > 0, f"task.duration_ms must be > 0, got {duration_ms}.")
        self.when = choice("task.asked", asked, Asked)  # type: ignore[misc]
        self.bin_s, self.data_seed = bin_ms / 1000, data_seed
        self._recordings = {"train": _read(train)} | ({} if test is None else {"test": _read(test)})
        first = self._recordings["train"]
        require(len(first.labels) >= 7, f"task.train {train} holds {len(first.labels)} trials: too few to split.")
        self._found_units = max(int(r.unit.max(initial=0)) for r in self._recordings.values()) + 1
        self.n_in = self._found_units if units is None else units
        require(
            1 <= self.n_in <= self._found_units,
            f"task.units must be in 1..{self._found_units}, the units of the files.",
        )
        seconds = float(first.time.max(initial=0)) + 1e-9 if duration_ms is None else duration_ms / 1000
        self.n_steps = max(1, int(np.ceil(round(seconds / self.bin_s, 6))))
        self.n_out = max(int(r.labels.max()) for r in self._recordings.values()) + 1

    def load(self) -> dict[SplitName, Split]:
        """Counts of spikes x float32 [T,n,I] and classes."""
        train = self._counted(self._recordings["train"])
        order = torch.randperm(train.size, generator=generator(self.data_seed, "spike events"))
        held = round(0.15 * train.size)
        if "test" in self._recordings:
            test = self._counted(self._recordings["test"])
        else:
            test, order = train.take(order[:held]), order[held:]
        return {"train": train.take(order[held:]), "val": train.take(order[:held]), "test": test}

    def perturb(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Every spike is deleted with probability `noise_sd`, and on average as many are inserted."""
        return perturbed(x, self.noise_sd, generator)

    def _counted(self, recording: Recording) -> Split:
        """Spikes counted in bins [T,n,I]."""
        n, step = len(recording.labels), np.floor(recording.time / self.bin_s + 1e-9).astype(np.int64)
        inside = (step >= 0) & (step < self.n_steps)
        channel = recording.unit * self.n_in // self._found_units
        place = (step * n + recording.trial) * self.n_in + channel
        x = np.bincount(place[inside], minlength=self.n_steps * n * self.n_in).astype(np.float32)
        target = torch.from_numpy(recording.labels)
        return Split(
            torch.from_numpy(x).view(self.n_steps, n, self.n_in),
            target if self.when == "last" else target.expand(self.n_steps, n).contiguous(),
        )


def _read(file: str) -> Recording:
    """A file's spikes.

    Raises:
        BpgenError: h5py or the file is missing, or it has another layout, with what was expected.
    """
    try:
        import h5py
    except ImportError:
        raise BpgenError("the task spike_events reads HDF5 files: pip install 'bpgen[events]' (h5py).") from None
    path = Path(file).expanduser()
    try:
        with h5py.File(path, "r") as data:
            missing = [name for name in ("spikes/units", "spikes/times", "labels") if name not in data]
            require(not missing, f"{path} lacks {' and '.join(missing)}; it holds {', '.join(data) or 'nothing'}.")
            units, times, labels = ([*data["spikes/units"]], [*data["spikes/times"]], np.asarray(data["labels"]))
    except OSError as error:
        raise BpgenError(f"cannot read {path}: {error.strerror or 'it is not an HDF5 file'}.") from None
    _check(path, units, times, labels)
    lengths = [len(spikes) for spikes in units]
    trial = np.repeat(np.arange(len(labels)), lengths)
    unit = np.concatenate([np.asarray(u) for u in units]).astype(np.int64)
    return Recording(trial, unit, np.concatenate(times).astype(np.float64), labels.astype(np.int64))


def _check(path: Path, units: list[Any], times: list[Any], labels: NDArray[Any]) -> None:
    """See that trials fit each other.

    Raises:
        BpgenError: they do not.
    """
    n = len(labels)
    require(labels.ndim == 1 and n > 0, f"labels in {path} must be one class for each trial, got {list(labels.shape)}.")
    whole = np.issubdtype(labels.dtype, np.integer) and labels.min() >= 0
    require(whole, f"labels in {path} must be whole numbers from 0 on.")
    require(
        len(units) == len(times) == n,
        f"{path} holds {len(units)} trials of units, {len(times)} of times and {n} labels: they must be as many.",
    )
    for i, (unit, time) in enumerate(zip(units, times, strict=True)):
        u, t = np.asarray(unit), np.asarray(time)
        fine = u.shape == t.shape and u.ndim == 1 and np.issubdtype(u.dtype, np.integer)
        require(fine, f"trial {i} in {path} must have a unit, a whole number, and a time for each spike.")
        sound = bool(np.isfinite(t).all()) and (len(u) == 0 or (u.min() >= 0 and t.min() >= 0))
        require(sound, f"trial {i} in {path} has units or times that are negative or no numbers.")
