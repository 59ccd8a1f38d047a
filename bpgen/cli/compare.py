"""`bpgen compare`: learning rules over several seeds on the embedded digits, without a plan."""

from __future__ import annotations

from bpgen.cli.listing import Parser
from bpgen.cli.study import RUNS_CODES, add_options, carry_out, command, exit_code, track
from bpgen.cli.study_views import print_results
from bpgen.errors import require
from bpgen.registry import find

DESCRIPTION = """\
Train the same networks on the same batches with several rules and seeds, and compare generalization gap and sharpness
at matched training loss, with intervals over seeds and figures. Embedded digits, shortened: 20 epochs, sharpness on 256
samples, an evaluation every second epoch; `bpgen study` takes any plan."""

SHORT = {
    "trainer.max_epochs": 20,
    "evaluation.every": 150,  # steps; two epochs
    "sharpness.samples": 256,
    "sharpness.tol": 1e-3,
    "alignment.samples": 128,
}


def run(argv: list[str]) -> int:
    """Run the command."""
    parser = Parser(prog="bpgen compare", description=DESCRIPTION, codes=RUNS_CODES)
    parser.add_argument(
        "--rules",
        default="bptt,three_factor,rflo",
        help="rules, the reference first, with commas (default: %(default)s)",
    )
    add_options(parser, argv)
    options = parser.parse_args(argv)
    rules = [rule.strip().replace("-", "_") for rule in options.rules.split(",") if rule.strip()]
    require(bool(rules), "--rules needs names of rules, e.g. --rules bptt,rflo.")
    require(len(set(rules)) == len(rules), f"--rules names a rule twice: {options.rules}.")
    for rule in rules:
        find("rule", rule)  # a misspelt name is refused before anything is imported
    from bpgen.study.plan import Plan

    plan = Plan(
        name=f"compare-{'-'.join(rules)}",
        base=["digits"],
        axes={"rule": list(rules)},
        seeds=list(range(5)),
        overrides=dict(SHORT),
    )
    results = carry_out(plan, options, options.out)
    if results is None:
        return 0
    from bpgen.study.report import report_study

    report_study(results, command("compare", argv))
    track(results, command("compare", argv))
    print_results(results)
    return exit_code(results)
