"""The studies of a paper as plans, and the report of one: the claims first, then what every study says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bpgen.analysis.matching import finished
from bpgen.errors import BpgenError
from bpgen.papers.base import Experiment, Paper, Size, SizeName
from bpgen.papers.claims import claims_section
from bpgen.run.files import read_config
from bpgen.shipped import find_plan
from bpgen.study.plan import Plan, read_plan
from bpgen.study.report import report_study
from bpgen.study.study import StudyResults


def size_of(paper: Paper, name: SizeName) -> Size:
    """A size of a paper.

    Raises:
        BpgenError: it has none of this name.
    """
    if name not in paper.sizes:
        others = ", ".join("no option" if size == "default" else f"--{size}" for size in paper.sizes)
        raise BpgenError(f"this paper has no studies for --{name}: it has them for {others}.")
    return paper.sizes[name]


def plan_of(experiment: Experiment, data_dir: str | None = None) -> Plan:
    """The plan of an experiment, with the user's data folder where it takes one."""
    if isinstance(experiment.plan, Mapping):
        plan = read_plan(experiment.plan, "study")
    else:
        file = find_plan(str(experiment.plan))
        plan = read_plan(read_config(file, "plan"), file.stem)
    if data_dir is None or not experiment.data_option:
        return plan
    return plan.with_options({experiment.data_option: str(Path(data_dir).expanduser().resolve())})


def report_paper(paper: Paper, results: StudyResults, command: str) -> str:
    """The report of one of a paper's studies, with its claims and in its style."""
    claims = [] if finished(results.table).empty else claims_section(paper, results)
    return report_study(results, command, claims, paper.styles, paper.figures)
