"""`bpgen check NAME`: the conformance suite as a readable report."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bpgen.cli import locality
from bpgen.cli.listing import Parser
from bpgen.errors import require

if TYPE_CHECKING:
    from bpgen.conformance import Check, Outcome

_SIGNS = {"pass": "ok", "fail": "FAIL", "declared": "declared", "skipped": "-"}
_WORDS = {"pass": "passed", "fail": "failed", "declared": "declared exceptions", "skipped": "do not apply"}
_EXAMPLES = """\
examples:
  bpgen check rflo                    a rule
  bpgen check tbptt style=sliding     with an option of its constructor
  bpgen check neuron:leaky            the kind is needed only where parts of two kinds share a name
  bpgen check draft.py:MyRule         a class in a file that no package announces
  bpgen check --locality rflo         what an update of one synapse depends on, measured; of every rule: all
"""


def run(argv: list[str]) -> int:
    """Check a part and print the report; 0 if nothing failed, 1 otherwise."""
    parser = Parser(
        prog="bpgen check",
        description="Hold a learning rule, a neuron or a task to the contract of bpgen and to what it claims: one "
        "small check per property, in seconds. Works for a part of yours as soon as its package is installed. In a "
        "test of yours: @pytest.mark.parametrize('check', bpgen.conformance.checks(NAME), ids=str).",
        epilog=_EXAMPLES,
        codes="exit codes: 0 nothing failed, 1 something did, 2 bad input, 130 interrupted.",
    )
    parser.add_argument("name", help="a rule, neuron or task as listed by `bpgen plugins`, or FILE.py:Class")
    parser.add_argument(
        "options", nargs="*", metavar="OPTION=VALUE", help="options of the part, e.g. style=sliding; values as in YAML"
    )
    parser.add_argument("--kind", choices=("rule", "neuron", "task"), help="what NAME is; found from the name else")
    parser.add_argument(
        "--locality",
        action="store_true",
        help="measure what a rule's update of one synapse depends on (later errors, other synapses, other neurons, "
        "the readout weights) beside what its traits say; NAME may be all",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--why", action="store_true", help="say of each check what it protects from")
    options = parser.parse_args(argv)

    given = dict(_option(text) for text in options.options)
    if options.locality:
        require(options.kind in (None, "rule"), "--locality is measured of rules.")
        return locality.run(options.name, given, options.json)
    from bpgen.conformance import plan

    checks = plan(f"{options.kind}:{options.name}" if options.kind else options.name, **given)
    import torch

    torch.set_num_threads(1)  # matrices of five neurons: a second thread only costs time
    outcomes = {}
    for check, outcome in _carried_out(checks, shown=not options.json, why=options.why):
        outcomes[check.name] = outcome
    remarks = checks[0].case.remarks(outcomes)
    if options.json:
        rows = [{"check": c.name, "why": c.why, **outcomes[c.name]._asdict()} for c in checks]
        print(
            json.dumps({"part": checks[0].case.name, "checks": rows, "remarks": remarks}, indent=1, ensure_ascii=False)
        )
    else:
        _conclude(checks[0].case.name, outcomes, remarks)
    return 1 if any(outcome.status == "fail" for outcome in outcomes.values()) else 0


def _carried_out(checks: Sequence[Check], shown: bool, why: bool) -> Iterator[tuple[Check, Outcome]]:
    """Every check with its outcome, printed as it comes; what was said before is not said again."""
    said: set[str] = set()
    for check in checks:
        outcome = check.run()
        if shown:
            again = "the same error" if outcome.status == "fail" else ""
            message = again if _kind_of(outcome.message) in said else outcome.message
            notes = [note for note in (check.why if why else "", message) if note]
            print(f"{_SIGNS[outcome.status]:<9} {check.name}", flush=True)
            for note in notes:
                print(textwrap.fill(note, 118, initial_indent=" " * 12, subsequent_indent=" " * 12))
        said.add(_kind_of(outcome.message))
        yield check, outcome


def _conclude(name: str, outcomes: dict[str, Outcome], remarks: list[str]) -> None:
    """The count, what to look at first, and what the suite found out or could not check."""
    counts: Counter[str] = Counter(outcome.status for outcome in outcomes.values())
    numbers = ", ".join(f"{counts[s]} {words}" for s, words in _WORDS.items() if counts[s] or s == "fail")
    print(f"\n{name}: {numbers}; {sum(o.seconds for o in outcomes.values()):.1f} s")
    failed = [outcome.message for outcome in outcomes.values() if outcome.status == "fail"]
    failures = Counter(map(_kind_of, failed))
    for kind, times in failures.items():
        if times > 1:
            first = next(message for message in failed if _kind_of(message) == kind)
            print(f"{times} checks failed with the same error: {_without_place(first)}")
    if len(failures) > 1:
        print("Begin with the first failure: those after it often follow from it.")
    for line in remarks:
        print(textwrap.fill(line, 118, subsequent_indent="  "))


def _without_place(message: str) -> str:
    """An error without the file and line it comes from."""
    return re.sub(r"\s*\([^()]*, line \d+[^()]*\)", "", message.removeprefix("it raised "))


def _kind_of(message: str) -> str:
    """An error without its numbers, too, which differ from check to check."""
    return re.sub(r"\d[\d.]*(e-?\d+)?", "", _without_place(message))


def _option(text: str) -> tuple[str, object]:
    """`window=3` -> ("window", 3)."""
    from bpgen.run.files import read_value

    name, equals, value = text.partition("=")
    require(bool(equals), f"an option of the part is written OPTION=VALUE, got {text!r}. See `bpgen check --help`.")
    return name.split(".")[-1], read_value(value)
