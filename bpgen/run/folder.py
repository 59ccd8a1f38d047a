"""The folder of one run: its format, how it is written, and how it is read back.

    config.yaml   resolved options; `bpgen fit --config RUN/config.yaml` runs it again
    metrics.csv   one complete row per evaluation: where it is, the columns of the measurements, then any further ones
    summary.json  status, last row, seconds, versions, seed, config hash
    data.json     where data of a user's own lie, with a hash     changes.json   what was changed while it went on
    figures/      pictures of the run            weights/      the network at every evaluation
    checkpoints/  what `--resume` needs          wandb/        the W&B run, if any
Nothing here measures or trains.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from bpgen import durable
from bpgen.callbacks.evaluation import Metrics
from bpgen.errors import BpgenError, require
from bpgen.flock import take
from bpgen.network import Network
from bpgen.rules import Rule
from bpgen.run import data, dialect
from bpgen.run.config import HEAD, Config, as_begun
from bpgen.run.files import FORMAT, as_json, read_config
from bpgen.run.table import Table
from bpgen.training.trainer import PREVIOUS

if TYPE_CHECKING:
    from bpgen.figures.cut import Pixels

_KEPT = 2_000_000  # characters of metrics.csv that a checkpoint keeps a copy of
_NEEDED = ("task", "neuron", "rule", "network", "loss", "trainer", "seed")


class RunFolder:
    """Reads and writes one run's folder; `with folder:` is the only process that writes to it."""

    _lock: IO[str]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, config: Config, remembered: str = "") -> RunFolder:
        """A new folder OUT/NAME (`Config.label`), or OUT/NAME-2, -3, ... , with the run's config: none is overwritten.

        Args:
            config: of the run.
            remembered: to know its data by, if they are a user's own; see `bpgen.run.data`.

        Raises:
            BpgenError: the folder cannot be written.
        """
        out, number = Path(config.out).expanduser(), 1
        text = replace(config, name=None).yaml()  # the folder bears it: another run from this config is not that one
        while True:
            path = out / (config.label if number == 1 else f"{config.label}-{number}")
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                if not out.is_dir():
                    raise BpgenError(f"cannot write runs to {out}: it is not a folder. Choose another --out.") from None
                number += 1
            except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
                reason = getattr(error, "strerror", None) or error
                raise BpgenError(
                    f"cannot write runs to {out}: {reason}. Choose a folder you may write, with --out."
                ) from None
        try:
            for part in ("figures", "weights", "checkpoints"):
                durable.make_folder(path / part)
            if remembered:
                durable.write(path / data.FILE, remembered)
            durable.write(path / "config.yaml", text)
        except durable.NotWritten as error:
            shutil.rmtree(path, ignore_errors=True)
            raise BpgenError(f"{error} Make room, or choose another --out.") from None
        return cls(path)

    @classmethod
    def existing(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The folder of a run that is there already.

        Raises:
            BpgenError: it is not a run folder.
        """
        folder = cls(Path(path).expanduser())
        require(
            (folder.path / "config.yaml").is_file(),
            f"{path} is not a run folder: it has no config.yaml. Name a folder that `bpgen fit` wrote.",
        )
        return folder

    # config and summary

    def plain_config(self) -> dict[str, Any]:
        """The resolved config as it stands in the file.

        Raises:
            BpgenError: it is damaged, or not one that a run wrote.
        """
        config = read_config(self.path / "config.yaml")
        missing = [part for part in _NEEDED if part not in config]
        require(not missing, f"{self.path}/config.yaml lacks {', '.join(missing)}: it is not the one the run wrote.")
        return config

    def config(self) -> Config:
        """The resolved config; of a run that began before an option came, with the value that leaves it as it was."""
        return self.placed(self.plain_config())

    def placed(self, plain: Mapping[str, Any]) -> Config:
        """A plain config of the run as a config whose data are found wherever it is read."""
        begun = as_begun(plain)
        known = data.read(self.path).get("places", {})
        return Config.of({**begun, "task": data.placed(begun["task"], known)})

    def write_config(self, plain: Mapping[str, Any]) -> None:
        """Write config.yaml."""
        durable.write(self.path / "config.yaml", HEAD + dialect.written({"format": FORMAT, **plain}))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json; numbers JSON does not know become null."""
        durable.write(self.path / "summary.json", as_json(summary) + "\n")

    def summary(self) -> dict[str, Any]:
        """The summary; empty if the run has written none yet."""
        file = self.path / "summary.json"
        try:
            summary = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        except (OSError, ValueError):
            summary = None
        if not isinstance(summary, dict):
            raise BpgenError(f"{file} is damaged: delete it, and the run can be resumed from its checkpoint.")
        return summary

    def write_figures(self, pictures: Mapping[str, Pixels]) -> None:
        """Write pictures by name."""
        from bpgen.figures.cut import write_png

        for name, picture in pictures.items():
            durable.write(self.path / "figures" / f"{name.replace('/', '_')}.png", partial(write_png, picture))

    # rows

    @property
    def metrics_file(self) -> Path:
        """metrics.csv."""
        return self.path / "metrics.csv"

    @cached_property
    def table(self) -> Table:
        """What it holds."""
        return Table(self.metrics_file)

    def append(self, row: Metrics, columns: Iterable[str] = ()) -> None:
        """Add a row; see `Table.append`."""
        self.table.append(row, columns)

    def columns(self) -> list[str]:
        """Names of the columns of metrics.csv; empty before the first row."""
        return self.table.columns()

    def rows(self) -> list[dict[str, float]]:
        """All rows, as numbers; what was not measured is left out."""
        return self.table.rows()

    # networks

    def save_weights(self, step: int, network: Network, rule: Rule) -> None:
        """Save the network and the rule's own state at an evaluation, so a new measure never needs retraining."""
        states = {"network": network.state_dict(), "rule": rule.state_dict()}
        own = {part: {name: value.clone() for name, value in state.items()} for part, state in states.items()}
        state = {"step": step, **own}  # of a network among several seeds, torch would save those of all
        durable.write(self.path / "weights" / f"step{step:08d}.pt", lambda file: torch.save(state, file))

    def weights(self) -> dict[int, Path]:
        """The saved networks by step."""
        named = ((re.fullmatch(r"step(\d+)", file.stem), file) for file in (self.path / "weights").glob("step*.pt"))
        return dict(sorted((int(name[1]), file) for name, file in named if name))

    # going on

    @property
    def checkpoint(self) -> Path:
        """What `--resume` continues from."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def checkpoints(self) -> list[Path]:
        """Those that are there: the last one, and the one before it, which is kept in case the last is damaged."""
        return [file for file in (self.checkpoint, self.checkpoint.with_name(PREVIOUS)) if file.is_file()]

    def contents(self) -> dict[str, Any]:
        """What a checkpoint remembers of the folder: the rows and the sizes of the saved networks."""
        text = self.table.text
        sizes = {file.name: file.stat().st_size for file in self.weights().values()}
        return {"rows": text.count("\n"), "table": text if len(text) <= _KEPT else None, "weights": sizes}

    def go_back_to(self, step: int, known: Mapping[str, Any]) -> list[str]:
        """Make the folder what it was at a checkpoint; returns a line for everything that is lost.

        A run killed between a row and its checkpoint measures that row again.

        Args:
            step: of the checkpoint.
            known: `contents` at the checkpoint; empty in those of version 0.1.
        """
        text, lost = known.get("table"), []
        self.table.replace(self.table.up_to(step) if text is None else text)
        missing = known.get("rows", 0) - self.table.text.count("\n")
        if missing > 0:
            lost.append(f"{self.metrics_file} lacks {missing} of its rows up to step {step}")
        saved = self.weights()
        for other in [other for other in saved if other > step]:
            saved.pop(other).unlink()
        sizes = {file.name: file.stat().st_size for file in saved.values()}
        damaged = [name for name, size in known.get("weights", {}).items() if sizes.get(name) != size]
        return lost + [f"{self.path / 'weights' / name} is missing or damaged" for name in damaged]

    # one writer

    def __enter__(self) -> RunFolder:
        """Be the only process that writes to the folder, until the end of the `with` block.

        Raises:
            BpgenError: another one does.
        """
        try:
            self._lock = (self.path / ".lock").open("a")
        except OSError as error:
            raise BpgenError(f"cannot write to {self.path}: {error.strerror}.") from None
        if not take(self._lock, exclusive=True, wait=False):
            self._lock.close()
            raise BpgenError(f"{self.path} is being written by another bpgen process: wait until it ends, or stop it.")
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.close()
