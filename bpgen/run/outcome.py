"""What the end of a run adds to its folder: the summary, tables of the last network, and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bpgen import durable
from bpgen.columns import Column
from bpgen.figures.confusion import confusion_figure
from bpgen.figures.cut import pixels
from bpgen.figures.run import About, run_figures
from bpgen.run.folder import RunFolder

CONFUSION = "confusion"


def write_outcome(folder: RunFolder, summary: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> None:
    """Write what there is to say of a run that has ended.

    Args:
        folder: the run's.
        summary: of it.
        tables: of its last network, by name.
    """
    folder.write_summary(summary)
    for name, table in tables.items():
        durable.write(folder.path / f"{name}.csv", table.to_csv(index=False))


def draw(folder: RunFolder, columns: Sequence[Column]) -> None:
    """Draw a run from what its folder holds.

    Args:
        folder: of a run that has ended.
        columns: what its measurements say of theirs.
    """
    if not folder.metrics_file.exists():
        return
    config, summary, name = folder.config(), folder.summary(), folder.path.name
    title = config.title if name.startswith(config.label) else f"{name}: {config.title}"
    chance, block = summary.get("chance"), config.measurements.get("sharpness", {}).get("block", "W_rec")
    about = About(summary.get("sequences", {}), math.nan if chance is None else chance, block)
    figures = run_figures(pd.read_csv(folder.metrics_file), title, columns, about)
    confused = folder.path / f"{CONFUSION}.csv"
    if confused.exists():
        figures[CONFUSION] = pixels(confusion_figure(pd.read_csv(confused), title))
    folder.write_figures(figures)
