"""What a user is shown at the end of a run: the result, where everything is, and what to try next."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping

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
    ("test loss", "test/loss", "{:.4g}"),
    ("test loss, noisy inputs", "test_noisy/loss", "{:.4g}"),
    ("gap (test - train loss)", "gap/loss", "{:+.3g}"),
    ("gap in loss, noisy inputs", "gap_noisy/loss", "{:+.3g}"),
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
        ends = {f"step {row['step']:.0f}": row for row in (rows[0], rows[-1])}  # one column where nothing followed
        for step in ends:
            table.add_column(step, justify="right")
        accurate = any(_measured(row, "train/accuracy") for row in rows)
        for label, key, form in _SHOWN:
            if accurate and key.endswith("/loss") and key != "train/loss":
                continue  # of a task with an accuracy, the losses are in metrics.csv
            if any(_measured(row, key) for row in ends.values()):
                table.add_row(label, *(form.format(row[key]) if _measured(row, key) else "" for row in ends.values()))
        console.print(table)
    path, config = outcome.folder.path, outcome.folder.config()
    seconds = outcome.folder.summary()["seconds"]
    console.print(f"{seconds['total']:.0f} s, of which {seconds['training']:.0f} s training")
    console.print(f"numbers   {path / 'metrics.csv'}")
    console.print(f"figures   {path / 'figures' / 'overview.png'}")
    if config["wandb"] != "off" and (path / "wandb").is_dir():
        place = shlex.quote(str(path / "wandb"))
        unsent = any((path / "wandb").glob("offline-run-*"))
        sends = f"; `wandb sync {place}` uploads it" if unsent else ""
        console.print(f"W&B       `wandb leet {place}` shows it here without an account{sends}")
    if outcome.message:
        print(outcome.message, file=sys.stderr)
    elif outcome.status == "finished":
        other = "bptt" if config["rule"]["name"] != "bptt" else "rflo"
        again = shlex.quote(str(path / "config.yaml"))
        console.print(f"next      the same under another rule: bpgen fit --config {again} --rule {other}")
    return outcome.exit_code


def _measured(row: Mapping[str, float], key: str) -> bool:
    return not math.isnan(row.get(key, math.nan))
