"""What some folders hold, sorted for a reader: a section for every study, and one for the runs of no study."""

from __future__ import annotations

import math
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd

from bpgen._version import __version__
from bpgen.errors import BpgenError
from bpgen.report.charts import Drawing
from bpgen.report.methods import differing, methods
from bpgen.report.panels import charts
from bpgen.report.verdicts import VerdictRow, verdicts
from bpgen.study.catalogue import ENDED, RunEntry, StudyEntry, entries, studies
from bpgen.study.loading import table_of

_SHOWN = {  # numbers of the table of runs: column of metrics.csv, heading, factor
    "step": ("step", 1),
    "train/loss": ("train loss", 1),
    "test/accuracy": ("test (%)", 100),
    "test/loss": ("test loss", 1),
    "gap_noisy/accuracy": ("gap, noisy (points)", 100),
    "gap_noisy/loss": ("gap, noisy (loss)", 1),
    "sharpness/lambda_max": ("λ_max", 1),
    "sharpness/surrogate/lambda_max": ("λ_max, surrogate", 1),
    "alignment/cosine": ("cosine", 1),
}
_INSTEAD = {"test/loss": "test/accuracy", "gap_noisy/loss": "gap_noisy/accuracy"}  # left out where this is there


@dataclass(frozen=True)
class Row:
    """A run in the table: its number in the page, what it is, how it stands, what it measured last.

    label: what the legend calls its condition. style: that name's number.
    """

    number: int
    entry: RunEntry
    facts: Mapping[str, Any]
    numbers: Mapping[str, float]
    options: Mapping[str, Any]
    label: str
    style: int

    @property
    def name(self) -> str:
        """What hovering a point says first."""
        seed = "" if self.facts["seed"] is None else f", seed {self.facts['seed']}"
        return f"{self.facts['condition']}{seed}"

    @property
    def command(self) -> str:
        """What runs it again."""
        return f"bpgen fit --config {shlex.quote(str(self.entry.path / 'config.yaml'))}"

    @property
    def seconds(self) -> float:
        """How long it took."""
        seconds = self.entry.summary.get("seconds")
        return float(seconds.get("total", math.nan)) if isinstance(seconds, Mapping) else math.nan


@dataclass
class Section:
    """A study, or the runs of no study."""

    title: str
    question: str
    place: str
    rows: list[Row]
    conditions: list[str]
    counts: str
    notes: list[str]
    verdicts: list[VerdictRow]
    about_verdicts: str
    charts: list[tuple[str, list[Drawing]]]
    methods: list[str]
    options: list[tuple[str, str]]
    tuned: pd.DataFrame | None
    commands: list[str]
    pictures: list[Path]
    table: pd.DataFrame = field(repr=False)

    @property
    def columns(self) -> dict[str, tuple[str, float]]:
        """Columns of numbers that some run has."""
        there = {name for row in self.rows for name, value in row.numbers.items() if math.isfinite(value)}
        return {k: v for k, v in _SHOWN.items() if k in there and _INSTEAD.get(k) not in there}

    @property
    def failures(self) -> list[Row]:
        """Runs that did not finish."""
        return [row for row in self.rows if row.entry.status != "finished"]


@dataclass
class Report:
    """Everything a page says."""

    title: str
    sections: list[Section]
    versions: list[tuple[str, str]]
    command: str
    made: str = field(default_factory=lambda: datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"))
    bpgen: str = __version__

    @property
    def n_runs(self) -> int:
        """Runs in all sections."""
        return sum(len(section.rows) for section in self.sections)


def gather(folders: Sequence[str], title: str = "", paper: str | None = None, command: str = "") -> Report:
    """Read folders of runs and studies, whole or partial, and judge what is there.

    Args:
        folders: of runs, of studies, or that hold some.
        title: of the page; by default that of its only study.
        paper: whose claims are judged; by default that of which a study is one of the experiments.
        command: as the user typed it.

    Raises:
        BpgenError: no such folder or paper, or neither a run nor a study in any of them.
    """
    found, known = list(entries(folders)), {_key(study): study for study in studies(folders)}
    known |= {_key(run.study): run.study for run in found if run.study is not None and _key(run.study) not in known}
    if not found and not known:
        raise BpgenError(f"there is neither a run nor a study in {' or '.join(map(str, folders))}.")
    sections, number = [], 0
    for key, study in [*known.items(), ("", None)]:
        own = [run for run in found if (run.study and _key(run.study)) == (study and key)]
        if study is not None or own:
            sections.append(_section(study, own, number, paper))
            number += len(sections[-1].rows)
    names = [s.title for s in sections] if known or len(found) > 1 else [found[0].path.resolve().name]
    return Report(title or (names[0] if len(names) == 1 else ", ".join(names)), sections, _versions(found), command)


def _key(study: StudyEntry) -> str:
    return str(study.path.resolve())


def _section(study: StudyEntry | None, found: Sequence[RunEntry], first: int, paper: str | None) -> Section:
    runs = _in_order(study, [run for run in found if not run.stage])
    table = _told_apart(table_of(runs, "run"), study is None)
    labels = _labels(table) if runs else {}
    rows = [_row(first + i, run, table.iloc[i], labels) for i, run in enumerate(runs)]
    long, repeated = _once(table_of(runs), rows)
    if study is None and not long.empty:
        long["rule"] = long["condition"]  # what tells runs of one's own apart is not their rule alone
    judged, about = verdicts(study, long, paper)
    notes = [f"{repeated} runs repeat another one: the last of each is compared."] if repeated else []
    tuning = sum(bool(run.stage) for run in found)
    notes += [f"{tuning} further runs chose the values tuned on validation data."] if tuning else []
    return Section(
        title="Runs" if study is None else study.name,
        question="" if study is None else str(study.plan.get("question") or ""),
        place="" if study is None else str(study.path),
        rows=rows,
        conditions=list(dict.fromkeys(labels.values())),
        counts=_counts(runs, study),
        notes=notes,
        verdicts=judged,
        about_verdicts=about,
        charts=charts(long, rows),
        methods=methods(runs, study),
        options=differing([run.config for run in runs])[1],
        tuned=_tuned(study),
        commands=[f"bpgen study {shlex.quote(str(study.path / 'plan.yaml'))}"] if study else [r.command for r in rows],
        pictures=[p for run in runs[:4] if (p := run.path / "figures" / "overview.png").is_file() and len(runs) < 4],
        table=long,
    )


def _row(number: int, run: RunEntry, known: pd.Series, labels: Mapping[str, str]) -> Row:
    numbers = {name: float(known[name]) for name in _SHOWN if name in known and pd.notna(known[name])}
    facts = {**run.facts, "condition": known["condition"]}
    label = labels[known["condition"]]
    style = list(dict.fromkeys(labels.values())).index(label)
    return Row(number, run, facts, numbers, _changed(run.config), label, style)


def _labels(table: pd.DataFrame) -> dict[str, str]:
    """What each condition is called in a chart of its setting: its rule, where that tells it apart there."""
    conditions = table.groupby(["task", "alpha"], dropna=False)["condition"].nunique()
    rules = table.groupby(["task", "alpha"], dropna=False)["rule"].nunique()
    name = "rule" if conditions.equals(rules) else "condition"
    return {str(c): str(own[name].iloc[0]) for c, own in table.groupby("condition", sort=False)}


def _in_order(study: StudyEntry | None, runs: list[RunEntry]) -> list[RunEntry]:
    """In the order of the plan, the reference first; seeds rising."""
    if study is None:
        return runs
    planned = list(dict.fromkeys(row.get("condition", "") for row in study.planned))
    axes = study.plan.get("axes")
    values = axes.get("rule", []) if isinstance(axes, Mapping) else []
    rules = [str(v.get("label") or v.get("name")) if isinstance(v, Mapping) else str(v) for v in values]

    def place(run: RunEntry) -> tuple[Any, ...]:
        facts = run.facts
        at = planned.index(facts["condition"]) if facts["condition"] in planned else len(planned)
        rule = rules.index(facts["rule"]) if facts["rule"] in rules else len(rules)
        return (at, rule, str(facts["condition"]), facts["seed"] if isinstance(facts["seed"], int) else 0)

    return sorted(runs, key=place)


def _told_apart(table: pd.DataFrame, loose: bool) -> pd.DataFrame:
    """Runs of no study that share rule, task and alpha but not their options get these into their condition."""
    if not loose or table.empty:
        return table
    options = [c for c in table if "." in c and "/" not in c and not c.endswith((".name", ".seed", ".data_dir"))]
    for _, own in table.groupby(["rule", "task", "alpha"], dropna=False, sort=False):
        varied = [c for c in options if c != "neuron.alpha" and own[c].nunique(dropna=False) > 1][:4]
        for i, row in own.iterrows():
            parts = [str(row["rule"]), *(f"{c.split('.')[-1]}={_plain(row[c])}" for c in varied)]
            table.loc[i, "condition"] = ", ".join(parts)
    return table


def _plain(value: Any) -> str:
    return "none" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)


def _once(table: pd.DataFrame, rows: Sequence[Row]) -> tuple[pd.DataFrame, int]:
    """Rows of one run for each condition, setting and seed, and how many runs were left out."""
    last: dict[Any, str] = {}
    for row in rows:
        key = tuple(row.facts[name] for name in ("condition", "task", "alpha", "seed"))
        if key not in last or row.entry.status in ENDED:
            last[key] = str(row.entry.path)
    if table.empty:
        return table, len(rows) - len(last)
    kept = table[table["run"].isin(last.values())]
    conditions = {str(row.entry.path): row.facts["condition"] for row in rows}
    return kept.assign(condition=kept["run"].map(conditions)), len(rows) - len(last)


def _counts(runs: Sequence[RunEntry], study: StudyEntry | None) -> str:
    count = Counter(run.status for run in runs)
    missing = 0 if study is None else max(0, len(study.planned) - len(runs))
    parts = [*(f"{n} {status}" for status, n in count.items()), *([f"{missing} not begun"] if missing else [])]
    return f"{len(runs)} run{'s' * (len(runs) != 1)}" + (f": {', '.join(parts)}" if parts else "")


def _changed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rule, task and neuron with their options: what the details of a run show."""
    return {part: config[part] for part in ("rule", "task", "neuron", "network", "optimizer") if part in config}


def _tuned(study: StudyEntry | None) -> pd.DataFrame | None:
    """What was tried on validation data, those chosen."""
    file = None if study is None else study.path / "tuning.csv"
    if file is None or not file.is_file():
        return None
    try:
        table = pd.read_csv(file)
    except (ValueError, OSError):
        return None
    return table[table["chosen"].astype(bool)] if "chosen" in table else table


def _versions(runs: Iterable[RunEntry]) -> list[tuple[str, str]]:
    """Every library's versions, and how many runs had each where they differ."""
    seen: dict[str, Counter[str]] = {}
    for run in runs:
        versions = run.summary.get("versions")
        for name, version in (versions if isinstance(versions, Mapping) else {}).items():
            seen.setdefault(str(name), Counter())[str(version)] += 1
    return [
        (name, next(iter(count)) if len(count) == 1 else ", ".join(f"{v} ({n} runs)" for v, n in count.items()))
        for name, count in seen.items()
    ]


def relative(path: Path, to: Path) -> str:
    """A path as a link from the page's folder."""
    return Path(os.path.relpath(path, to)).as_posix()
