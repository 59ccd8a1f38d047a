"""A run that a W&B agent started: what its sweep varies, and how its config is logged beside that.

An agent writes the values it chose into a file and W&B locks them in the run's config, under the names the sweep gives
them. They must stay: W&B's grid search knows by them which runs were made (`grid_search.py` of its package sweeps).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

AGENT = "WANDB_SWEEP_ID"  # in the environment of what an agent starts
NAMES = "names"  # in every run's W&B config: `names.rule`, `names.task`, ...; what a sweep locks does not reach it


def in_sweep() -> bool:
    """Whether a W&B agent started this process."""
    return bool(os.environ.get(AGENT))


def swept(file: str | None) -> dict[str, Any]:
    """What the agent chose, by option; nothing where there is no agent. A study's sweep varies whole configs.

    Args:
        file: that the agent wrote (WANDB_SWEEP_PARAM_PATH).
    """
    if not file or not Path(file).is_file():
        return {}
    content = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
    chosen = {key: entry["value"] for key, entry in content.items() if isinstance(entry, Mapping) and "value" in entry}
    return {key: value for key, value in chosen.items() if key not in ("config", "wandb_version")}


def log_config(logged: Any, config: dict[str, Any], varied: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Log a run's config, whole, whatever of it a sweep has locked, and by what parts are called (`NAMES`).

    What is locked stays to the letter, a word (`rule: rflo`) or a group (`rule: {name: rflo}`, which may be one of the
    values of a grid); the options that it lacks stand beside it as `rule.scale`, `rule.feedback`, ...

    Args:
        logged: the config of the W&B run.
        config: of the run, by group.
        varied: see `swept`.
        say: told what a sweep should vary instead.
    """
    names = {key: group["name"] for key, group in config.items() if isinstance(group, Mapping) and "name" in group}
    if names:
        config = {**config, NAMES: names}
    for key in [key for key in varied if key in config]:
        group, locked = config[key], varied[key]
        config = {other: value for other, value in config.items() if other != key}
        if not isinstance(group, Mapping):
            continue
        known = locked if isinstance(locked, Mapping) else {}
        config |= {f"{key}.{option}": value for option, value in group.items() if option not in known}
        say(
            f"this sweep varies {key}, so that W&B has its other options beside it; vary {key}.name or another option "
            f"of {key} instead, and they are in {key} as in other runs"
        )
    logged.update(config, allow_val_change=True)
