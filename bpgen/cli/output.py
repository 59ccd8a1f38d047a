"""What the commands that measure saved networks write: a folder, JSON, and what was measured."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpgen.errors import BpgenError

if TYPE_CHECKING:
    from bpgen.run.replay import SavedSteps


def folder(name: str | None) -> Path | None:
    """The folder to write to, made before anything is measured.

    Raises:
        BpgenError: it cannot be made.
    """
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
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def head_of(saved: SavedSteps) -> dict[str, Any]:
    """Which run it is."""
    config = saved.folder.config()
    return {
        "run": str(saved.folder.path),
        "task": config.task.name,
        "rule": config.rule.name,
        "seed": config.seed,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
