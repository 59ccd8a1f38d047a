"""The studies of a paper as plans, and the report of one: the claims first, then what every study says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from bpgen.analysis import sequential
from bpgen.analysis.matching import finished
from bpgen.analysis.sequential import judge_study
from bpgen.errors import BpgenError
from bpgen.papers.base import Experiment, Paper, Size, SizeName
from bpgen.papers.claims import claims_section
from bpgen.run.files import read_config
from bpgen.shipped import find_plan
from bpgen.study.plan import Plan, read_plan
from bpgen.study.registered import changes, plan_hash
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
    judged = not finished(results.table).empty
    claims = claims_section(paper, results.table, results.folder, results.runs) if judged else []
    first = [*_against_registered(paper, results.plan), *claims]
    return report_study(results, command, first, paper.styles, paper.figures)


def undecided(paper: Paper, table: pd.DataFrame) -> set[str]:
    """The conditions of a study that take part in a check of the paper that has no verdict yet."""
    return set() if finished(table).empty else sequential.undecided(judge_study(paper.checks, table), table)


def _against_registered(paper: Paper, plan: Plan) -> list[str]:
    """A sentence on the plan that comes with the paper: its hash, and what the user ran differently."""
    experiments = (experiment for size in paper.sizes.values() for experiment in size.experiments)
    shipped = next((p for p in map(plan_of, experiments) if p.name == plan.name), None)
    if shipped is None:
        return []
    found = changes(shipped.content(), plan.content())
    said = f"run with {'; '.join(found)}" if found else "run as it is"
    return [f"The plan registered with bpgen is {plan_hash(shipped.content())}, {said}.", ""]


def judge_tables(paper: Paper, files: Sequence[Path], out: Path | None) -> str:
    """A paper's claims from tables of studies alone (table.csv or table.csv.gz), without their runs.

    Args:
        paper: whose claims.
        files: the tables; verdicts hang on nothing else.
        out: where verdicts.csv is written, for each file in a folder that is called like the file's.

    Raises:
        BpgenError: a file is no such table.
    """
    parts = []
    for file in files:
        try:
            table = pd.read_csv(file)
            finished(table)["train/loss"]
        except (OSError, ValueError, KeyError) as error:
            raise BpgenError(f"{file} is not the table of a study (table.csv, table.csv.gz): {error}.") from None
        folder = None if out is None else out / file.resolve().parent.name
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        parts += [f"# {file}", "", *claims_section(paper, table, folder)]
    return "\n".join(parts)
