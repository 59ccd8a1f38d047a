"""A run read back into Python: its network with the weights that act, its activity and its metrics as tables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from bpgen.errors import BpgenError, choice, require
from bpgen.network import Network
from bpgen.rules import Rule
from bpgen.run.folder import RunFolder
from bpgen.tasks import Task
from bpgen.tasks.split import SplitName


class _Parts(NamedTuple):
    network: Network
    rule: Rule
    task: Task
    config: dict[str, Any]


class LoadedRun(_Parts):
    """A run read back: network and rule as they were at one evaluation, the task, and the config.

    `network, rule, task, config = run` takes it apart. `folder` is the run's `RunFolder`.
    """

    folder: RunFolder

    def __repr__(self) -> str:
        parts = f"{self.config['rule']['name']} on {self.config['task']['name']}, seed {self.config['seed']}"
        return f"<run {self.folder.path}: {parts}, {self.status}>"

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights that act, by name: as stored, with zeros where there is no synapse (autapses, sparse, areas).

        `network.W_rec` itself keeps stored entries that never act, which change e.g. its spectral radius.
        """
        return {name: W.clone() for name, W in self.network.masked(self.network.params()).items()}

    @property
    def status(self) -> str:
        """How the run ended; unfinished where it has not."""
        return str(self.folder.summary().get("status", "unfinished"))

    @property
    def metrics(self) -> pd.DataFrame:
        """All evaluations of the run as a table, the columns of metrics.csv; empty before the first."""
        file = self.folder.metrics_file
        return pd.read_csv(file) if file.is_file() else pd.DataFrame()

    def activity(self, split: SplitName = "test", samples: int | None = None) -> Activity:
        """What the neurons do on a split, on inputs as they are and without current noise.

        Args:
            split: train, val or test.
            samples: only the first so many sequences; all by default.

        Raises:
            BpgenError: the task has no such split.
        """
        choice("split", split, SplitName)
        require(self.task.has(split), f"the task {self.config['task']['name']} has no {split} split.")
        data = self.task.split(split)
        some = data.take(torch.arange(min(data.size, data.size if samples is None else samples)))
        with torch.no_grad():
            run = self.network.run(self.network.params(), some.x, when="all", in_place=False)
        x, h, outputs, target = (t.detach().cpu().numpy() for t in (some.x, run.h[1:], run.outputs, some.target))
        mask = None if some.mask is None else some.mask.numpy()
        info = {name: values[: some.size] for name, values in self.task.trial_info(split).items()}
        return Activity(x, h, outputs, target, mask, info)


class Activity(NamedTuple):
    """Activity of some sequences, as arrays.

    x: inputs [T,B,I]. h: activity [T,B,N]. outputs: [T,B,O]. target: as the task has it. mask: weights of the steps
    [T,B], or None. info: what is known of each sequence besides [B,...], by name (`Task.trial_info`).
    """

    x: NDArray[Any]
    h: NDArray[Any]
    outputs: NDArray[Any]
    target: NDArray[Any]
    mask: NDArray[Any] | None = None
    info: Mapping[str, NDArray[Any]] = MappingProxyType({})

    def table(self) -> pd.DataFrame:
        """A row per sequence and time step (from 1): what is known of the sequence, then h0, h1, ... and y0, y1, ..."""
        T, B, N = self.h.shape
        rows = [a.swapaxes(0, 1).reshape(B * T, -1) for a in (self.h, self.outputs)]
        where = pd.DataFrame({"sequence": np.repeat(np.arange(B), T), "t": np.tile(np.arange(1, T + 1), B)})
        known = self.trials().loc[where["sequence"]].reset_index(drop=True)
        names = [f"h{i}" for i in range(N)], [f"y{i}" for i in range(rows[1].shape[1])]
        numbers = (pd.DataFrame(r, columns=n) for r, n in zip(rows, names, strict=True))
        return pd.concat([where, known, *numbers], axis=1)

    def trials(self) -> pd.DataFrame:
        """A row per sequence: what is known of it besides, arrays of several numbers as columns cues0, cues1, ..."""
        columns: dict[str, NDArray[Any]] = {}
        for name, values in self.info.items():
            flat = values.reshape(len(values), -1)
            columns |= {name: values} if values.ndim == 1 else {f"{name}{i}": v for i, v in enumerate(flat.T)}
        return pd.DataFrame(columns, index=range(self.h.shape[1]))

    def save(self, file: str | os.PathLike[str], about: str = "") -> None:
        """Write it: .npz with the arrays x, h, outputs, target, mask, and info_NAME of each; .csv with `table`.

        Args:
            file: where.
            about: a text that says what it is, the array `about` of the .npz.

        Raises:
            BpgenError: another ending, or the file cannot be written.
        """
        path = Path(file).expanduser()
        require(path.suffix in (".npz", ".csv"), f"activity is written as .npz or .csv, got {file}.")
        try:
            if path.suffix == ".csv":
                self.table().to_csv(path, index=False)
                return
            arrays = {name: getattr(self, name) for name in self._fields[:4]}
            arrays |= {} if self.mask is None else {"mask": self.mask}
            arrays |= {f"info_{name}": values for name, values in self.info.items()}
            np.savez_compressed(path, **arrays, about=np.array(about))
        except OSError as error:
            raise BpgenError(f"cannot write {file}: {error.strerror}. Name another file.") from None
