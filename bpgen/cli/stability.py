"""`bpgen stability`: how stable a run's rule was around the networks that the run saved."""

from __future__ import annotations

import dataclasses
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpgen.cli.curvature_words import STABILITY_LEGEND, stability_verdict
from bpgen.cli.listing import Parser
from bpgen.cli.output import console, folder, head_of, on_threads
from bpgen.errors import require
from bpgen.run.files import as_json
from bpgen.threads import HELP as THREADS

if TYPE_CHECKING:
    from bpgen.run.replay import SavedSteps

EXAMPLES = """\
examples:
  bpgen stability runs/digits-rflo-seed0                       around its last network
  bpgen stability runs/digits-rflo-seed0 --step all --out stability
  bpgen stability runs/digits-rflo-seed0/weights/step00000150.pt --lr 0.1 --json

A fixed point of the rule is stable if |1 - η μ| < 1 for every eigenvalue μ of its Jacobian Dĝ; for BPTT that is
λ_1 < 2/η, in the setting of the theorem of Liu et al. 2022 λ_1 < 2/(η ρ). See `bpgen.stability`.
"""
_SHOWN = {
    "lambda_max": "λ_1",
    "mu_abs": "|μ_1|",
    "bound": "2/η",
    "bound_rho": "2/(ηρ_1)",
    "rho": "ρ",
    "rho_directional": "ρ_1",
    "cosine": "cosine",
    "edge": "edge",
    "edge_rho": "edge·ρ_1",
    "max_multiplier": "max |1-ημ|",
    "asymmetry_fraction": "asymmetry",
}


def parser() -> Parser:
    """The command's options."""
    options = Parser(
        prog="bpgen stability",
        description="Eigenvalues of a rule's own update around saved networks, against the bounds 2/η and 2/(ηρ).",
        epilog=EXAMPLES,
    )
    add = options.add_argument
    add("run", metavar="RUN|CHECKPOINT", help="a run's folder, or one file of its weights/")
    add("--step", default="last", metavar="N|best|all", help="which evaluation (default: the last one)")
    add("--lr", type=float, metavar="η", help="learning rate (default: the run's, at that step)")
    add("--momentum", type=float, metavar="β", help="momentum (default: the run's)")
    add("--samples", type=int, metavar="N", help="size of the training subset (default: as in the run, or 512)")
    add("--top", type=int, default=6, metavar="K", help="how many eigenvalues μ (default: 6)")
    add("--tol", type=float, default=1e-4, help="accepted residuals, relative to the largest (default: 1e-4)")
    add("--max_products", type=int, default=300, metavar="N", help="budget of products (default: 300)")
    add("--probes", type=int, default=10, metavar="N", help="random vectors for the asymmetry (default: 10)")
    add("--no_regulariser", action="store_true", help="leave the regularisers out of the loss")
    add("--threads", type=int, metavar="N", help=THREADS)
    add("--json", action="store_true", help="print JSON instead of a table")
    add("--out", metavar="FOLDER", help="write stability.json and figures there")
    return options


def run(argv: list[str]) -> int:
    """Measure, then print and write what was asked for."""
    o = parser().parse_args(argv)
    require(o.samples is None or o.samples >= 1, f"--samples must be positive, got {o.samples}.")
    require(o.lr is None or o.lr > 0, f"--lr must be > 0, got {o.lr}.")
    from bpgen.run.replay import saved_steps

    saved, out = saved_steps(o.run, o.step), folder(o.out)
    plain = saved.folder.plain_config()
    optimizer = plain.get("optimizer", {})
    require(
        o.lr is not None or (optimizer.get("name", "sgd") == "sgd" and not optimizer.get("lr_scale")),
        "the run was not trained by sgd with one learning rate, whose stability this is: ask for one with --lr.",
    )
    own = [plain.get(name, {}).get("samples") for name in ("stability", "sharpness")]
    samples = next(filter(None, [o.samples, *own, 512]))
    with on_threads(saved, samples, o):
        results = _measured(saved, samples, o)
    head = {**head_of(saved), "block": "all"}
    text = as_json({**head, "evaluations": results})
    if o.json:
        print(text)
    else:
        _print(head, results)
    if out is not None:
        (out / "stability.json").write_text(text + "\n", encoding="utf-8")
        _draw(out, head, results)
        if not o.json:
            print(f"written   {out / 'stability.json'} and figures")
    return 0


def _measured(saved: SavedSteps, samples: int, o: Namespace) -> list[dict[str, Any]]:
    """The numbers of every evaluation."""
    from bpgen.curvature import Search
    from bpgen.run.replay import evaluations
    from bpgen.stability import RuleJacobian, analyse

    results: list[dict[str, Any]] = []
    for evaluation in evaluations(saved):
        module = evaluation.module
        loss = module.loss.without_regulariser() if o.no_regulariser else module.loss
        problem, draws = module.problem(evaluation.training(samples), loss, "stability", evaluation.step)
        found = analyse(
            RuleJacobian(module.rule, problem, draws, evaluation.block("all")),
            Search(o.top, o.tol, module.seed, max_products=o.max_products),
            lr=evaluation.lr if o.lr is None else o.lr,
            momentum=module.optimizer.momentum if o.momentum is None else o.momentum,
            probes=o.probes,
        )
        row = {**dataclasses.asdict(found), "mu_abs": float(found.mu[0].abs())}
        row["mu"] = [[mu.real, mu.imag] for mu in found.mu.tolist()]
        row["mu_residuals"] = found.mu_residuals.tolist()
        results.append({"step": evaluation.step, **row})
        if not o.json and len(saved.steps) > 1:
            print(f"step {evaluation.step} done", file=sys.stderr)
    return results


def _print(head: dict[str, Any], results: list[dict[str, Any]]) -> None:
    from rich.table import Table

    first = results[0]
    of = f"{first['samples']} train samples, all {first['parameters']} weights that act"
    if first["surrogate"]:
        of += ", surrogate network"
    table = Table(title=f"{head['run']}: stability of {head['rule']}, {of}", title_justify="left")
    if len(results) == 1:
        table.add_column("")
        table.add_column(f"step {first['step']}", justify="right")
        for key, name in _SHOWN.items():
            table.add_row(name, f"{first[key]:.5g}")
        for i, (real, imaginary) in enumerate(first["mu"]):
            table.add_row(f"μ_{i + 1}", f"{real:.5g}" if imaginary == 0 else f"{real:.5g}{imaginary:+.5g}i")
        table.add_row("found to the tolerance", "yes" if first["converged"] else "NO")
    else:
        few = [key for key in _SHOWN if key not in ("rho", "cosine", "edge", "edge_rho")]
        for column in ("step", *(_SHOWN[key] for key in few)):
            table.add_column(column, justify="right", no_wrap=True)
        for row in results:
            table.add_row(str(row["step"]), *(f"{row[key]:.4g}" for key in few))
    to = console(soft_wrap=True)
    to.width = max(to.width, 100)  # a cut number is worse than a wrapped line
    to.print(table)
    print(f"\n{STABILITY_LEGEND}\n\nstep {results[-1]['step']}: {stability_verdict(head['rule'], results[-1])}")


def _draw(out: Path, head: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """The edge of stability along training, and the eigenvalues μ of the last network in the complex plane."""
    import pandas as pd

    from bpgen.figures import curvature
    from bpgen.figures import run as run_panels
    from bpgen.figures.style import sheet

    title, last = f"{head['rule']} on {head['task']}, seed {head['seed']} (n = 1 run)", results[-1]
    if len(results) > 1:
        keys = {"lambda_max": "lambda_max", "lambda_residual": "residual"}
        keys |= {key: key for key in ("mu_abs", "bound", "bound_rho")}
        table = pd.DataFrame(
            {"step": r["step"], **{f"stability/{new}": r[k] for k, new in keys.items()}} for r in results
        )
        figure, (ax,) = sheet(1, title)
        run_panels.stability(ax, table)
        figure.savefig(out / "stability.png")
    figure, (ax,) = sheet(1, f"{title}, step {last['step']}")
    curvature.multipliers(ax, last["mu"], last["lr"], n=last["samples"])
    figure.savefig(out / f"multipliers-step{last['step']:08d}.png")
