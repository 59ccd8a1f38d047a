"""`bpgen explain`: which measure of its saved networks explains the gap in a study, sharpness or another."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpgen.cli.listing import Parser
from bpgen.cli.output import folder
from bpgen.errors import choice, require

if TYPE_CHECKING:
    import pandas as pd

DESCRIPTION = """\
Measure the networks that the runs of a study saved, without training again: 15 complexity measures (sharpness of W_rec
and of all weights, trace, norms, distances, margin, ...) and their gaps. Rank the measures by granulated Kendall
correlation with each gap (Jiang et al. 2020, Dziugaite et al. 2020), within rules and across rules, and say which one
beats sharpness, and whether the effect of a rule on the gap passes through it."""

EXAMPLES = """\
examples:
  bpgen explain studies/liu2022_quick                      writes studies/liu2022_quick/explain
  bpgen explain studies/mine --networks matched --jobs 2   only the networks beside a matched loss: much quicker

Stopped, the same command goes on where it was. networks.csv has a row per network, ranking.csv all numbers.
"""


def run(argv: list[str]) -> int:
    """Measure, rank, draw, print."""
    parser = Parser(prog="bpgen explain", description=DESCRIPTION, epilog=EXAMPLES)
    add = parser.add_argument
    add("study", metavar="STUDY", help="folder that `bpgen study` or `bpgen reproduce` wrote, finished or not")
    add("--samples", type=int, default=256, metavar="N", help="training sequences of a measure (default: 256)")
    add("--networks", default="all", choices=("all", "matched"), help="which saved networks (default: all)")
    add("--rules", metavar="NAMES", help="only these, with commas (default: all); the slowest sets the matched losses")
    add("--reference", metavar="RULE", help="rule that mediation compares with (default: the first of the study)")
    add("--jobs", type=int, default=1, metavar="N", help="runs measured at once, one thread each (default: 1)")
    add("--out", metavar="FOLDER", help="where to write (default: STUDY/explain)")
    o = parser.parse_args(argv)
    require(o.samples >= 1, f"--samples must be positive, got {o.samples}.")
    require(o.jobs >= 1, f"--jobs must be positive, got {o.jobs}.")
    study = Path(o.study).expanduser()
    table = chosen(saved_networks(study), o.rules, o.reference)
    out = folder(o.out or str(study / "explain"))
    assert out is not None
    _measure(study, table, out, o)
    return _explain(table, out, o)


def saved_networks(study: Path) -> pd.DataFrame:
    """A row per saved network of the runs that finished.

    Raises:
        BpgenError: not a study, or none of its runs has finished.
    """
    from bpgen.analysis.matching import finished
    from bpgen.cli.options import resolve
    from bpgen.run.files import read_config
    from bpgen.study.collect import evaluation_table
    from bpgen.study.explain import comparable
    from bpgen.study.plan import read_plan
    from bpgen.study.study import Study

    plan = study / "plan.yaml"
    require(plan.is_file(), f"{study} is not a study: it has no plan.yaml. Name a folder that `bpgen study` wrote.")
    planned = Study(read_plan(read_config(plan, "plan"), study.name), study, resolve)
    runs = planned.main_runs(planned.tuning_runs())
    table = finished(evaluation_table(runs, study))
    require(not table.empty, f"no run of {study} has finished: `bpgen study {plan}` carries it out.")
    return comparable(table)


def chosen(table: pd.DataFrame, rules: str | None, reference: str | None) -> pd.DataFrame:
    """The rows of some rules.

    Raises:
        BpgenError: a rule that the study does not have.
    """
    known = list(dict.fromkeys(table["condition"]))
    asked = known if rules is None else [name.strip() for name in rules.split(",") if name.strip()]
    for name in [*asked, *([] if reference is None else [reference])]:
        choice("rule", name, known)
    return table[table["condition"].isin(asked)]


def _measure(study: Path, table: pd.DataFrame, out: Path, o: Any) -> None:
    """Measure what was not measured yet, with a line of progress."""
    from bpgen.analysis.ranking import beside_levels
    from bpgen.study.networks import measure_networks

    asked = table.loc[beside_levels(table)] if o.networks == "matched" else table
    total = None
    for left in measure_networks(study, asked, o.samples, out / "networks.csv", o.jobs):
        total = left if total is None else total
        if total:
            print(f"\rmeasured {total - left} of {total} runs", end="" if left else "\n", file=sys.stderr, flush=True)


def _explain(table: pd.DataFrame, out: Path, o: Any) -> int:
    """Rank, draw and print."""
    from bpgen.complexity import SHARPNESS
    from bpgen.figures.explain import explanation
    from bpgen.study.explain import LABELS, explain, report, write
    from bpgen.study.networks import GAPS, joined, read_networks

    found = explain(joined(table, read_networks(out / "networks.csv"), o.samples), o.reference)
    write(found, out)
    explanation(found.whole, LABELS, GAPS, SHARPNESS).savefig(out / "explain.png")
    text = report(found)
    (out / "explain.md").write_text(text + "\n", encoding="utf-8")
    print(f"{text}\n\nwritten   {out}: networks.csv, ranking.csv, mediation.csv, explain.md, explain.png")
    return 0
