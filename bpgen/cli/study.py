"""`bpgen study`: many runs from one plan, continued where they stopped, collected into one table."""

from __future__ import annotations

import argparse
import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Any, get_args

from bpgen.cli import study_views
from bpgen.cli.listing import Parser
from bpgen.cli.output import console
from bpgen.errors import choice, require
from bpgen.registry import find, plugins
from bpgen.shipped import find_plan, plans
from bpgen.signatures import check_options, options_of
from bpgen.tracking.own_settings import Mode

DESCRIPTION = """\
Run a plan: every condition of its scientific axes with every seed, each run an ordinary `bpgen fit` with its own
folder, nuisance parameters re-tuned per condition on validation data. The same command continues a stopped study: what
has finished is not run again. Ends with one tidy table, figures and a report."""

EXAMPLE = """\
a plan, e.g. leak.yaml:
  name: leak
  question: Does the leak matter?
  base: digits                                  # a config: shipped, or a file
  set: {trainer.max_epochs: 5}                  # options of `bpgen fit`, the same for all runs
  axes: {rule: [bptt, rflo], neuron.alpha: [1.0, 0.5]}
  seeds: 3

examples:
  bpgen study leak.yaml --dry-run               what would run, and for how long
  bpgen study leak.yaml --sweep sweep.yaml      the same runs for agents of W&B"""

RUNS_CODES = (
    "exit codes: 0 done (failed and diverged runs: see the report), 2 bad input, 3 no run finished, 130 interrupted."
)


def run(argv: list[str]) -> int:
    """Run the command."""
    parser = Parser(prog="bpgen study", description=DESCRIPTION, epilog=EXAMPLE, codes=RUNS_CODES)
    parser.add_argument("plan", help=f"the path of a YAML file, or a shipped plan by name: {', '.join(plans())}")
    add_options(parser, argv)
    view = parser.add_mutually_exclusive_group()
    view.add_argument("--status", action="store_true", help="say how the study stands, and stop; from any shell")
    text = "print every run that is left as a `bpgen fit` command, and stop: for a shell loop or GNU parallel"
    view.add_argument("--commands", action="store_true", help=text)
    text = "write a W&B sweep file whose agents do the runs that are left, and stop"
    view.add_argument("--sweep", metavar="FILE", help=text)
    options = parser.parse_args(argv)
    from bpgen.run.files import read_config
    from bpgen.study.plan import read_plan

    path = find_plan(options.plan)
    results = carry_out(read_plan(read_config(path, "plan"), path.stem), options, options.out)
    if results is None:
        return 0
    from bpgen.study.report import report_study

    report_study(results, command("study", argv))
    track(results, command("study", argv))
    study_views.print_results(results)
    return exit_code(results)


def add_options(parser: Any, argv: list[str]) -> None:
    """Options that every command with many runs has, those of the engine that the command line names included."""
    add = parser.add_argument
    add("--out", help="folder of the study (default: studies/NAME)")
    add("--seeds", type=int, help="seeds 0, 1, ... of every condition, instead of the plan's")
    text = "add seeds in planned looks and stop where every check has its verdict, at the error rates of one look"
    add("--until", choices=["decided"], help=text)
    add("--max-seeds", type=int, metavar="N", help="with --until decided: seeds at the last look (default: 64)")
    add("--jobs", type=int, help="runs at once, one thread each (default: the number of CPUs)")
    add("--retry", action="store_true", help="do runs again that failed before")
    add("--dry-run", action="store_true", help="say what would run and for how long, and stop")
    text = f"track every run in one W&B group, and the study itself: {', '.join(get_args(Mode))} (default: off)"
    add("--wandb", metavar="MODE", help=text)
    text = "an option of `bpgen fit` for all runs, or seeds=N; may be given several times"
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    text = f"where the runs are done: {', '.join(plugins('launcher'))} (default: local)"
    add("--engine", default="local", metavar="NAME", help=text)
    for option in options_of(find("launcher", _engine_named(argv)).load()):
        default = "required" if option.required else f"default: {'none' if option.default is None else option.default}"
        add(f"--engine.{option.name}", metavar="VALUE", help=f"{option.text} ({default})".replace("%", "%%"))


def carry_out(plan: Any, options: Any, out: str | None, undecided: Any = None) -> Any:
    """Run a plan with the options of the command line; nothing is returned where it is only looked at.

    Args:
        plan: what to run.
        options: of the command line.
        out: the study's folder.
        undecided: from the table to the conditions that need more seeds; None for what a study without claims compares.
    """
    from bpgen.cli.options import resolve
    from bpgen.study.conclusions import undecided as between_conditions
    from bpgen.study.progress import progress_display
    from bpgen.study.study import Study
    from bpgen.study.until import go_to_last_look, run_until_decided

    launcher = _launcher(options)
    plan = _with_options(plan, options)
    study = Study(plan, Path(out or Path("studies") / plan.name).expanduser(), resolve)
    undecided = undecided or between_conditions
    looked_at = options.dry_run or any(getattr(options, view, None) for view in ("status", "commands", "sweep"))
    if plan.looks and looked_at:
        go_to_last_look(study, undecided)
    if options.dry_run:
        _dry_run(study, launcher)
    elif getattr(options, "status", False):
        study_views.print_status(study, launcher)
    elif getattr(options, "commands", False):
        study_views.print_commands(study)
    elif getattr(options, "sweep", None):
        study_views.write_sweep(study, options.sweep)
    elif plan.looks:
        return run_until_decided(study, undecided, launcher, progress_display(), options.retry)
    else:
        return study.run(launcher, progress_display(), options.retry)
    return None


def _with_options(plan: Any, options: Any) -> Any:
    """The plan with what the command line changes."""
    from bpgen.study.seeds import read_seeds

    overrides, seeds = _settings(options.set)
    if options.wandb is not None:
        overrides["wandb"] = choice("--wandb", options.wandb, Mode)
    if options.seeds is not None:
        require(options.seeds >= 1, f"--seeds must be positive, got {options.seeds}.")
        seeds = read_seeds(options.seeds, "--seeds")
    require(options.until is not None or options.max_seeds is None, "--max-seeds needs --until decided.")
    adding = options.until is not None or plan.looks
    require(seeds is None or not adding, "seeds are added in looks here: give --max-seeds instead of --seeds.")
    plan = plan.with_options(overrides, seeds)
    return plan if options.until is None else plan.until_decided(64 if options.max_seeds is None else options.max_seeds)


def track(results: Any, typed: str) -> None:
    """Track the study itself where its runs were tracked."""
    from bpgen.report.tracked import track_study

    if track_study(results, typed, print):
        place = shlex.quote(str(results.folder))
        print(f"W&B       bpgen dashboard {place} --save makes a workspace for it")
        if any((results.folder / "wandb").glob("offline-run-*")):
            print(f"          the runs are here only; wandb sync {place}/wandb {place}/runs/*/*/wandb sends them")


def command(name: str, argv: list[str]) -> str:
    """The command as the user typed it."""
    return shlex.join(["bpgen", name, *argv])


def exit_code(results: Any) -> int:
    """0 if any run has finished, 3 if none has."""
    return 0 if any(run.status == "finished" for run in results.runs) else 3


def _engine_named(argv: list[str]) -> str:
    """The engine that a command line chooses; its options are known only then."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--engine", default="local")
    return str(parser.parse_known_args(argv)[0].engine)


def _launcher(options: Any) -> Any:
    """The engine with its options; `--jobs` is short for the option `processes`."""
    from bpgen.run.files import read_value

    cls = find("launcher", options.engine).load()
    what, known = f"engine {options.engine!r}", [option.name for option in options_of(cls)]
    given = {name: getattr(options, f"engine.{name}") for name in known}
    given = {name: read_value(value) for name, value in given.items() if value is not None}
    if options.jobs is not None:
        require("processes" in known, f"the {what} does not take --jobs: it has no option `processes`.")
        given["processes"] = options.jobs
    for option in options_of(cls):
        require(not option.required or option.name in given, f"the {what} needs --engine.{option.name}.")
    check_options(cls, given, what)
    return cls(**given)


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
    from bpgen.study.seeds import read_seeds

    try:
        value = json.loads(text)
    except ValueError:
        value = text
    return read_seeds(value, "seeds")


def _dry_run(study: Any, launcher: Any) -> None:
    """Print what would run."""
    from rich.table import Table

    from bpgen.run.durations import duration
    from bpgen.study.estimate import estimates
    from bpgen.study.registered import plan_hash
    from bpgen.study.runs import ENDED

    tuning = study.tuning_runs()
    runs = study.main_runs(tuning)
    for r in runs:  # what is not tuned yet runs with the base's values
        r.status = "waiting" if r.status == "failed" else r.status
    guess = estimates([*tuning, *runs], find("launcher", "local").load()() if launcher.remote else launcher)
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
    console().print(table)
    processes = launcher.processes
    print(f"about {duration(work / processes)} with {processes} runs at once, in {study.folder}")
    print(f"plan {plan_hash(study.plan.content())}: write it down, and a report can be held against it")
