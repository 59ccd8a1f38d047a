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

import pandas as pd

from bpgen._version import __version__
from bpgen.errors import BpgenError
from bpgen.report.charts import Drawing
from bpgen.report.methods import differing, methods
from bpgen.report.panels import charts
from bpgen.report.rows import INSTEAD, SHOWN, Row, in_order, labels_of, once, row_of, told_apart
from bpgen.report.verdicts import VerdictRow, verdicts
from bpgen.study.catalogue import RunEntry, StudyEntry, entries, studies
from bpgen.study.loading import table_of


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
        return {k: v for k, v in SHOWN.items() if k in there and INSTEAD.get(k) not in there}

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
    runs = in_order(study, [run for run in found if not run.stage])
    table = told_apart(table_of(runs, "run"), study is None)
    labels = labels_of(table) if runs else {}
    rows = [row_of(first + i, run, table.iloc[i], labels) for i, run in enumerate(runs)]
    long, repeated = once(table_of(runs), rows)
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


def _counts(runs: Sequence[RunEntry], study: StudyEntry | None) -> str:
    count = Counter(run.status for run in runs)
    left = 0 if study is None else max(0, len(study.planned) - len(runs))
    elsewhere = 0  # of a study of which only a part was named
    if left and study is not None:
        elsewhere = min(left, sum(not run.stage for run in entries([study.path])) - len(runs))
    parts = [*(f"{n} {status}" for status, n in count.items())]
    parts += [f"{n} {what}" for n, what in ((left - elsewhere, "not begun"), (elsewhere, "not shown here")) if n]
    return f"{len(runs)} run{'s' * (len(runs) != 1)}" + (f": {', '.join(parts)}" if parts else "")


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
