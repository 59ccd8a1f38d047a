"""The folder of one run: its format, how it is written, and how it is read back.

    config.yaml   resolved options; `bpgen fit --config RUN/config.yaml` runs it again
    metrics.csv   one complete row per evaluation: where it is, the columns of the measurements, then any further ones
    summary.json  status, last row, seconds, versions, seed, config hash
    figures/      pictures of the run            weights/      the network at every evaluation
    checkpoints/  what `--resume` needs          wandb/        the W&B run, if any
Nothing here measures or trains.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bpgen.callbacks.evaluation import Metrics
from bpgen.errors import BpgenError, require
from bpgen.network import Network
from bpgen.rules import Rule
from bpgen.run.config import Config, as_begun
from bpgen.run.files import read_config

_NEEDED = ("task", "neuron", "rule", "network", "loss", "trainer", "seed")


class RunFolder:
    """Reads and writes one run's folder."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, config: Config) -> RunFolder:
        """A new folder OUT/NAME (`Config.label`), or OUT/NAME-2, -3, ... , with the run's config: none is overwritten.

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
            except OSError as error:
                raise BpgenError(
                    f"cannot write runs to {out}: {error.strerror}. Choose a folder you may write, with --out."
                ) from None
        for part in ("figures", "weights", "checkpoints"):
            (path / part).mkdir()
        (path / "config.yaml").write_text(text, encoding="utf-8")
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
        return Config.of(as_begun(self.plain_config()))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json; numbers JSON does not know become null."""
        text = json.dumps(_finite(summary), indent=2, allow_nan=False)
        _replace(self.path / "summary.json", text + "\n")

    def summary(self) -> dict[str, Any]:
        """The summary; empty if the run has written none yet."""
        file = self.path / "summary.json"
        try:
            return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        except json.JSONDecodeError:
            raise BpgenError(f"{file} is damaged: delete it, and the run can be resumed from its checkpoint.") from None

    # rows

    @property
    def metrics_file(self) -> Path:
        """metrics.csv."""
        return self.path / "metrics.csv"

    def append(self, row: Metrics, columns: Iterable[str] = ()) -> None:
        """Add a row; the first one fixes the columns: these, then any further ones of that row.

        What was not measured stays empty; what a continued run measures beyond its first row is left out.
        """
        columns = self.columns() or list(dict.fromkeys([*columns, *row]))
        new = not self.metrics_file.exists()
        with self.metrics_file.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow({name: _number(value) for name, value in row.items()})

    def columns(self) -> list[str]:
        """Names of the columns of metrics.csv; empty before the first row."""
        if not self.metrics_file.exists():
            return []
        with self.metrics_file.open(newline="", encoding="utf-8") as file:
            return next(csv.reader(file), [])

    def rows(self) -> list[dict[str, float]]:
        """All rows, as numbers; what was not measured is left out."""
        if not self.metrics_file.exists():
            return []
        with self.metrics_file.open(newline="", encoding="utf-8") as file:
            return [{k: float(v) for k, v in row.items() if v != ""} for row in csv.DictReader(file)]

    def forget_after(self, step: int) -> None:
        """Drop rows and weights beyond a step: a run killed between a row and its checkpoint measures them again."""
        if self.metrics_file.exists():
            header, *lines = self.metrics_file.read_text(encoding="utf-8").splitlines(keepends=True)
            at = header.rstrip("\n").split(",").index("step")
            kept = [line for line in lines if line.endswith("\n") and int(line.split(",")[at]) <= step]
            _replace(self.metrics_file, "".join([header, *kept]))
        for other, file in self.weights().items():
            if other > step:
                file.unlink()

    # networks

    def save_weights(self, step: int, network: Network, rule: Rule) -> None:
        """Save the network and the rule's own state at an evaluation, so a new measure never needs retraining."""
        state = {"step": step, "network": network.state_dict(), "rule": rule.state_dict()}
        _whole(self.path / "weights" / f"step{step:08d}.pt", lambda file: torch.save(state, file))

    def weights(self) -> dict[int, Path]:
        """The saved networks by step."""
        return {int(file.stem[4:]): file for file in sorted((self.path / "weights").glob("step*.pt"))}

    @property
    def checkpoint(self) -> Path:
        """What `--resume` continues from."""
        return self.path / "checkpoints" / "last.ckpt"

    def save_checkpoint(self, write: Callable[[Path], object]) -> None:
        """Let a trainer write the checkpoint; until the new one is on the disk, the one before stays."""
        self.checkpoint.parent.mkdir(exist_ok=True)
        _whole(self.checkpoint, write)


def _number(value: float | int) -> str:
    return repr(value) if isinstance(value, int) else repr(float(value))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _replace(file: Path, text: str) -> None:
    _whole(file, lambda part: part.write_text(text, encoding="utf-8"))


def _whole(file: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all: beside its place, onto the disk, and only then into its place."""
    part = file.with_name(file.name + ".part")
    write(part)
    with part.open("rb+") as written:
        os.fsync(written.fileno())
    part.replace(file)
