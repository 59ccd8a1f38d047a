"""What a user is shown at the end of a run: the result, where everything is, and what to try next."""

from __future__ import annotations

import shlex
import sys

from rich.console import Console
from rich.table import Table

from bpgen.experiment import Outcome

_SHOWN = (
    ("training accuracy", "train/accuracy", "{:.1%}"),
    ("test accuracy", "test/accuracy", "{:.1%}"),
    ("test accuracy, noisy inputs", "test_noisy/accuracy", "{:.1%}"),
    ("gap (train - test accuracy)", "gap/accuracy", "{:+.1%}"),
    ("gap, noisy inputs", "gap_noisy/accuracy", "{:+.1%}"),
    ("training loss", "train/loss", "{:.4g}"),
    ("sharpness λ_max", "sharpness/lambda_max", "{:.4g}"),
    ("sharpness λ_max, surrogate network", "sharpness/surrogate/lambda_max", "{:.4g}"),
    ("alignment with BPTT, cosine", "alignment/cosine", "{:.3f}"),
    ("alignment with BPTT, ρ", "alignment/rho", "{:.3f}"),
)


def report(outcome: Outcome) -> int:
    """Print the outcome of a run and return its exit code."""
    console = Console(highlight=False, soft_wrap=True)
    rows = outcome.folder.rows()
    if rows:
        table = Table(title=f"{outcome.folder.path.name}: {outcome.status}", title_justify="left")
        table.add_column("")
        table.add_column("start", justify="right")
        table.add_column("end", justify="right")
        for label, key, form in _SHOWN:
            if key in rows[-1]:
                table.add_row(label, form.format(rows[0].get(key, float("nan"))), form.format(rows[-1][key]))
        console.print(table)
    path, config = outcome.folder.path, outcome.folder.config()
    seconds = outcome.folder.summary()["seconds"]
    console.print(f"{seconds['total']:.0f} s, of which {seconds['training']:.0f} s training")
    console.print(f"numbers   {path / 'metrics.csv'}")
    console.print(f"figures   {path / 'figures' / 'overview.png'}")
    if config["wandb"] != "off" and (path / "wandb").is_dir():
        place = shlex.quote(str(path / "wandb"))
        console.print(f"W&B       `wandb leet {place}` shows it here without an account; `wandb sync` uploads it")
    if outcome.message:
        print(outcome.message, file=sys.stderr)
    elif outcome.status == "finished":
        other = "bptt" if config["rule"]["name"] != "bptt" else "rflo"
        again = shlex.quote(str(path / "config.yaml"))
        console.print(f"next      the same under another rule: bpgen fit --config {again} --rule {other}")
    return outcome.exit_code
