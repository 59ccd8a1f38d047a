"""`bpgen ls`: runs and studies in folders, as they stand, and all of them as one table in a file."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpgen.cli.listing import Parser

if TYPE_CHECKING:
    from bpgen.study.catalogue import RunEntry, StudyEntry

DESCRIPTION = """\
List the studies and runs in and below folders: status, rule, task, seed, what was measured last, and how long ago. A
study is one line; name its folder, or give --all, to see its runs. "unfinished" is a run that is at work or was killed.
--table writes all of them into one file, a row per run and evaluation, as `bpgen.study.load` has them in Python."""
HEADS = ("status", "rule", "task", "seed", "step", "train loss", "test", "λ_max", "written", "options", "run")


def run(argv: list[str]) -> int:
    """Run the command."""
    parser = Parser(prog="bpgen ls", description=DESCRIPTION)
    parser.add_argument("folder", nargs="*", help="where to look (default: runs and studies here)")
    parser.add_argument(
        "--all", action="store_true", help="also every run of every study, those of its tuning included"
    )
    parser.add_argument("--table", metavar="FILE", help="write one table of all runs: FILE.csv or FILE.parquet")
    parser.add_argument("--json", action="store_true", help="print JSON: a list of studies and a list of all runs")
    options = parser.parse_args(argv)
    from bpgen.study.catalogue import entries, studies

    folders = options.folder or [name for name in ("runs", "studies") if Path(name).is_dir()] or ["."]
    found, known = list(entries(folders)), studies(folders)
    if options.table:
        from bpgen.study.loading import table_of, write_table

        table = table_of([entry for entry in found if options.all or not entry.stage])
        write_table(table, options.table)
        print(f"{options.table}: {len(table)} evaluations of {table['run'].nunique()} runs")
    elif options.json:
        print(json.dumps({"studies": [_study(s, found) for s in known], "runs": [_run(r) for r in found]}, indent=1))
    else:
        _print(found, known, options.all or (bool(options.folder) and _are_studies(options.folder)))
    return 0


def _print(found: Sequence[RunEntry], known: Sequence[StudyEntry], every: bool) -> None:
    """Studies, a line each, then the runs."""
    if not found and not known:
        print("no run or study here: `bpgen fit --rule rflo` makes one, in runs/")
        return
    for study in known:
        row = _study(study, found)
        counts = ", ".join(f"{n} {status}" for status, n in row["counts"].items())
        planned = f" of {row['planned']} planned" if row["planned"] else ""
        age = f", {_age(row['written'])}" if row["written"] else ""
        print(f"study {row['name']}  {counts or 'no run'}{planned}{age}  {row['folder']}")
    shown = [entry for entry in found if every or entry.study is None]
    if known and shown:
        print()
    if shown:
        apart = _apart(shown)
        rows = [(*_cells(entry), own, str(entry.path)) for entry, own in zip(shown, apart, strict=True)]
        kept = [i for i, head in enumerate(HEADS) if head != "options" or any(apart)]
        widths = {i: max(len(row[i]) for row in [HEADS, *rows]) for i in kept}
        for line in (HEADS, *rows):
            cells = (line[i].rjust(widths[i]) if 3 <= i < 9 else line[i].ljust(widths[i]) for i in kept)
            print("  ".join(cells).rstrip())


def _apart(shown: Sequence[RunEntry]) -> list[str]:
    """Options in which runs of one rule and task differ, the members of a sweep for example; four at most."""
    groups: dict[Any, list[dict[str, str]]] = {}
    options: list[dict[str, str]] = []
    for entry in shown:
        own = {
            f"{group}.{name}": str(value)
            for group, values in entry.config.items()
            if isinstance(values, Mapping) and group != "tracking"
            for name, value in values.items()
            if name not in ("name", "data_dir")
        }
        options.append(own)
        groups.setdefault((entry.facts["rule"], entry.facts["task"]), []).append(own)
    varied = {
        id(own): [key for key in own if len({other[key] for other in group if key in other}) > 1][:4]
        for group in groups.values()
        for own in group
    }
    return [", ".join(f"{key.rpartition('.')[2]}={own[key]}" for key in varied[id(own)]) for own in options]


def _cells(entry: RunEntry) -> tuple[str, ...]:
    last, facts = entry.last(), entry.facts
    accuracy, loss = last.get("test/accuracy", math.nan), last.get("test/loss", math.nan)
    test = f"{accuracy:.1%}" if math.isfinite(accuracy) else _number(loss)
    sharp = last.get("sharpness/lambda_max", last.get("sharpness/surrogate/lambda_max", math.nan))
    step = f"{last['step']:.0f}" if "step" in last else ""
    seed = "" if facts["seed"] is None else str(facts["seed"])
    where = (entry.status, facts["rule"], facts["task"], seed, step)
    return (
        *where,
        _number(last.get("train/loss", math.nan)),
        test,
        _number(sharp),
        _age(entry.written),
    )


def _study(study: StudyEntry, found: Iterable[RunEntry]) -> dict[str, Any]:
    """How a study stands."""
    own = [entry for entry in found if entry.study is not None and entry.study.path == study.path]
    count = Counter(entry.status for entry in own if not entry.stage)
    count |= Counter({"in tuning": sum(bool(entry.stage) for entry in own)})
    return {
        **{"name": study.name, "folder": str(study.path), "question": str(study.plan.get("question", ""))},
        **{"planned": len(study.planned), "counts": {status: n for status, n in count.items() if n}},
        "written": max((entry.written for entry in own), default=None),
    }


def _run(entry: RunEntry) -> dict[str, Any]:
    last = {name: value if math.isfinite(value) else None for name, value in entry.last().items()}
    facts = {"run": str(entry.path), **entry.facts, "stage": entry.stage}
    return {**facts, "status": entry.status, "reason": entry.reason, "written": entry.written, "last": last}


def _are_studies(folders: Iterable[str]) -> bool:
    """Whether it is single studies that were named, or parts of them."""
    return all(any((p / "plan.yaml").is_file() for p in (Path(f), *Path(f).parents)) for f in folders)


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else ""


def _age(written: float) -> str:
    """How long ago, as people say it."""
    seconds = max(0.0, time.time() - written)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
