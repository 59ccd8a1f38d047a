"""`bpgen similarity`: how alike the activity of a run is to that of another run, or of recorded neurons."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpgen.cli.listing import Parser
from bpgen.cli.output import folder, head_of
from bpgen.errors import require
from bpgen.run.files import as_json

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = """\
examples:
  bpgen similarity runs/digits-rflo-seed0 runs/digits-bptt-seed1         along the training of the first
  bpgen similarity runs/digits-rflo-seed0 neurons.npz --step last --out similarity

OTHER is a run, whose last network is taken, or an .npz file with the array activity [conditions, time, neurons] and, if
you like, the inputs x [conditions, time, inputs] that a network is to see for them; without x it sees the first
sequences of its own split, which must be as many and as long. Two runs see the same sequences, those of RUN.

angle       Procrustes: what the best rotation leaves, in radians: 0 alike, π/2 nothing in common (Williams et al. 2021)
CKA, CCA    linear CKA, and the mean canonical correlation of 20 principal components: 1 alike, 0 nothing in common
normalised  the angle between samples of a few neurons: 0 as between two samples of OTHER (its noise ceiling), 1 nothing
            in common; baseline is the place of OTHER's average over conditions (Liu, Yang and Cueva 2025)
Compare rules where their losses are equal: activity changes with what a network has learned.
"""


def run(argv: list[str]) -> int:
    """Measure, then print and write what was asked for."""
    parser = Parser(
        prog="bpgen similarity",
        description="Similarity of the activity of a run's saved networks to another run, or to recorded neurons.",
        epilog=EXAMPLES,
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument("other", metavar="OTHER", help="another run's folder, or an .npz file of recorded activity")
    parser.add_argument("--step", default="all", metavar="N|best|last|all", help="evaluations of RUN (default: all)")
    parser.add_argument("--split", default="test", metavar="NAME", help="train, val or test (default: test)")
    text = "sequences to compare two runs on, at most (default: 200)"
    parser.add_argument("--samples", type=int, default=200, metavar="N", help=text)
    text = "neurons of every sample behind normalised, 0 for none (default: 10)"
    parser.add_argument("--neurons", type=int, default=10, metavar="N", help=text)
    parser.add_argument("--draws", type=int, default=100, metavar="N", help="how many samples (default: 100)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", metavar="FOLDER", help="write similarity.csv and similarity.png there")
    o = parser.parse_args(argv)
    require(o.neurons >= 0, f"--neurons must not be negative, got {o.neurons}.")
    from bpgen.run.replay import saved_steps
    from bpgen.similarity import along

    saved, out = saved_steps(o.run, o.step), folder(o.out)
    head = {**head_of(saved), "other": o.other, "split": o.split, "neurons": o.neurons, "draws": o.draws}
    table = along(o.run, o.other, o.step, o.split, o.samples, o.neurons, o.draws)
    if o.json:
        print(as_json({**head, "evaluations": table.to_dict("records")}))
    else:
        _print(head, table)
    if out is not None:
        table.to_csv(out / "similarity.csv", index=False)
        _draw(out / "similarity.png", head, table)
        if not o.json:
            print(f"written   {out / 'similarity.csv'} and similarity.png")
    return 0


def _print(head: dict[str, Any], table: pd.DataFrame) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, 100)  # no number is ever cut
    shown = Table(title=f"{head['run']} ({head['rule']}) and {head['other']}", title_justify="left")
    names = ["step", "training loss", "angle", "CKA", "CCA"]
    kept = list(table.columns)
    if not head["neurons"]:
        kept = kept[:5]
    else:
        names += [f"normalised, {head['neurons']} neurons", "baseline"]
    for name in names:
        shown.add_column(name, justify="right")
    for row in table[kept].itertuples(index=False):
        shown.add_row(str(row[0]), *("-" if math.isnan(v) else f"{v:.3g}" for v in row[1:]))
    console.print(shown)
    console.print(_sentence(head, table))


def _sentence(head: dict[str, Any], table: pd.DataFrame) -> str:
    """What came out, at the last evaluation and since the first."""
    last, first = table.iloc[-1], table.iloc[0]
    if math.isnan(last["procrustes"]):
        return f"At step {last['step']:.0f} the run had diverged: there is nothing to compare."
    share = last["procrustes"] / (math.pi / 2)
    said = f"At step {last['step']:.0f} an angle of {last['procrustes']:.3g} is left, {share:.0%} of a right angle"
    if len(table) > 1 and not math.isnan(first["procrustes"]):
        nearer = "less" if last["procrustes"] < first["procrustes"] else "more"
        said += f", {nearer} than the {first['procrustes']:.3g} at step {first['step']:.0f}"
    if not head["neurons"]:
        return f"{said}."
    other, place, baseline = Path(head["other"]).name, last["normalised"], last["baseline"]
    near = "nearer than" if place < baseline else "no nearer than"
    shared = " (runs of one seed start with the same neurons)" if place < 0 else ""
    return (
        f"{said}. By samples of {head['neurons']} neurons the run is at {place:.2f}, where another sample of {other} "
        f"is at 0 and nothing in common at 1{shared}: {near} {other}'s average over conditions ({baseline:.2f})."
    )


def _draw(file: Path, head: dict[str, Any], table: pd.DataFrame) -> None:
    """The angle, and the normalised distance, along training."""
    from bpgen.figures import similarity
    from bpgen.figures.style import sheet

    other = Path(head["other"]).name
    title = f"{head['rule']} on {head['task']}, seed {head['seed']}, and {other} (n = 1 pair)"
    figure, axes = sheet(2 if head["neurons"] else 1, title)
    similarity.angle(axes[0], table)
    if head["neurons"]:
        similarity.normalised(axes[1], table, neurons=head["neurons"])
    figure.savefig(file)
