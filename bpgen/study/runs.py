"""The runs of a study and where they stand on disk. A run is known by its config's hash, not by its folder's name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bpgen.run.config import Config, config_hash
from bpgen.run.folder import RunFolder
from bpgen.study import fates
from bpgen.study.catalogue import ENDED, slug
from bpgen.study.launchers import Job
from bpgen.study.locks import RUNS_LOCK
from bpgen.study.plan import Condition


@dataclass
class Run:
    """One run of a study.

    Attributes:
        condition: the cell of the scientific axes it belongs to.
        seed: its seed.
        config: its resolved config; `out` is its place in the study's folder.
        tuned: nuisance parameters it was given.
        stage: "tuning", or empty for the study proper.
        folder: its folder, once there is one.
        status: waiting, interrupted, finished, diverged or failed.
        message: why it did not finish.
        skipped: whether an earlier call of the study had done it.
    """

    condition: Condition
    seed: int
    config: Config
    tuned: dict[str, Any] = field(default_factory=dict)
    stage: str = ""
    folder: RunFolder | None = None
    status: str = "waiting"
    message: str = ""
    skipped: bool = False

    @property
    def kind(self) -> str:
        """Runs of one kind differ in seed and tuned values only, so they take about as long."""
        return f"{self.stage} {self.condition.label}".strip()

    @property
    def hash(self) -> str:
        """The name of everything that decides its numbers."""
        return self.config.hash

    @property
    def name(self) -> str:
        """What logs and messages call it."""
        tuned = "".join(f", {key.split('.')[-1]}={value}" for key, value in self.tuned.items())
        return f"{self.condition.label}{tuned}, seed {self.seed}"

    @property
    def seconds(self) -> float | None:
        """How long it took, if it has ended."""
        if self.folder is None or self.status not in ENDED:
            return None
        return float(self.folder.summary()["seconds"]["total"])

    def job(self, study: Path) -> Job:
        """What a launcher needs to do it."""
        resume = str(self.folder.path) if self.folder is not None and self.folder.checkpoints else None
        logs = study / "logs"
        logs.mkdir(exist_ok=True)
        log = logs / f"{slug(self.name)}-{self.hash}.log"
        return Job(self.hash, self.config.plain(), resume, str(log), str(study / RUNS_LOCK), os.getpid())


def update_status(runs: Iterable[Run], study: Path) -> None:
    """Set the folder and the status of every run from what is on disk."""
    folders, noted = _folders(study), fates.noted(study)
    for run in runs:
        run.folder = folders.get(run.hash)
        summary = {} if run.folder is None else run.folder.summary()
        run.status = summary.get("status", "waiting" if run.folder is None else "interrupted")
        run.message = summary.get("message", "")
        fate = noted.get(run.hash)
        if fate is not None and fate.status == "failed" and run.status not in ENDED:
            run.status, run.message = fate.status, fate.message
        run.skipped = run.status in ENDED


def forget_failed(runs: Iterable[Run], study: Path) -> None:
    """Let runs that failed be done anew: their folders make room. One that was stopped from outside goes on."""
    for run in runs:
        if run.status != "failed" or not (fates.forget(study, run.hash) or run.folder):
            continue
        stopped = run.folder is not None and run.folder.summary().get("status", "interrupted") == "interrupted"
        if run.folder is not None and not stopped:
            shutil.rmtree(run.folder.path)
            run.folder = None
        run.status, run.message = "waiting" if run.folder is None else "interrupted", ""


def _folders(study: Path) -> dict[str, RunFolder]:
    """All run folders of a study by the hash of their config."""
    folders: dict[str, RunFolder] = {}
    for file in sorted((study / "runs").glob("**/config.yaml")):
        folder = RunFolder(file.parent)
        summary = folder.summary()
        name = summary.get("config_hash") or config_hash(folder.plain_config())
        if name not in folders or summary.get("status") in ENDED:
            folders[name] = folder
    return folders
