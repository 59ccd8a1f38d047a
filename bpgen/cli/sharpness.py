"""`bpgen sharpness`: measure the curvature of the networks that a run saved, without training again."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpgen.cli.curvature_words import density_plot
from bpgen.cli.listing import Parser
from bpgen.cli.output import console, folder, head_of, on_threads
from bpgen.errors import require
from bpgen.run.files import as_json
from bpgen.threads import HELP as THREADS

if TYPE_CHECKING:
    from bpgen.curvature.block import Block
    from bpgen.curvature.survey import Survey
    from bpgen.run.replay import SavedSteps

EXAMPLES = """\
examples:
  bpgen sharpness runs/digits-rflo-seed0                       its last network, as the run itself measured it
  bpgen sharpness runs/digits-rflo-seed0 --step all --block all --out curvature
  bpgen sharpness runs/digits-rflo-seed0/weights/step00000150.pt --top 10 --density --out curvature
  bpgen sharpness runs/digits-rflo-seed0 --measures --json

The Hessian is that of the true loss, whatever the rule; of the surrogate network where neurons spike. Its subset of the
training data is the one that the run measured on.
"""


def parser() -> Parser:
    """The command's options."""
    options = Parser(
        prog="bpgen sharpness",
        description="Leading Hessian eigenvalues of saved networks with their residuals, and further measures.",
        epilog=EXAMPLES,
    )
    add = options.add_argument
    add("run", metavar="RUN|CHECKPOINT", help="a run's folder, or one file of its weights/")
    add("--step", default="last", metavar="N|best|all", help="which evaluation (default: the last one)")
    add(
        "--block",
        metavar="NAME",
        help="weights: W_rec, all, or names such as W_in,W_rec (default: as in the run)",
    )
    add("--top", type=int, default=3, metavar="K", help="how many eigenvalues (default: 3)")
    add("--samples", type=int, metavar="N", help="size of the training subset (default: as in the run, or 512)")
    add("--tol", type=float, default=1e-4, help="accepted residual relative to an eigenvalue (default: 1e-4)")
    add("--max_products", type=int, default=300, metavar="N", help="budget of Hessian products (default: 300)")
    add("--no_regulariser", action="store_true", help="leave the regularisers out of the loss")
    add("--density", action="store_true", help="also the spectral density, the trace and the top-k mass")
    add("--measures", action="store_true", help="also flatness beyond λ_1, see `bpgen.curvature.measures`")
    add("--threads", type=int, metavar="N", help=THREADS)
    add("--json", action="store_true", help="print JSON instead of a table")
    add("--out", metavar="FOLDER", help="write sharpness.json and figures there")
    return options


def run(argv: list[str]) -> int:
    """Measure, then print and write what was asked for."""
    o = parser().parse_args(argv)
    require(o.samples is None or o.samples >= 1, f"--samples must be positive, got {o.samples}.")
    from bpgen.run.replay import saved_steps

    saved, out = saved_steps(o.run, o.step), folder(o.out)
    own = saved.folder.plain_config().get("sharpness", {})
    block = o.block or own.get("block", "W_rec")
    block = tuple(block.split(",")) if "," in block else block
    samples = o.samples or own.get("samples") or 512
    with on_threads(saved, samples, o):
        results, last = _measured(saved, block, samples, o)
    head = {**head_of(saved), **_definition(last, block), "tol": o.tol}
    text = as_json({**head, "evaluations": results})
    if o.json:
        print(text)
    else:
        _print(head, results)
    if out is not None:
        (out / "sharpness.json").write_text(text + "\n", encoding="utf-8")
        _draw(out, head, results, last)
        if not o.json:
            print(f"written   {out / 'sharpness.json'} and figures")
    return 0


def _measured(saved: SavedSteps, block: Block, samples: int, o: Namespace) -> tuple[list[dict[str, Any]], Survey]:
    """The numbers of every evaluation, and the whole of the last one."""
    from bpgen.curvature import Search
    from bpgen.curvature.survey import survey
    from bpgen.run.replay import evaluations

    results: list[dict[str, Any]] = []
    for evaluation in evaluations(saved):
        problem = evaluation.problem(evaluation.training(samples), regulariser=not o.no_regulariser)
        search = Search(o.top, o.tol, evaluation.module.seed, max_products=o.max_products)
        found = survey(problem, evaluation.block(block), search, measures=o.measures, spectrum=o.density)
        results.append({"step": evaluation.step, "lr": evaluation.lr, **found.numbers()})
        if not o.json and len(saved.steps) > 1:
            print(f"step {evaluation.step} done", file=sys.stderr)
    return results, found


def _definition(last: Survey, block: Block) -> dict[str, Any]:
    """What the eigenvalues are of."""
    from bpgen.curvature.block import label

    return {
        "block": label(block),
        "samples": last.samples,
        "definition": "largest",
        "regularised": last.regularised,
        "surrogate": last.sharp.surrogate,
    }


def _print(head: dict[str, Any], results: list[dict[str, Any]]) -> None:
    from rich.table import Table

    of = "surrogate network" if head["surrogate"] else "true loss"
    to = console(soft_wrap=True)
    to.width = max(to.width, 60 + 12 * len(results[0]["eigenvalues"]))  # no number is ever cut
    table = Table(
        title=f"{head['run']}: Hessian of the {of}, block {head['block']}, {head['samples']} train samples, "
        f"{'regularisers inside' if head['regularised'] else 'no regularisers'}",
        title_justify="left",
    )
    table.add_column("step", justify="right")
    for i in range(len(results[0]["eigenvalues"])):
        table.add_column(f"λ_{i + 1}", justify="right")
    for column in ("residual of λ_1", "products", "converged"):
        table.add_column(column, justify="right")
    for row in results:
        values = [f"{value:.5g}" for value in row["eigenvalues"]]
        quality = [f"{row['residuals'][0]:.2g}", str(row["products"]), "yes" if row["converged"] else "NO"]
        table.add_row(str(row["step"]), *values, *quality)
    to.print(table)
    if "trace" in results[0]:
        for row in results:
            t = row["trace"]
            to.print(
                f"step {row['step']}: trace {t['value']:.5g} ({t['confidence']:.0%} interval {t['low']:.5g} to "
                f"{t['high']:.5g}), of which the top {len(row['eigenvalues'])}: {row['top_mass']:.1%}"
            )
        print(density_plot(results[-1]["density"], results[-1]["eigenvalues"]))
    if "measures" in results[0]:
        shown = results if len(results) <= 6 else results[-1:]
        beyond = Table(title="beyond λ_1" + "; all evaluations with --json" * (shown != results), title_justify="left")
        beyond.add_column("")
        for row in shown:
            beyond.add_column(f"step {row['step']}", justify="right")
        for name in results[0]["measures"]:
            beyond.add_row(name, *(f"{row['measures'][name]:.4g}" for row in shown))
        to.print(beyond)


def _draw(out: Path, head: dict[str, Any], results: list[dict[str, Any]], last: Any) -> None:
    """Eigenvalues along training if there are several evaluations, and the landscape of the last one."""
    import pandas as pd

    from bpgen.figures import curvature as figures
    from bpgen.figures.style import sheet

    title = f"{head['rule']} on {head['task']}, seed {head['seed']} (n = 1 run)"
    if len(results) > 1:
        table = pd.DataFrame(
            {"step": r["step"], "lr": r["lr"], **{f"lambda_{i}": v for i, v in enumerate(r["eigenvalues"])}}
            | {f"residual_{i}": v for i, v in enumerate(r["residuals"])}
            for r in results
        )
        figure, (ax,) = sheet(1, title)
        figures.eigenvalues(ax, table, block=head["block"], n=head["samples"], surrogate=head["surrogate"])
        figure.savefig(out / "sharpness.png")
    sharp, n = last.sharp, last.samples
    shown = min(2, len(sharp.eigenvalues))
    panels = 1 + shown + (last.density is not None)
    figure, axes = sheet(panels, f"{title}, step {results[-1]['step']}")
    a, b = [last.distances(i, 41) for i in range(shown)], [last.line(i) for i in range(shown)]
    figures.lines(axes[0], a, b, sharp.eigenvalues[:shown], last.slopes[:shown], n=n)
    figures.participation(axes[1], last.neurons.incoming, last.neurons.outgoing, block=head["block"], n=n)
    if shown == 2:
        a, b = last.distances(0, 21), last.distances(1, 21)
        figures.plane(axes[2], a, b, last.plane(), sharp.eigenvalues[:2].tolist(), n=n)
    if last.density is not None:
        grid, heights, errors = last.curve
        figures.density(axes[-1], grid, heights, errors, sharp.eigenvalues, block=head["block"], n=n)
    figure.savefig(out / f"curvature-step{results[-1]['step']:08d}.png")
