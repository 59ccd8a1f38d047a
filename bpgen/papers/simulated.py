"""Claims that are put to the test by simulations of a paper's own, which are no runs of `bpgen fit`: a theory, say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from bpgen.analysis.verdicts import judge
from bpgen.papers.base import Paper, Simulation
from bpgen.papers.claims import claims_said, verdict_table
from bpgen.papers.side_by_side import FILE, write_verdicts

_VERDICTS = """\
Supported: the data exclude the statement's negation; not supported: they exclude the statement, given the smallest \
effect of interest; undecided: neither; described: no verdict is meant. One-sided tests over seeds at 2.5 %, after \
Holm over the checks of a claim in a setting (`bpgen.analysis.verdicts`)."""


def simulate(simulation: Simulation, seeds: int, jobs: int) -> Iterator[pd.DataFrame]:
    """The rows of seed after seed, `jobs` of them at once with one thread each."""
    from joblib import Parallel, delayed

    work = (delayed(_one_seed)(simulation, seed) for seed in range(seeds))
    yield from Parallel(n_jobs=jobs, return_as="generator")(work)


def _one_seed(simulation: Simulation, seed: int) -> pd.DataFrame:
    import torch

    torch.set_num_threads(1)
    return simulation.of_seed(seed)


def report_simulated(paper: Paper, simulation: Simulation, table: pd.DataFrame, folder: Path, command: str) -> str:
    """The report of a paper's simulations, which is written as summary.md beside table, verdicts and figures."""
    verdicts = judge(paper.checks(table))
    write_verdicts(verdicts, folder, {})
    table.to_csv(folder / "table.csv", index=False)
    (folder / "figures").mkdir(exist_ok=True)
    for name, draw in simulation.figures.items():
        figure: Any = draw(table)
        figure.savefig(folder / "figures" / f"{name}.png")
    lines = [f"# {paper.title}", "", f"`{command}`", "", *claims_said(paper, verdicts), "", verdict_table(verdicts)]
    lines += ["", _VERDICTS, "", paper.remark, "", f"Table, verdicts ({FILE}) and figures: {folder}", ""]
    text = "\n".join(lines)
    (folder / "summary.md").write_text(text, encoding="utf-8")
    return text
