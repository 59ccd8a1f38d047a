"""`bpgen stress`: robustness and generalization of a study's saved networks under perturbations of every size."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpgen.cli.explain import chosen, saved_networks
from bpgen.cli.listing import Parser
from bpgen.cli.output import folder
from bpgen.errors import require

if TYPE_CHECKING:
    import pandas as pd

    from bpgen.study.stress import Size

DESCRIPTION = """\
Put the networks that the runs of a study saved to perturbed inputs, without training again: noise of several sizes, and
shifts. Every rule is compared with the first one at the training loss that both reach: the gap, and its two parts, what
the perturbation costs on training inputs (robustness) and what is lost from these to test inputs (generalization).
Differences in points of accuracy, with 95 % intervals over seeds, and of the gap also over seeds and test items."""

EXAMPLES = """\
examples:
  bpgen stress studies/liu2022_quick --rules bptt,three_factor      writes studies/liu2022_quick/stress
  bpgen stress studies/mine --noise 0.1,0.3 --shift 1               also inputs moved by one column, left or right
"""
NOTE = """\
Points of accuracy, rule less reference, at matched training loss; means over seeds with 95 % intervals, each on its
own, so that of many sizes some differ by chance. In brackets the interval over seeds and test items together (crossed
bootstrap, Owen 2007). A plus is worse; n: seeds that reach the loss under both."""


def run(argv: list[str]) -> int:
    """Measure, compare, draw, print."""
    parser = Parser(prog="bpgen stress", description=DESCRIPTION, epilog=EXAMPLES)
    add = parser.add_argument
    add("study", metavar="STUDY", help="folder that `bpgen study` or `bpgen reproduce` wrote, finished or not")
    add("--noise", default="0.05,0.1,0.2,0.3,0.4", metavar="SIZES", help="of the task's own (default: %(default)s)")
    add("--shift", default="", metavar="PLACES", help="inputs moved sideways by so many, e.g. 1,2 (default: none)")
    add(
        "--rules",
        metavar="NAMES",
        help="only these, with commas (default: all); the first of them is the reference",
    )
    add("--out", metavar="FOLDER", help="where to write (default: STUDY/stress)")
    o = parser.parse_args(argv)
    from bpgen.study.stress import CLEAN, Size

    sizes = [CLEAN, *(Size("noise", v) for v in _numbers("--noise", o.noise))]
    sizes += [Size("shift", v) for v in _numbers("--shift", o.shift)]
    require(len(sizes) > 1, "nothing to do: name sizes of --noise or --shift.")
    study = Path(o.study).expanduser()
    table = chosen(saved_networks(study), o.rules, None)
    out = folder(o.out or str(study / "stress"))
    assert out is not None
    return _compare(study, table, sizes, out)


def _numbers(option: str, text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        values = [math.nan]
    require(all(v > 0 for v in values), f"{option} must be positive numbers with commas, got {text!r}.")
    return values


def _compare(study: Path, table: pd.DataFrame, sizes: list[Size], out: Path) -> int:
    from bpgen.figures.stress import stress_figure
    from bpgen.study.stress import answers, curves, places

    found = places(table)
    require(bool(found), "nothing to compare: it takes two rules with runs that have finished and come to one loss.")
    steps: dict[str, set[int]] = {}
    for place in found:
        steps.setdefault(place.run, set()).update(place.steps)
    known: dict[str, Any] = {}
    for i, (name, own) in enumerate(steps.items(), 1):
        known[name] = answers(study, name, sorted(own), sizes, out / "answers")
        print(f"\rmeasured {i} of {len(steps)} runs", end="" if i < len(steps) else "\n", file=sys.stderr, flush=True)
    compared = curves([(place, known[place.run]) for place in found], sizes)
    compared.to_csv(out / "stress.csv", index=False, float_format="%.5g")
    for kind in dict.fromkeys(at.kind for at in sizes[1:]):
        stress_figure(compared, kind).savefig(out / f"{kind}.png")
    text = _report(compared)
    (out / "stress.md").write_text(text + "\n", encoding="utf-8")
    print(f"{text}\n\nwritten   {out}: stress.csv, stress.md, figures")
    return 0


def _report(compared: pd.DataFrame) -> str:
    """A table for every setting."""
    from bpgen.analysis.markdown import markdown_table
    from bpgen.study.stress import MEASURES

    parts = []
    for setting, here in compared.groupby("setting", sort=False):
        rows = []
        for (condition, kind, size), own in here.groupby(["condition", "kind", "size"], sort=False):
            cells = {row["measure"]: _cell(row) for _, row in own.iterrows()}
            at = "clean" if kind == "clean" else f"{kind} {size:g}"
            found = (cells.get(measure, "") for measure in MEASURES)
            rows.append((str(condition), at, *found, str(own["n"].iloc[0])))
        header = ("rule", "inputs", *MEASURES, "n")
        parts += [f"## {setting}, against {here['reference'].iloc[0]}", "", markdown_table(header, rows), ""]
    return "\n".join([*parts, NOTE])


def _cell(row: pd.Series) -> str:
    text = f"{row['difference']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})"
    wide = row.get("low_items", math.nan)
    return f"{text} [{wide:+.2f} to {row['high_items']:+.2f}]" if math.isfinite(wide) else text
