"""`bpgen reproduce`: the claims of a paper as checks, each with its figure and a verdict from the data."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from bpgen.cli.listing import Parser
from bpgen.cli.study import RUNS_CODES, add_options, add_seeds, carry_out, exit_code, shipped_plans, with_seeds
from bpgen.errors import unknown

_SAYS = """\
Run the experiment of a paper and judge its claims from the data: supported, not supported, or undecided at this number
of seeds, each with effect size, interval over seeds and n. The verdict rule is in `bpgen.study.verdicts`. The same
command continues where it was stopped, and with more --seeds keeps the runs it has."""

PAPERS = {
    "liu2022": {
        "quick": ["liu2022_quick"],
        "default": ["liu2022"],
        "full": [
            "liu2022_pattern_generation",
            "liu2022_delayed_match_to_sample",
            "liu2022",
            "liu2022_leaky",
        ],  # short first
    }
}


def run(argv: list[str]) -> int:
    """Run the command."""
    parser = Parser(prog="bpgen reproduce", description=_SAYS, codes=RUNS_CODES)
    parser.add_argument("paper", help=f"which paper: {', '.join(PAPERS)}")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", action="store_true", help="embedded digits, alpha 1 and 0.5: about 5 minutes on 2 cores"
    )
    size.add_argument(
        "--full", action="store_true", help="also leaky neurons, pattern generation, delayed match to sample"
    )
    parser.add_argument("--data-dir", help="folder with the MNIST files; without it MNIST is downloaded once")
    add_seeds(parser)
    add_options(parser)
    options = with_seeds(parser.parse_args(argv))
    if options.paper not in PAPERS:
        raise unknown("paper", options.paper, PAPERS)
    mode = "quick" if options.quick else "full" if options.full else "default"
    return _reproduce(PAPERS[options.paper][mode], options, shlex.join(["bpgen", "reproduce", *argv]))


def _reproduce(names: list[str], options: Any, command: str) -> int:
    from bpgen.run.files import read_config
    from bpgen.study.claims import overview
    from bpgen.study.plan import read_plan
    from bpgen.study.report import report_study

    shipped = shipped_plans()
    plans = [read_plan(read_config(shipped[name], "plan"), name) for name in names]
    out, settings, code, reported = options.out, list(options.set), 3, []
    for plan in plans:
        options.set = list(settings)
        if options.data_dir is not None and "liu2022_bptt" in plan.base:
            options.set.append(f"task.data_dir={Path(options.data_dir).expanduser().resolve()}")
        options.out = out if out is None or len(plans) == 1 else str(Path(out) / plan.name)
        done = carry_out(plan, options)
        if done is not None:
            print(report_study(done, command, claims=True), flush=True)
            reported.append(done)
        code = 0 if done is None else min(code, exit_code(done))
    if len(reported) > 1:
        print("\n" + overview(reported, reported[0].folder.parent / "overview.md"))
    return code
