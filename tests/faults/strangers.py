"""Rules that a stranger may have written, wherever a rule is asked for: each has failed itself, and is named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from bpgen.cli import main
from bpgen.errors import BpgenError
from tests.faults.bench import Bench, Row
from tests.faults.broken import begun, config_of, forked, traceback_in
from tests.faults.evil import EVIL, HANGING, IMPORTS, RULES

Act = Callable[[str, Path], int]


def in_a_run(rule: str, out: Path) -> int:
    """`bpgen fit`."""
    try:
        config = config_of("--rule", rule)
    except BpgenError as error:
        print(error)
        return 2
    return begun(config, out)


def in_a_study(rule: str, out: Path) -> int:
    """A run of a study; 2 if it failed."""
    from bpgen.study.launchers.base import Job, execute

    out.mkdir(parents=True)
    config = {"rule": {"name": rule}, "trainer": {"max_steps": 2}, "wandb": "off", "out": str(out / "runs")}
    result = execute(Job("one", config, None, str(out / "log"), str(out / "lock"), 0))
    print(result.message)
    return 2 if result.status == "failed" else 0


def in_rules(rule: str, out: Path) -> int:
    """`bpgen rules NAME`."""
    return main(["rules", rule])


def in_check(rule: str, out: Path) -> int:
    """`bpgen check NAME`; 1 where a check failed."""
    return main(["check", rule])


def strange_rules(bench: Bench, row: Row) -> None:
    """They exit, raise, lie or change what is not theirs, in a run, in a study and where they are checked."""
    file = bench.place / "evil.py"
    file.write_text(EVIL)
    for rule, said in RULES.items():
        for act in (in_a_run, in_a_study):
            _try(bench, row, act, f"{file}:{rule}", said, (2,))
        _try(bench, row, in_check, f"{file}:{rule}", "", (1, 2))
    for act in (in_a_run, in_a_study):
        _try(bench, row, act, f"{file}:Slow", "", (0,))


def strange_imports(bench: Bench, row: Row) -> None:
    """Files that raise, exit or hang when they are imported, or hold something else, wherever a rule is asked for."""
    for number, (kind, (source, said)) in enumerate(IMPORTS.items()):
        file = bench.place / f"import{number}.py"
        file.write_text(source)
        for act in (in_a_run, in_a_study, in_rules, in_check):
            _try(bench, row, act, f"{file}:X", said, (2,), "0.3" if kind in HANGING else "")


def _try(bench: Bench, row: Row, act: Act, rule: str, said: str, codes: tuple[int, ...], limit: str = "") -> None:
    out = bench.room()  # counted here, not in the process of its own

    def tried() -> int:
        os.environ["BPGEN_IMPORT_SECONDS"] = limit
        return act(rule, out)

    ended = forked(tried)
    row.faults += 1
    fine = ended.code in codes and not traceback_in(ended) and said in ended.said
    row.survived += fine
    if not fine:
        row.wrong.append(f"{rule} {act.__name__}: {ended.code}: {ended.said[-300:]}")
