"""`bpgen fit` as a process of its own in a home of its own, and W&B without a process for what needs none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import wandb

from bpgen.run.folder import RunFolder

SMALL = (
    *("--alignment.samples", "32", "--sharpness.samples", "32"),
    *("--gap.train_samples", "64", "--gap.test_samples", "64", "--threads", "1"),
)
EPOCH = ("--trainer.max_epochs", "1")
USER, REMOTE = "dulcinea", "https://example.invalid/rocinante.git"


class Run(NamedTuple):
    """A finished process and the run folder it made."""

    code: int
    out: str
    err: str
    folder: RunFolder

    @property
    def wandb(self) -> Path:
        """The W&B run's own folder."""
        (folder,) = (self.folder.path / "wandb").glob("*run-*")
        return folder

    def records(self) -> list[dict[str, Any]]:
        """Everything W&B wrote down, record by record."""
        return [json.loads(line) for line in inspect(self.wandb, "--json").splitlines()]


class Bench:
    """A user's home with a git checkout to work in; nothing of the real user's W&B reaches it."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / USER
        self.work = self.home / "work"
        self.work.mkdir(parents=True)
        git = ("git", "-c", "user.name=x", "-c", "user.email=x")
        for command in ("init -q", f"remote add origin {REMOTE}", "commit -q --allow-empty -m x"):
            subprocess.run([*git, *command.split()], cwd=self.work, check=True)

    def environment(self, **extra: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "XDG_"))}
        here = {"HOME": str(self.home), "NETRC": str(self.home / "netrc"), "USER": USER, "LOGNAME": USER}
        return {**kept, **here, **extra}

    def start(self, *options: str, whole: dict[str, str] | None = None, **environment: str) -> subprocess.Popen[str]:
        """The command, in the usual environment and what is given beside it, or in a `whole` one."""
        return subprocess.Popen(
            [Path(sysconfig.get_path("scripts")) / "bpgen", "fit", *options],
            cwd=self.work,
            env=whole or self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def fit(self, out: str, *options: str, **environment: Any) -> Run:
        runs = self.home / out
        process = self.start(*SMALL, "--out", str(runs), *options, **environment)
        stdout, stderr = process.communicate(timeout=300)
        assert runs.is_dir(), stderr
        (folder,) = runs.iterdir()
        return Run(process.returncode, stdout, stderr, RunFolder(folder))


def wandb_command(at: Path, *arguments: str, **environment: str) -> str:
    """What `wandb ...` prints; it leaves a log in the folder it is called from."""
    command = [sys.executable, "-m", "wandb", *arguments]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}  # not the service of this very process
    environment = {**kept, **environment}
    done = subprocess.run(command, cwd=at, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


def inspect(run: Path, *options: str) -> str:
    return wandb_command(run.parents[3], "leet", "inspect", *options, str(run))


def as_logged(run: RunFolder) -> dict[str, Any]:
    """A run's config as W&B has it where no sweep locks any of it: without its place, with the names of its parts."""
    config = {key: value for key, value in run.plain_config().items() if key != "out"}
    parts = ("rule", "task", "neuron", "optimizer", "schedule")
    return {**config, "names": {part: config[part]["name"] for part in parts}}


class FakeRun:
    """A W&B run that remembers how it was opened."""

    id = "fake"

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.settings = SimpleNamespace(sync_dir="its-own-folder")
        self.logged: dict[str, Any] = {}
        self.config = SimpleNamespace(update=lambda config, allow_val_change: self.logged.update(config))

    def define_metric(self, name: str, **options: Any) -> None:
        pass


def refusing(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> list[str]:
    """Let W&B open offline runs only; the modes it was asked for."""
    modes: list[str] = []

    def init(**options: Any) -> FakeRun:
        modes.append(options["mode"])
        if error is not None and options["mode"] == "online":
            raise error
        return FakeRun(**options)

    monkeypatch.setattr(wandb, "init", init)
    return modes
