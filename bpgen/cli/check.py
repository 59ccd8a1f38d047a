"""`bpgen check NAME`: the conformance suite as a readable report."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from bpgen.cli.listing import Parser
from bpgen.errors import require

_SIGNS = {"pass": "ok", "fail": "FAIL", "declared": "declared", "skipped": "-"}


def run(argv: list[str]) -> int:
    """Check a rule and print the report; 0 if nothing failed, 1 otherwise."""
    parser = Parser(
        prog="bpgen check",
        description="Hold a learning rule to the contract of bpgen and to what its own traits claim: one small check "
        "per property, in seconds. Works for a rule of yours as soon as its package is installed. In a test of yours: "
        "@pytest.mark.parametrize('check', bpgen.conformance.checks(NAME), ids=str).",
        codes="exit codes: 0 nothing failed, 1 something did, 2 bad input, 130 interrupted.",
    )
    parser.add_argument("name", help="a rule as listed by `bpgen rules`")
    parser.add_argument(
        "options", nargs="*", metavar="OPTION=VALUE", help="options of the rule, e.g. style=sliding; values as in YAML"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--why", action="store_true", help="say of each check what it protects from")
    options = parser.parse_args(argv)

    import torch

    from bpgen.rules.conformance import plan

    torch.set_num_threads(1)  # matrices of five neurons: a second thread only costs time
    given = dict(_option(text) for text in options.options)
    checks = plan(options.name, **given)
    rows, seconds = [], 0.0
    for check in checks:
        outcome = check.run()
        seconds += outcome.seconds
        rows.append({"check": check.name, "why": check.why, **outcome._asdict()})
        if not options.json:
            print(f"{_SIGNS[outcome.status]:<9} {check.name}", flush=True)
            for note in ([check.why] if options.why else []) + ([outcome.message] if outcome.message else []):
                print(textwrap.fill(note, 118, initial_indent=" " * 12, subsequent_indent=" " * 12))
    if options.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    counts = {status: sum(row["status"] == status for row in rows) for status in _SIGNS}
    if not options.json:
        words = {"pass": "passed", "fail": "failed", "declared": "declared exceptions", "skipped": "do not apply"}
        told = ", ".join(f"{n} {words[status]}" for status, n in counts.items() if n or status == "fail")
        print(f"\n{checks[0].case.name}: {told}; {seconds:.1f} s")
        if counts["fail"] > 1:
            print("Begin with the first failure: those after it often follow from it.")
        _print_findings(checks[0].case)
    return 1 if counts["fail"] else 0


def _print_findings(case: Any) -> None:
    """What the suite found out by itself, and, last and loudly, what it could not check."""
    from bpgen.rules.conformance import findings

    moved = findings.learned(case) if case.traits.learns else {}
    if moved:
        print("learns: " + ", ".join(f"{name} (moved by {by:.2g} in three batches)" for name, by in moved.items()))
    warning = findings.unchecked(case)
    if not warning:
        return
    lines = [warning, *findings.advice(findings.limits_of(case), findings.nearest_rule(case))]
    print()
    for line in lines:
        print(textwrap.fill(line, 118, subsequent_indent="  "))


def _option(text: str) -> tuple[str, object]:
    """`window=3` -> ("window", 3)."""
    import yaml

    name, equals, value = text.partition("=")
    require(bool(equals), f"an option of the rule is written OPTION=VALUE, got {text!r}. See `bpgen check --help`.")
    return name.removeprefix("rule."), yaml.safe_load(value)
