"""What data of a user's own a run was made from: where they lie, their shapes, and a hash of what was read.

    data.json   {"places": {option: absolute path}, "splits": {name: {"x": [T,n,I], "target": [...]}}, "sha256": ...}
Written by runs whose task has an option that names a file or folder. Tasks that draw their data need none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bpgen.run.config import Config
from bpgen.run.files import as_json
from bpgen.tasks import Task
from bpgen.tasks.split import SPLITS

FILE = "data.json"


def places(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that name a file or folder which is there, with its absolute path; of a mapping in the same form."""
    found: dict[str, Any] = {}
    for option, value in options.items():
        if isinstance(value, Mapping):
            found[option] = places(value)
        elif isinstance(value, str) and option != "name" and _there(Path(value)):
            found[option] = str(Path(value).expanduser().resolve())
    return {option: place for option, place in found.items() if place}


def placed(options: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the absolute paths that are known of them, where something still lies there."""
    return {
        option: placed(value, known.get(option, {}))
        if isinstance(value, Mapping)
        else known[option]
        if isinstance(known.get(option), str) and _there(Path(known[option]))
        else value
        for option, value in options.items()
    }


def facts(config: Config, task: Task) -> dict[str, Any]:
    """What there is to remember; empty for a task that names no file."""
    where = places(config.task.options)
    if not where:
        return {}
    splits = {name: task.split(name) for name in SPLITS if task.has(name)}
    shapes = {name: {"x": list(split.x.shape), "target": list(split.target.shape)} for name, split in splits.items()}
    hashed = hashlib.sha256()
    for split in splits.values():
        for part in (split.x, split.target, split.mask):
            if part is not None:
                hashed.update(part.detach().cpu().contiguous().numpy().data)
    return {"places": where, "splits": shapes, "sha256": hashed.hexdigest()}


def remembered(config: Config, task: Task) -> str:
    """The text of data.json; empty for a task that names no file."""
    found = facts(config, task)
    return as_json(found) + "\n" if found else ""


def read(folder: Path) -> dict[str, Any]:
    """What a run wrote; empty where it wrote nothing, or it is damaged."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("places"), dict) else {}


def changed(folder: Path, config: Config, task: Task) -> str:
    """How the data differ from those that a run was made from, in words; empty where they do not."""
    before = read(folder)
    now = facts(config, task) if before else {}
    if not now or now["sha256"] == before.get("sha256"):
        return ""
    files = ", ".join(_flat(now["places"]))
    same = now["splits"] == before.get("splits")
    shapes = "of the same shapes" if same else f"shapes {before.get('splits')}, now {now['splits']}"
    return f"the data in {files} are not those that {folder} was made from ({shapes}, other values)"


def _there(place: Path) -> bool:
    try:
        return place.expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long a name, a zero byte, no such user
        return False


def _flat(found: Mapping[str, Any]) -> list[str]:
    return [path for place in found.values() for path in (_flat(place) if isinstance(place, Mapping) else [str(place)])]
