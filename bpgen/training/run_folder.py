"""The folder of one run: its format, how it is written, and how it is read back.

    config.yaml   resolved options; `bpgen fit --config RUN/config.yaml` runs it again
    metrics.csv   one complete row per evaluation, columns as in COLUMNS, then any further ones
    summary.json  status, last row, seconds, versions, seed, config hash
    figures/      pictures of the run            weights/      the network at every evaluation
    checkpoints/  what `--resume` needs          wandb/        the W&B run, if any
Nothing here measures or trains.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bpgen.errors import BpgenError, require
from bpgen.network import Network
from bpgen.rules import Rule
from bpgen.tasks import Task
from bpgen.training.build import make_network, make_rule, make_task
from bpgen.training.config import dump_config, read_config

COLUMNS = (
    *("epoch", "step", "lr", "train/objective", "train/loss", "train/accuracy", "val/loss", "val/accuracy"),
    *("test/loss", "test/accuracy", "test_noisy/loss", "test_noisy/accuracy"),
    *("gap/loss", "gap/accuracy", "gap_noisy/loss", "gap_noisy/accuracy"),
    *("sharpness/lambda_max", "sharpness/residual", "sharpness/products"),
    *("alignment/rho", "alignment/cosine", "alignment/orthogonal"),
)
Row = dict[str, float | int]


class LoadedRun(NamedTuple):
    """A run read back: network and rule as they were at one evaluation, the task, and the config."""

    network: Network
    rule: Rule
    task: Task
    config: dict[str, Any]


class RunFolder:
    """Reads and writes one run's folder."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, out: str | os.PathLike[str], name: str) -> RunFolder:
        """A new folder OUT/NAME, or OUT/NAME-2, -3, ... : an existing run is never overwritten.

        Raises:
            BpgenError: the folder cannot be written.
        """
        number = 1
        while True:
            path = Path(out).expanduser() / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                require(
                    Path(out).expanduser().is_dir(),
                    f"cannot write runs to {out}: it is not a folder. Choose another --out.",
                )
                number += 1
            except OSError as error:
                raise BpgenError(
                    f"cannot write runs to {out}: {error.strerror}. Choose a folder you may write, with --out."
                ) from None
        for part in ("figures", "weights", "checkpoints"):
            (path / part).mkdir()
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

    def write_config(self, config: dict[str, Any]) -> None:
        """Write config.yaml."""
        (self.path / "config.yaml").write_text(dump_config(config), encoding="utf-8")

    def config(self) -> dict[str, Any]:
        """The resolved config."""
        config = read_config(self.path / "config.yaml")
        missing = [
            part for part in ("task", "neuron", "rule", "network", "loss", "trainer", "seed") if part not in config
        ]
        require(not missing, f"{self.path}/config.yaml lacks {', '.join(missing)}: it is not the one the run wrote.")
        return config

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

    def append(self, row: Row) -> None:
        """Add a row; the first one fixes the columns. What was not measured stays empty."""
        columns = self.columns() or [*COLUMNS, *(name for name in row if name not in COLUMNS)]
        new = not self.metrics_file.exists()
        with self.metrics_file.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
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
        torch.save(state, self.path / "weights" / f"step{step:08d}.pt")

    def weights(self) -> dict[int, Path]:
        """The saved networks by step."""
        return {int(file.stem[4:]): file for file in sorted((self.path / "weights").glob("step*.pt"))}

    @property
    def checkpoint(self) -> Path:
        """What `--resume` continues from."""
        return self.path / "checkpoints" / "last.ckpt"


def load_run(folder: str | os.PathLike[str], step: int | None = None) -> LoadedRun:
    """Network, rule, task and config of a run, as they were at an evaluation.

    Args:
        folder: a folder that `bpgen fit` wrote.
        step: the evaluation's step; the last one by default.

    Raises:
        BpgenError: not a run folder, or nothing was saved at that step.
    """
    run = RunFolder.existing(folder)
    config, saved = run.config(), run.weights()
    require(bool(saved), f"{folder} holds no saved weights yet.")
    step = max(saved) if step is None else step
    require(step in saved, f"{folder} has no evaluation at step {step}; it has {', '.join(map(str, saved))}.")
    state: dict[str, dict[str, Tensor]] = load_file(saved[step], "name another step of the run")
    task = make_task(config)
    network = make_network(config, task)
    rule = make_rule(config)
    try:
        network.load_state_dict(state["network"])
        rule.bind(network, config["seed"]).load_state_dict(state["rule"])
    except RuntimeError:
        raise BpgenError(f"{folder}/config.yaml does not fit the saved weights: was it edited?") from None
    return LoadedRun(network, rule, task, config)


def load_file(file: Path, remedy: str) -> Any:
    """What torch saved in a file.

    Raises:
        BpgenError: the file is damaged; `remedy` says what to do.
    """
    try:
        return torch.load(file, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, OSError, UnpicklingError) as error:
        raise BpgenError(f"{file} is damaged ({type(error).__name__}): {remedy}.") from None


def config_hash(config: dict[str, Any]) -> str:
    """A short name of everything that decides a run's numbers (where it is written and tracked does not)."""
    deciding = {k: v for k, v in config.items() if k not in ("out", "wandb", "tracking")}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:12]


def _number(value: float | int) -> str:
    return repr(value) if isinstance(value, int) else repr(float(value))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _replace(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = file.with_name(file.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)
