"""`bpgen study`: many runs from one plan, continued where they stopped, collected into one table."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from bpgen.cli.listing import Parser
from bpgen.errors import require, unknown

_SAYS = """\
Run a plan: every condition of its scientific axes with every seed, each run an ordinary `bpgen fit` with its own
folder, nuisance parameters re-tuned per condition on validation data. The same command continues a stopped study: what
has finished is not run again. Ends with one tidy table, figures and a report."""

RUNS_CODES = (
    "exit codes: 0 done (failed and diverged runs: see the report), 2 bad input, 3 no run finished, 130 interrupted."
)


def run(argv: list[str]) -> int:
    """Run the command."""
    parser = Parser(prog="bpgen study", description=_SAYS, codes=RUNS_CODES)
    shipped = ", ".join(shipped_plans())
    parser.add_argument("plan", help=f"the path of a YAML file, or a shipped plan by name: {shipped}")
    add_options(parser)
    add_seeds(parser)
    options = with_seeds(parser.parse_args(argv))
    from bpgen.run.files import read_config
    from bpgen.study.plan import read_plan

    path = find_plan(options.plan)
    plan = read_plan(read_config(path, "plan"), path.stem)
    done = carry_out(plan, options)
    if done is None:
        return 0
    from bpgen.study.report import report_study

    print(report_study(done, command("study", argv)))
    return exit_code(done)


def add_options(parser: Any) -> None:
    """Options that every command with many runs has."""
    parser.add_argument("--out", help="folder of the study (default: studies/NAME)")
    parser.add_argument("--jobs", type=int, help="runs at once, one thread each (default: the number of CPUs)")
    parser.add_argument("--dry-run", action="store_true", help="say what would run and for how long, and stop")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of `bpgen fit` for all runs, or seeds=N; may be given several times",
    )


def add_seeds(parser: Any) -> None:
    """The number of seeds, where a plan has its own."""
    parser.add_argument("--seeds", type=int, help="seeds 0, 1, ... of every condition, instead of the plan's")


def with_seeds(options: Any) -> Any:
    """The same options, the number of seeds among what is set."""
    if options.seeds is not None:
        require(options.seeds >= 1, f"--seeds must be positive, got {options.seeds}.")
        options.set.append(f"seeds={options.seeds}")
    return options


def shipped_plans() -> dict[str, Path]:
    """The plans that come with bpgen, by name."""
    from importlib.resources import files

    folder = Path(str(files("bpgen") / "configs" / "studies"))
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def find_plan(name: str) -> Path:
    """A plan by path, or by the name of a shipped one."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = shipped_plans()
    if name in shipped:
        return shipped[name]
    require(path.suffix not in (".yaml", ".yml"), f"there is no plan file {name}. Shipped: {', '.join(shipped)}.")
    require(not path.is_dir(), f"{name} is a folder: name the plan in it, e.g. {path / 'plan.yaml'}.")
    raise unknown("plan", name, shipped, "Or give the path of a YAML file.")


def carry_out(plan: Any, options: Any) -> Any:
    """Run a plan with the options of the command line; nothing is returned from a dry run."""
    from bpgen.cli.options import resolve
    from bpgen.study.launch import Local
    from bpgen.study.progress import progress
    from bpgen.study.study import Study

    processes = options.jobs if options.jobs is not None else cpus()
    require(processes >= 1, f"--jobs must be positive, got {processes}.")
    plan = plan.with_options(*_settings(options.set))
    study = Study(
        plan, Path(options.out or Path("studies") / plan.name).expanduser(), lambda argv: resolve(argv).plain()
    )
    launcher = Local(processes)
    if options.dry_run:
        _dry_run(study, launcher, processes)
        return None
    return study.run(launcher, progress(), processes)


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def command(name: str, argv: list[str]) -> str:
    """The command as the user typed it."""
    import shlex

    return shlex.join(["bpgen", name, *argv])


def exit_code(done: Any) -> int:
    """0 if any run has finished, 3 if none has."""
    return 0 if any(run.status == "finished" for run in done.runs) else 3


def _settings(pairs: list[str]) -> tuple[dict[str, Any], list[int] | None]:
    """`key=value` arguments as overrides, and seeds if they are among them."""
    overrides: dict[str, Any] = {}
    seeds = None
    for pair in pairs:
        key, equals, value = pair.partition("=")
        require(bool(equals) and bool(key), f"--set needs key=value, e.g. --set optimizer.lr=0.1, got {pair}.")
        key = key.removeprefix("--")
        if key == "seeds":
            seeds = _seeds(value)
        else:
            overrides[key] = value
    return overrides, seeds


def _seeds(text: str) -> list[int]:
    from bpgen.study.plan import read_seeds

    try:
        value = json.loads(text)
    except ValueError:
        value = text
    return read_seeds(value, "seeds")


def _dry_run(study: Any, launcher: Any, processes: int) -> None:
    """Print what would run."""
    from rich.console import Console
    from rich.table import Table

    from bpgen.study.estimate import estimates
    from bpgen.study.progress import duration
    from bpgen.study.runs import ENDED

    tuning = study.tuning_runs()
    runs = study.main_runs(tuning)
    for r in runs:  # what is not tuned yet runs with the base's values
        r.status = "waiting" if r.status == "failed" else r.status
    guess = estimates([*tuning, *runs], launcher)
    table = Table(title=f"{study.plan.name}: what would run", title_justify="left")
    for column in ("condition", "stage", "runs", "done", "to do", "seconds a run", "estimated from"):
        table.add_column(column, justify="right" if column in ("runs", "done", "to do", "seconds a run") else "left")
    work = 0.0
    for stage, group in (("tuning", tuning), ("study", runs)):
        for label in dict.fromkeys(r.condition.label for r in group):
            own = [r for r in group if r.condition.label == label]
            count = Counter("done" if r.status in ENDED else "to do" for r in own)
            known = guess.get(own[0].kind)
            work += count["to do"] * (known.seconds if known else 0.0)
            shown = (f"{known.seconds:.1f}", known.source) if known else ("", "")
            table.add_row(label, stage, str(len(own)), str(count["done"]), str(count["to do"]), *shown)
    Console(highlight=False).print(table)
    print(f"about {duration(work / processes)} with {processes} runs at once, in {study.folder}")
