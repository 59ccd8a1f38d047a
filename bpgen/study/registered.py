"""Which plan a study ran: its hash, all plans that ran in its folder, and what was changed in between.

A plan that is written down before the data are seen, with its hash, can be held against what was run: `bpgen study
--dry-run` prints the hash, and so does every report. STUDY/plans.yaml keeps every plan that ran there, the first one
first; a report says what has been changed since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bpgen import durable
from bpgen.run import dialect

FILE = "plans.yaml"
_ASIDE = ("name", "question")  # of a plan: what decides no number


def plan_hash(content: Mapping[str, Any]) -> str:
    """A short name of a plan's content: of all but its name, its question, and where data lie and runs are tracked."""
    return hashlib.sha256(json.dumps(_deciding(content), sort_keys=True, default=str).encode()).hexdigest()[:12]


def keep(folder: Path, content: Mapping[str, Any]) -> None:
    """Write down the plan of a study that is about to run; one that equals the last adds nothing."""
    before = history(folder)
    if not before or plan_hash(before[-1]) != plan_hash(content):
        durable.write(folder / FILE, dialect.written([*before, dict(content)]))
    durable.write(folder / "plan.yaml", dialect.written(dict(content)))


def history(folder: Path) -> list[dict[str, Any]]:
    """All plans that ran in a folder, the first one first; of a folder without such a list the one that it has."""
    plans = _read(folder / FILE) or [_read(folder / "plan.yaml")]
    return [plan for plan in plans if isinstance(plan, dict)] if isinstance(plans, list) else []


def _read(file: Path) -> Any:
    """What a YAML file holds; nothing where it is none, for a folder is reported in whatever state it is."""
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def plan_in_words(folder: Path) -> str:
    """A sentence for a report: the plan, and what was changed in it since the first run."""
    plans = history(folder)
    if not plans:
        return ""
    first, last = plans[0], plans[-1]
    found = changes(first, last)
    if len(plans) == 1 or not found:
        return f"Plan {plan_hash(last)}, as at its first run."
    return f"Plan {plan_hash(last)}. At its first run it was {plan_hash(first)}; since then: {'; '.join(found)}."


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two plans: `optimizer.lr: 0.02, now 0.5`, `seeds: with 3, 4, without 0`."""
    old, new = _deciding(before), _deciding(after)
    said = []
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        if a == b:
            continue
        if isinstance(a, list) and isinstance(b, list):
            parts = [("with", [v for v in b if v not in a]), ("without", [v for v in a if v not in b])]
            listed = ", ".join(f"{word} {', '.join(map(_text, values))}" for word, values in parts if values)
            said.append(f"{key}: {listed or 'in another order'}")
        else:
            said.append(f"{key}: {_text(a)}, now {_text(b)}")
    return said


def _deciding(content: Mapping[str, Any]) -> dict[str, Any]:
    """A plan as one level of keys: `axes.rule`, `tune.seeds`, options under their own names."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if key == "set" and isinstance(value, Mapping):
            flat |= value
        elif key in ("axes", "tune") and isinstance(value, Mapping):
            flat |= {f"{key}.{k}": v for k, v in value.items()}
        elif key not in _ASIDE:
            flat[key] = value
    return {key: value for key, value in flat.items() if not _of_place(key)}


def _of_place(key: str) -> bool:
    """Whether an option says only where data lie or runs are tracked."""
    return key.endswith("data_dir") or key == "wandb" or key.startswith("tracking.")


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, str) or not isinstance(value, (Mapping, Sequence)):
        return str(value)
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).strip()
