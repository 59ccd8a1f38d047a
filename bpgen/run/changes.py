"""What was changed in a run while it went on: `bpgen fit --resume RUN --set KEY=VALUE`.

    changes.json   [{"step", "from", "to", "changed": {key: [before, after]}}]: from and to are hashes of the config
Only what says how training goes on may change: the learning rate and its schedule, and how long it lasts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bpgen import durable
from bpgen.errors import require, unknown
from bpgen.run.config import Config, as_begun, config_hash

FILE = "changes.json"
ALLOWED = (
    "optimizer.lr",
    *(f"schedule.{option}" for option in ("name", "gamma", "every", "early_factor", "early_steps")),
    *(f"trainer.{option}" for option in ("max_steps", "max_epochs", "patience", "clip")),
)


def history(folder: Path) -> list[dict[str, Any]]:
    """All changes so far, the first one first.

    Raises:
        BpgenError: the file is damaged.
    """
    file = folder / FILE
    try:
        entries = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
        whole = isinstance(entries, list) and all({"from", "to", "changed"} <= set(entry) for entry in entries)
    except (OSError, ValueError, TypeError):
        whole = False
    require(whole, f"{file} is damaged: it says what was changed in the run while it went on; restore it.")
    return list(entries)


def known_hashes(folder: Path, began: str) -> set[str]:
    """The hash that a run began with, and those that recorded changes led to from there."""
    known = {began}
    for entry in history(folder):
        if entry["from"] in known:
            known.add(entry["to"])
    return known


def changed(plain: Mapping[str, Any], changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """A plain config with changes, and what differs, as [before, after] by key.

    Raises:
        BpgenError: something that may not change, a value of another type, or one that is out of its range.
    """
    new: dict[str, Any] = {group: dict(v) if isinstance(v, Mapping) else v for group, v in plain.items()}
    different: dict[str, list[Any]] = {}
    for key, value in changes.items():
        if key not in ALLOWED:
            raise unknown("option to change in a run", key, ALLOWED, "Anything else needs a new run.")
        group, _, option = key.partition(".")
        before = new[group].get(option)
        new[group][option] = value
        if before != value:
            different[key] = [before, value]
    Config.of(as_begun(new))
    same = ", ".join(f"{key} {value}" for key, value in changes.items())
    require(bool(different), f"nothing changes: the run has {same} already.")
    return new, different


def record(folder: Path, step: int, before: Mapping[str, Any], after: Mapping[str, Any], what: dict[str, Any]) -> None:
    """Add a change to the history; one that never came to be, because the process ended there, is left out."""
    now = config_hash(before)
    entries = history(folder)
    while entries and entries[-1]["to"] != now:
        entries.pop()
    entries.append({"step": step, "from": now, "to": config_hash(after), "changed": what})
    durable.write(folder / FILE, json.dumps(entries, indent=2) + "\n")


def longer(before: Mapping[str, Any], after: Mapping[str, Any], step: int) -> bool:
    """Whether there is more to do under the new config than was done.

    Args:
        before: the plain config under which the run has finished.
        after: the one it is to go on with.
        step: at which it is.
    """
    old, new = before["trainer"], after["trainer"]
    steps, epochs = new.get("max_steps"), new.get("max_epochs")
    more = steps > step if steps is not None else epochs > old.get("max_epochs", 0) or old.get("max_steps") is not None
    return bool(more)
