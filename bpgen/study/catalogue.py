"""Runs and studies as they lie in folders, whole, half done or damaged, read without torch and without their plugins.

A run is a folder with a `config.yaml` that names a rule and a task; a study one with a `plan.yaml` and `runs/`. Nothing
here is written, and nothing that is wrong with one run keeps the others from being read.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from bpgen.errors import require

ENDED = ("finished", "diverged")  # both are data: neither is run again
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast


@dataclass(frozen=True)
class StudyEntry:
    """A study's folder."""

    path: Path

    @cached_property
    def plan(self) -> dict[str, Any]:
        """The plan as it was run; empty where it cannot be read."""
        return _mapping(self.path / "plan.yaml")

    @cached_property
    def name(self) -> str:
        """Of the plan, else of the folder."""
        return str(self.plan.get("name") or self.path.resolve().name)

    @cached_property
    def planned(self) -> list[dict[str, str]]:
        """The rows of runs.csv: what each run of the study is; empty where no call of the study got that far."""
        try:
            with (self.path / "runs.csv").open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error):
            return []

    @cached_property
    def by_hash(self) -> dict[str, dict[str, str]]:
        """The rows of `planned` by the hash of the run's config."""
        return {row.get("config_hash", ""): row for row in self.planned}

    @cached_property
    def by_slug(self) -> dict[str, dict[str, str]]:
        """One row of `planned` for every folder of a condition."""
        return {slug(row.get("condition", "")): row for row in self.planned}


@dataclass(frozen=True)
class RunEntry:
    """A run's folder, and the study it belongs to, if it does.

    problem: why its config or summary cannot be read; else empty.
    """

    path: Path
    study: StudyEntry | None
    config: Mapping[str, Any] = field(repr=False)
    summary: Mapping[str, Any] = field(repr=False)
    problem: str = ""

    @property
    def status(self) -> str:
        """As in its summary; unfinished while it has none (it runs, or was killed), damaged if it cannot be read."""
        return "damaged" if self.problem else str(self.summary.get("status", "unfinished"))

    @property
    def reason(self) -> str:
        """Why it did not finish."""
        return self.problem or str(self.summary.get("message") or "").removeprefix(f"{self.status}: ")

    @property
    def stage(self) -> str:
        """Tuning, or empty for the study proper and for a run of its own."""
        inside = () if self.study is None else Path(os.path.relpath(self.path, self.study.path / "runs")).parts
        return "tuning" if len(inside) > 2 and inside[0] == "tuning" else ""

    @property
    def facts(self) -> dict[str, Any]:
        """Condition, rule, task, alpha and seed, as the tables of a study have them."""
        planned = self._planned
        rule, own_alpha = str(_option(self.config, "rule", "name", "?")), _option(self.config, "neuron", "alpha")
        folder = self.path.parent.name if self.study is not None and not self.stage else ""
        return {
            "study": "" if self.study is None else self.study.name,
            "condition": planned.get("condition") or folder or rule.rpartition(":")[2],
            "rule": planned.get("rule") or rule.rpartition(":")[2],
            "task": str(_option(self.config, "task", "name", "?")).rpartition(":")[2],
            "alpha": own_alpha if isinstance(own_alpha, (int, float)) else None,
            "seed": self.config.get("seed"),
            "reuses_training": planned.get("reuses_training") == "True",
        }

    @cached_property
    def _planned(self) -> Mapping[str, str]:
        if self.study is None or self.stage:
            return {}
        known = self.study.by_hash.get(str(self.summary.get("config_hash", "")))
        return known or self.study.by_slug.get(self.path.parent.name, {})

    @property
    def written(self) -> float:
        """When something of it was last written, in seconds since the epoch."""
        files = [self.path / name for name in ("summary.json", "metrics.csv", "config.yaml")]
        return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)

    def metrics_text(self) -> tuple[str, str]:
        """Header and complete lines of metrics.csv; a line cut by a kill is left out."""
        try:
            text = (self.path / "metrics.csv").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return "", ""
        head, _, body = text.partition("\n")
        return head, body[: body.rfind("\n") + 1]

    def last(self) -> dict[str, float]:
        """The last complete row of metrics.csv."""
        head, body = self.metrics_text()
        lines = body.splitlines()
        cells = zip(head.split(","), lines[-1].split(","), strict=False) if lines else ()
        return {name: number for name, cell in cells if (number := _number(cell)) is not None}


def entries(folders: Iterable[str | os.PathLike[str]]) -> Iterator[RunEntry]:
    """All runs in and below some folders, each once; those of a study know it, also where only a part is named.

    Raises:
        BpgenError: no such folder.
    """
    seen: set[Path] = set()
    for folder in folders:
        top = Path(folder).expanduser()
        require(top.is_dir(), f"there is no folder {folder}: name folders that `bpgen fit` or `bpgen study` wrote.")
        for path, study in _walk(top, _study_above(top)):
            real = path.resolve()
            if real not in seen:
                seen.add(real)
                yield _entry(path, study)


def studies(folders: Iterable[str | os.PathLike[str]]) -> list[StudyEntry]:
    """All studies in and below some folders, those without a run included."""
    found: dict[Path, StudyEntry] = {}
    for folder in folders:
        top = Path(folder).expanduser()
        for here, below, _ in os.walk(top, followlinks=False):
            below[:] = sorted(name for name in below if not _is_run(Path(here) / name))
            if _is_study(Path(here)):
                found.setdefault(Path(here).resolve(), StudyEntry(Path(here)))
                below.clear()
    return list(found.values())


def slug(text: str) -> str:
    """A text as a file name."""
    name = re.sub(r"[^A-Za-z0-9.=]+", "_", text).strip("_")
    return name if name.strip(".") else "_" * len(name)  # dots alone would leave the folder


def _walk(folder: Path, study: StudyEntry | None) -> Iterator[tuple[Path, StudyEntry | None]]:
    if _is_run(folder):
        yield folder, study
        return
    if _is_study(folder):
        study = StudyEntry(folder)
        folder = folder / "runs"
    try:
        below = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return
    for path in below:
        yield from _walk(Path(path), study)


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file()


def _is_study(folder: Path) -> bool:
    return (folder / "plan.yaml").is_file() and (folder / "runs").is_dir()


def _study_above(folder: Path) -> StudyEntry | None:
    """The study in whose `runs/` a folder lies."""
    full = folder.resolve()
    above = next((p.parent for p in (full, *full.parents) if p.name == "runs" and _is_study(p.parent)), None)
    if above is None:
        return None
    return StudyEntry(Path(os.path.normpath(folder / os.path.relpath(above, full))))


def _entry(path: Path, study: StudyEntry | None) -> RunEntry:
    summary: dict[str, Any] = {}
    problem, config = "", _mapping(path / "config.yaml")
    if not isinstance(config.get("rule"), Mapping) or not isinstance(config.get("task"), Mapping):
        problem = "config.yaml is not one that a run wrote"
    file = path / "summary.json"
    if file.is_file():
        try:
            summary = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            problem = problem or "summary.json cannot be read"
    return RunEntry(path, study, config, summary if isinstance(summary, dict) else {}, problem)


def _mapping(file: Path) -> dict[str, Any]:
    """A YAML file as a dictionary; empty where it is none."""
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506  (a SafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _option(config: Mapping[str, Any], group: str, option: str, default: Any = None) -> Any:
    options = config.get(group)
    return options.get(option, default) if isinstance(options, Mapping) else default


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
