"""`bpgen reproduce`: the claims of a paper as checks, each with its figure and a verdict from the data."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from bpgen.cli.listing import Parser, table
from bpgen.cli.output import folder
from bpgen.cli.study import RUNS_CODES, add_options, carry_out, command, exit_code, track
from bpgen.errors import require
from bpgen.registry import find, plugins

DESCRIPTION = """\
Run the experiments of a paper and judge its claims from the data: supported, not supported, or undecided at this number
of seeds, each with effect size, interval over seeds and n. The verdict rule is in `bpgen.analysis.verdicts`. The same
command continues where it was stopped, and with more --seeds keeps the runs it has. Without a paper it lists them."""


def run(argv: list[str]) -> int:
    """Run the command."""
    parser = Parser(prog="bpgen reproduce", description=DESCRIPTION, codes=RUNS_CODES, epilog=_sizes(argv))
    parser.add_argument("paper", nargs="?", help=f"which paper: {', '.join(plugins('paper'))}")
    size = parser.add_mutually_exclusive_group()
    for name, text in (("quick", "only what takes minutes and needs no download"), ("full", "all of its settings")):
        size.add_argument(f"--{name}", dest="size", action="store_const", const=name, default="default", help=text)
    parser.add_argument("--data-dir", help="folder with the data that would else be downloaded")
    text = "judge the claims again from table.csv or table.csv.gz of studies, without their runs, and stop"
    parser.add_argument("--from", dest="tables", nargs="+", metavar="TABLE", type=Path, help=text)
    text = "print the claims of studies side by side, from their verdicts.csv, and stop"
    parser.add_argument("--table", dest="folders", nargs="+", metavar="FOLDER", type=Path, help=text)
    add_options(parser, argv)
    options = parser.parse_args(argv)
    if options.paper is None:
        print(f"{table('paper')}\n\nnext: bpgen reproduce NAME --help")
        return 0
    paper = find("paper", options.paper).load()()
    if options.tables or options.folders:
        return _look(paper, options)
    return _reproduce(paper, options, command("reproduce", argv))


def _look(paper: Any, options: Any) -> int:
    """What is there already, judged again or side by side; nothing is run."""
    from bpgen.papers.reproduce import judge_tables
    from bpgen.papers.side_by_side import overview

    if options.tables:
        print(judge_tables(paper, options.tables, Path(options.out) if options.out else None))
    if options.folders:
        print(overview(paper, options.folders), end="")
    return 0


def _reproduce(paper: Any, options: Any, typed: str) -> int:
    from bpgen.papers.reproduce import plan_of, report_paper, size_of, undecided
    from bpgen.papers.side_by_side import FILE, overview

    size = size_of(paper, options.size)
    if size.simulation is not None:
        return _simulate(paper, size, options, typed)
    plans = [plan_of(experiment, options.data_dir) for experiment in size.experiments]
    code, reported = 3, []
    for plan in plans:
        out = options.out if options.out is None or len(plans) == 1 else str(Path(options.out) / plan.name)
        results = carry_out(plan, options, out, partial(undecided, paper))
        if results is not None:
            print(report_paper(paper, results, typed), flush=True)
            track(results, typed)
            reported.append(results)
        code = 0 if results is None else min(code, exit_code(results))
    judged = [results.folder for results in reported if (results.folder / FILE).is_file()]
    if len(judged) > 1:
        file = judged[0].parent / "overview.md"
        file.write_text(overview(paper, judged), encoding="utf-8")
        print(f"\n{file.read_text(encoding='utf-8')}\noverview  {file}")
    return code


def _simulate(paper: Any, size: Any, options: Any, typed: str) -> int:
    """A paper's own simulations, seed after seed."""
    import os

    import pandas as pd

    from bpgen.papers.simulated import report_simulated, simulate

    seeds = size.simulation.seeds if options.seeds is None else options.seeds
    require(seeds >= 1, f"--seeds must be positive, got {seeds}.")
    of_runs = {name: getattr(options, name) for name in ("set", "until", "max_seeds", "retry", "wandb")}
    of_runs |= {"data_dir": options.data_dir, "engine": options.engine if options.engine != "local" else None}
    for name, value in of_runs.items():
        option = f"--{name.replace('_', '-')}"
        require(not value, f"{option} is for runs, and this paper has simulations of its own.")
    if options.dry_run:
        print(f"{seeds} seeds; {size.time}")
        return 0
    out = folder(options.out or str(Path("studies") / options.paper))
    assert out is not None
    done = []
    for rows in simulate(size.simulation, seeds, options.jobs or os.cpu_count() or 1):
        done.append(rows)
        print(f"seed {len(done)} of {seeds} done", file=sys.stderr, flush=True)
    print(report_simulated(paper, size.simulation, pd.concat(done, ignore_index=True), out, typed))
    return 0


def _sizes(argv: list[str]) -> str:
    """For the help on one paper: what it is, and what its sizes run and take."""
    known = plugins("paper")
    name = next((token for token in argv if token in known), None)
    if name is None or not {"-h", "--help"} & set(argv):
        return ""
    paper = known[name].load()
    sizes = {"default" if size == "default" else f"--{size}": value.time for size, value in paper.sizes.items()}
    return "\n".join([f"{name}: {paper.title}", f"  {paper.citation}", *(f"  {k:<8} {v}" for k, v in sizes.items())])
