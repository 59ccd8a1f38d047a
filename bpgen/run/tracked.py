"""What W&B is handed when a run has ended: its figures; if asked for, its networks, and its evaluations as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from bpgen.columns import Column
from bpgen.figures.run import PANELS
from bpgen.run.files import FORMAT
from bpgen.run.folder import RunFolder

_OTHERS = {
    "overview": "The main panels of the run.",
    "confusion": "How often the last network answers each class of the test as each.",
}


def hand_over(folder: RunFolder, columns: Sequence[Column], logger: Any) -> None:
    """Give the W&B run what the folder of a run holds.

    Args:
        folder: of the run, complete.
        columns: what its measurements say of theirs.
        logger: a `SafeLogger`; if it takes artifacts, it is handed networks, config and metrics too, as a folder that
            `bpgen.load_run` reads, and a table.
    """
    logger.log_figures({file: caption(file.stem, columns) for file in sorted((folder.path / "figures").glob("*.png"))})
    if logger.artifacts:
        logger.log_rows("evaluations", folder.rows())
        config = yaml.safe_dump({"format": FORMAT, **logger.config}, sort_keys=False, allow_unicode=True)
        texts = {"config.yaml": config}
        if folder.metrics_file.is_file():
            texts["metrics.csv"] = folder.metrics_file.read_text(encoding="utf-8")
        networks = {f"weights/{file.name}": file for file in folder.weights().values()}
        logger.keep_files("networks", "model", {**texts, **networks})


def caption(name: str, columns: Sequence[Column] = ()) -> str:
    """What a picture of `run_figures` shows, in a sentence."""
    if name in _OTHERS:
        return _OTHERS[name]
    if name in PANELS:
        return (PANELS[name].__doc__ or "").partition("\n")[0]
    shown = [column.label for column in columns if column.panel == name]
    return f"{', '.join(shown) or name.replace('_', ' ')} against steps."
