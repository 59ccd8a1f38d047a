"""`bpgen sharpness`: measure the curvature of the networks that a run saved, without training again."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from bpgen.cli.listing import Parser
from bpgen.errors import BpgenError, require

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
    add("--step", default="last", metavar="N|all", help="which evaluation (default: the last one)")
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
    add("--json", action="store_true", help="print JSON instead of a table")
    add("--out", metavar="FOLDER", help="write sharpness.json and figures there")
    return options


def run(argv: list[str]) -> int:
    """Measure, then print and write what was asked for."""
    o = parser().parse_args(argv)
    require(o.samples is None or o.samples >= 1, f"--samples must be positive, got {o.samples}.")
    from bpgen.callbacks.measurement import problem_of
    from bpgen.curvature import Search
    from bpgen.curvature.block import label
    from bpgen.curvature.survey import Survey, survey
    from bpgen.saved import find, moments

    saved, out = find(o.run, o.step), folder(o.out)
    config = saved.folder.config()
    own = config.get("sharpness", {})
    samples = o.samples or own.get("samples") or 512
    block = o.block or own.get("block", "W_rec")
    block = tuple(block.split(",")) if "," in block else block
    surveys: list[Survey] = []
    results: list[dict[str, Any]] = []
    for moment in moments(saved):
        module, split = moment.module, subset(moment, samples)
        loss = module.loss.without_regulariser() if o.no_regulariser else module.loss
        search = Search(o.top, o.tol, module.seed, max_products=o.max_products)
        measured = survey(problem_of(module, split, loss), block, search, measures=o.measures, spectrum=o.density)
        surveys.append(measured)
        results.append({"step": moment.step, "lr": moment.lr, **measured.numbers()})
        if not o.json and len(saved.steps) > 1:
            print(f"step {moment.step} done", file=sys.stderr)
    head = {
        "run": str(saved.folder.path),
        "task": config["task"]["name"],
        "rule": config["rule"]["name"],
        "seed": config["seed"],
        "block": label(block),
        "samples": surveys[0].samples,
        "definition": "largest",
        "regularised": surveys[0].regularised,
        "surrogate": surveys[0].sharp.surrogate,
        "tol": o.tol,
    }
    text = as_json({**head, "evaluations": results})
    if o.json:
        print(text)
    else:
        _print(head, results)
    if out is not None:
        (out / "sharpness.json").write_text(text + "\n", encoding="utf-8")
        _draw(out, head, results, surveys[-1])
        if not o.json:
            print(f"written   {out / 'sharpness.json'} and figures")
    return 0


def subset(moment: Any, samples: int) -> Any:
    """The training subset that the run's own callbacks measure on."""
    from bpgen.callbacks.measurement import Measurement

    return Measurement().subset(moment, "train", samples)


def folder(name: str | None) -> Path | None:
    """The folder to write to, made before anything is measured."""
    if name is None:
        return None
    path = Path(name).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BpgenError(f"cannot write to {name}: {error.strerror}. Choose another --out.") from None
    return path


def as_json(value: Any) -> str:
    """JSON text; numbers that JSON does not know become null."""

    def finite(v: Any) -> Any:
        if isinstance(v, dict):
            return {k: finite(x) for k, x in v.items()}
        if isinstance(v, list):
            return [finite(x) for x in v]
        return None if isinstance(v, float) and not math.isfinite(v) else v

    return json.dumps(finite(value), indent=2, allow_nan=False)


def _print(head: dict[str, Any], results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    of = "surrogate network" if head["surrogate"] else "true loss"
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, 60 + 12 * len(results[0]["eigenvalues"]))  # no number is ever cut
    table = Table(
        title=f"{head['run']}: Hessian of the {of}, block {head['block']}, {head['samples']} train samples, "
        f"regularisers {'inside' if head['regularised'] else 'absent'}",
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
    console.print(table)
    if "trace" in results[0]:
        for row in results:
            t = row["trace"]
            console.print(
                f"step {row['step']}: trace {t['value']:.5g} ({t['confidence']:.0%} interval {t['low']:.5g} to "
                f"{t['high']:.5g}), of which the top {len(row['eigenvalues'])}: {row['top_mass']:.1%}"
            )
    if "measures" in results[0]:
        shown = results if len(results) <= 6 else results[-1:]
        beyond = Table(title="beyond λ_1" + "; all evaluations with --json" * (shown != results), title_justify="left")
        beyond.add_column("")
        for row in shown:
            beyond.add_column(f"step {row['step']}", justify="right")
        for name in results[0]["measures"]:
            beyond.add_row(name, *(f"{row['measures'][name]:.4g}" for row in shown))
        console.print(beyond)


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
