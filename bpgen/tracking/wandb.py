"""Weights & Biases through Lightning's logger: online with a key, offline without an account, never in the way.

Privacy: W&B can record host, hardware, packages, git state, command line and console output, and sends its makers
diagnostics of its own. All of that is off unless `tracking.machine` asks for it; kept are the metrics, figures and
config of the run without the folders in it, and the versions of W&B and Python.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from lightning.pytorch.loggers import WandbLogger

from bpgen.errors import require, unknown

Mode = Literal["auto", "online", "offline", "off"]
_SECOND_NAMES = {"api.forge.coreweave.com": "api.wandb.ai"}  # W&B looks for keys of its cloud under both


@dataclass(frozen=True)
class Tracking:
    """Where a run appears on Weights & Biases.

    Args:
        project: W&B project.
        entity: W&B user or team; by default your own.
        group: runs to show together, e.g. the seeds of one experiment.
        tags: labels of the run, e.g. [pilot, alpha1].
        machine: let W&B also record host, hardware, packages, git state, command line and console output.
    """

    project: str = "bpgen"
    entity: str | None = None
    group: str | None = None
    tags: list[str] | None = None
    machine: bool = False

    def __post_init__(self) -> None:
        require(
            len(self.project) <= 128 and not set(self.project) & set("/\\#?%:"),
            f"tracking.project must have at most 128 characters, and none of / \\ # ? % :, got {self.project!r}.",
        )
        for tag in self.tags or ():
            require(1 <= len(tag) <= 64, f"tracking.tags must have 1 to 64 characters each, got {tag!r}.")


def start(
    mode: Mode,
    tracking: Tracking,
    folder: Path,
    config: dict[str, Any],
    say: Callable[[str], None],
    run_id: str | None = None,
) -> WandbLogger | None:
    """Open the W&B run of a folder, or nothing.

    Args:
        mode: auto is online only when a key is configured, else offline.
        tracking: project and labels.
        folder: the run's folder; W&B writes to its `wandb/`.
        config: the resolved config, logged with the run.
        say: told in one line when the server cannot be reached and the run goes on offline.
        run_id: W&B id of an earlier part of the same run.
    """
    if mode not in ("auto", "online", "offline", "off"):
        raise unknown("wandb mode", mode, ("auto", "online", "offline", "off"))
    if mode == "off":
        return None
    if not tracking.machine:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # before W&B starts its process
        config = _without_folders({key: value for key, value in config.items() if key != "out"})
    if mode == "auto":
        mode = "online" if has_key() else "offline"
    import wandb

    try:
        run = _open(mode, tracking, folder, run_id)
    except (wandb.errors.CommError, wandb.errors.UsageError) as error:
        reason = str(error).strip().splitlines()[0]
        say(f"W&B cannot be reached ({reason}): going on offline; `wandb sync {folder / 'wandb'}` uploads it later")
        run = _open("offline", tracking, folder, run_id)
    run.define_metric("step", hidden=True)
    run.define_metric("*", step_metric="step")
    run.config.update(config, allow_val_change=True)
    return WandbLogger(experiment=run)


def has_key() -> bool:
    """Whether W&B has a key for its server: WANDB_API_KEY, or the netrc entry that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    host = urlparse(wandb.setup().settings.base_url).netloc  # from WANDB_BASE_URL, `wandb login --host` or W&B's own
    hosts = (host, _SECOND_NAMES.get(host, host))
    places = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for place in places:
        try:
            keys = netrc.netrc(os.path.expanduser(place))
            if any(keys.authenticators(host) for host in hosts):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _without_folders(value: Any) -> Any:
    """A config whose absolute paths are cut to their last part."""
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value


def _open(mode: str, tracking: Tracking, folder: Path, run_id: str | None) -> Any:
    import wandb

    private: dict[str, Any] = {
        "x_disable_stats": True,
        "x_disable_meta": True,
        "x_disable_machine_info": True,
        "x_save_requirements": False,
        "host": "",
        "program": "bpgen",
        "disable_git": True,
        "disable_code": True,
        "console": "off",
    }
    return wandb.init(
        name=folder.name,
        dir=folder,
        project=tracking.project,
        id=run_id,
        mode=mode,  # type: ignore[arg-type]
        entity=tracking.entity,
        group=tracking.group,
        tags=tracking.tags,
        resume="allow",
        settings=wandb.Settings(silent=True, init_timeout=20, **({} if tracking.machine else private)),
    )
