"""`bpgen rank`: how far training moved the weights of a run, and along how many directions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpgen.cli.listing import Parser
from bpgen.cli.output import console, folder, head_of
from bpgen.errors import choice
from bpgen.run.files import as_json

if TYPE_CHECKING:
    from bpgen.run.replay import SavedSteps

EXAMPLES = """\
examples:
  bpgen rank runs/digits-rflo-seed0                        W_rec along training
  bpgen rank runs/digits-rflo-seed0 --weights W_in --out rank

size            ‖W - W_0‖, and as a part of ‖W_0‖; what cannot act counts as zero
effective rank  exp of the entropy of the singular values of W - W_0 as shares of their sum (Roy & Vetterli 2007)
rank, 99 %      how many singular values hold 99 % of ‖W - W_0‖²
beyond O        the share of ‖W - W_0‖² that as many singular values as there are outputs leave: near 0 where a learning
                signal of O errors moves all weights (linear neurons under RFLO; Williams, Payeur and Lajoie 2026)
"""
WEIGHTS = ("W_rec", "W_in", "W_out")


def run(argv: list[str]) -> int:
    """Measure, then print and write what was asked for."""
    parser = Parser(
        prog="bpgen rank",
        description="Size and rank of the change of a run's weights since before training, at every evaluation.",
        epilog=EXAMPLES,
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument("--weights", default="W_rec", metavar="NAME", help="W_rec, W_in or W_out (default: W_rec)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", metavar="FOLDER", help="write rank.json and rank.png there")
    o = parser.parse_args(argv)
    choice("weights", o.weights, WEIGHTS)
    from bpgen.run.replay import saved_steps

    saved, out = saved_steps(o.run, "all"), folder(o.out)
    head = {**head_of(saved), "weights": o.weights, **_sizes(saved)}
    results = _measured(saved, o.weights)
    text = as_json({**head, "evaluations": results})
    if o.json:
        print(text)
    else:
        _print(head, results)
    if out is not None:
        (out / "rank.json").write_text(text + "\n", encoding="utf-8")
        _draw(out / "rank.png", head, results)
        if not o.json:
            print(f"written   {out / 'rank.json'} and rank.png")
    return 0


def _sizes(saved: SavedSteps) -> dict[str, int]:
    from bpgen.run.build import make_network

    config = saved.folder.config()
    network = make_network(config, config.make_task())
    return {"neurons": network.n_rec, "outputs": network.n_out}


def _measured(saved: SavedSteps, name: str) -> list[dict[str, Any]]:
    """The numbers of every evaluation."""
    from bpgen.complexity.weights import change_of
    from bpgen.run.build import make_network
    from bpgen.run.files import load_file

    config, files = saved.folder.config(), saved.folder.weights()
    network = make_network(config, config.make_task())
    W_0 = network.masked(network.params())[name]
    results = []
    for step in saved.steps:
        state = load_file(files[step], "name another run", "network")["network"]
        change = change_of(network.masked({name: state[name]})[name], W_0, network.n_out)
        results.append({"step": step, **change._asdict()})
    return results


def _print(head: dict[str, Any], results: list[dict[str, Any]]) -> None:
    from rich.table import Table

    W, O = head["weights"], head["outputs"]
    to = console(soft_wrap=True)
    to.width = max(to.width, 100)  # no number is ever cut
    title = f"{head['run']}: change of {W} under {head['rule']}, {head['neurons']} neurons, {O} outputs"
    table = Table(title=title, title_justify="left")
    for column in ("step", f"‖{W} - {W}₀‖", f"of ‖{W}₀‖", "effective rank", "rank, 99 %", f"beyond {O}"):
        table.add_column(column, justify="right")
    for r in results:
        moved = r["norm"] > 0
        ranks = [f"{r['effective_rank']:.4g}", str(r["rank_99"]), f"{r['beyond']:.2g}"] if moved else ["-"] * 3
        table.add_row(str(r["step"]), f"{r['norm']:.4g}", f"{r['relative']:.3g}", *ranks)
    to.print(table)


def _draw(file: Path, head: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Size and ranks along training."""
    import pandas as pd

    from bpgen.figures import change
    from bpgen.figures.style import sheet

    title = f"{head['rule']} on {head['task']}, seed {head['seed']} (n = 1 run)"
    figure, axes = sheet(2, title)
    table = pd.DataFrame(results)
    change.size(axes[0], table, weights=head["weights"])
    change.ranks(axes[1], table, weights=head["weights"], outputs=head["outputs"])
    figure.savefig(file)
