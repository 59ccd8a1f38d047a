"""A W&B run of a study's own, in the group of its runs: what was found, its figures; report and tables if asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from bpgen.figures.study import PANELS
from bpgen.report.content import gather
from bpgen.report.page import write_report
from bpgen.study.collect import run_table
from bpgen.study.study import StudyResults
from bpgen.tracking.wandb import Tracker

_FILES = ("plan.yaml", "table.csv", "runs.csv", "tuning.csv", "verdicts.csv", "summary.md")


def track_study(results: StudyResults, command: str, say: Callable[[str], None]) -> bool:
    """Track a study as its runs were tracked; returns whether they were.

    Called again for the same study, it goes on in the same W&B run.

    Args:
        results: of the study; its figures are drawn already.
        command: as the user typed it.
        say: where lines for the user go.

    Raises:
        BpgenError: W&B refuses its own settings.
    """
    run, folder, plan = results.runs[0], results.folder, results.plan
    tracking = replace(run.config.tracking, condition=None, job_type="summary")
    tracker = Tracker.of(run.config.wandb, tracking)
    if tracker is None:
        return False
    known = folder / "wandb" / "id.txt"
    run_id = known.read_text(encoding="utf-8") if known.is_file() else None
    logger = tracker.open(folder, {"tracking": {"study": plan.name}, "plan": plan.content()}, say, run_id)
    known.parent.mkdir(exist_ok=True)
    known.write_text(logger.experiment.id, encoding="utf-8")
    logger.log_figures({file: _caption(file, plan.question) for file in sorted((folder / "figures").glob("*.png"))})
    report = gather([str(folder)], command=command)
    found = [verdict for section in report.sections for verdict in section.verdicts]
    said = [plan.question, *(f"{v.claim + ' ' if v.claim else ''}{v.verdict}: {v.text}" for v in found)]
    counts = Counter(run.status for run in results.runs)
    logger.sum_up({f"runs/{status}": n for status, n in counts.items()}, "\n".join(filter(None, said)))
    if tracking.artifacts:
        logger.log_rows("verdicts", [verdict._asdict() for verdict in found])
        logger.log_rows("evaluations", _rows(results.table))
        logger.log_rows("runs", _rows(run_table(results.runs, folder).drop(columns="run")))
        write_report(report, folder / "report.html")
        files = [folder / name for name in (*_FILES, "report.html")]
        contents: dict[str, Path | str] = {f.name: f.read_text(encoding="utf-8") for f in files if f.is_file()}
        logger.keep_files("report", "report", contents)
    logger.finish("finished")
    return True


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table without what is missing in them."""
    records: list[dict[str, Any]] = table.to_dict("records")
    return [{name: value for name, value in row.items() if not _missing(value)} for row in records]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _caption(picture: Path, question: str) -> str:
    panel = PANELS.get(picture.stem)
    shows = (panel.__doc__ or "").partition("\n")[0] if panel else f"{picture.stem.replace('_', ' ')}."
    return f"{shows} {question}".strip()
