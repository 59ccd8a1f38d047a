"""Weights & Biases through Lightning's logger: online with a key, offline without an account, never in the way.

W&B's own word counts wherever bpgen's options say nothing: its environment variables (WANDB_MODE, WANDB_DISABLED,
WANDB_PROJECT, WANDB_ENTITY, WANDB_NAME, WANDB_DIR, WANDB_RUN_GROUP, WANDB_TAGS, ...) and the settings files that
`wandb offline`, `wandb disabled` and `wandb init` write. An option given to bpgen wins over them.

Waiting is bounded: a server that does not answer costs `INIT_SECONDS` at the start, and one that does not take what is
left `FINISH_SECONDS` at the end (WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT set other bounds). Nothing is lost: W&B
keeps the whole run on disk, and `wandb sync` sends it later.

Privacy: W&B can record host, hardware, packages, git state, command line and console output, and sends its makers
diagnostics of its own. All of that is off unless `tracking.machine` asks for it; kept are the metrics, figures and
config of the run without the folders in it, and the versions of W&B and Python. With an artifact, and W&B makes one of
every table, it also sends where the files lay: so there are none unless `tracking.artifacts` asks for them.
"""

from __future__ import annotations

import io
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bpgen.errors import choice, require
from bpgen.tracking.own_settings import Mode, has_key, own_settings, resolved
from bpgen.tracking.sweep import log_config, swept

INIT_SECONDS, FINISH_SECONDS = 5.0, 10.0
_PROJECT = "bpgen"
_LONGEST = 128  # characters of a W&B name


@dataclass(frozen=True)
class Tracking:
    """Where a run appears on Weights & Biases.

    Args:
        project: W&B project; by default W&B's own (WANDB_PROJECT or its settings file), or bpgen.
        entity: W&B user or team; by default W&B's own (WANDB_ENTITY), or yours.
        group: runs to show together, e.g. the seeds of one experiment; by default WANDB_RUN_GROUP.
        tags: labels of the run, e.g. [pilot, alpha1]; by default WANDB_TAGS.
        job_type: what kind of run it is, e.g. train or pilot; by default WANDB_JOB_TYPE.
        study: the study it belongs to, by which W&B can group (`tracking.study`); a study says it by itself.
        condition: its condition in the study (`tracking.condition`).
        artifacts: also hand W&B networks, config and metrics, as an artifact, and tables; of a study its report.
        machine: let W&B also record host, hardware, packages, git state, command line and console output.
    """

    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: list[str] | None = None
    job_type: str | None = None
    study: str | None = None
    condition: str | None = None
    artifacts: bool = False
    machine: bool = False

    def __post_init__(self) -> None:
        project = _PROJECT if self.project is None else self.project
        require(
            1 <= len(project) <= 128 and not set(project) & set("/\\#?%:"),
            f"tracking.project must have 1 to 128 characters, and none of / \\ # ? % :, got {self.project!r}.",
        )
        for tag in self.tags or ():
            require(1 <= len(tag) <= 64, f"tracking.tags must have 1 to 64 characters each, got {tag!r}.")


@dataclass(frozen=True)
class Tracker:
    """Where a run will be tracked: made before anything is written, opened once the run has its folder.

    mode: online, offline or shared. tracking: project and labels. own: what W&B's own settings say.
    """

    mode: str
    tracking: Tracking
    own: Any

    @classmethod
    def of(cls, mode: Mode, tracking: Tracking) -> Tracker | None:
        """From bpgen's options and W&B's own settings; nothing where the run is not tracked.

        Args:
            mode: auto is what W&B's settings say; where they say nothing, online with a configured key, else offline.
            tracking: project and labels.

        Raises:
            BpgenError: an unknown mode, or a variable or settings file of W&B's that W&B refuses.
        """
        if choice("wandb mode", mode, Mode) == "off":
            return None
        own = own_settings(tracking.machine)
        chosen = resolved(mode, own)
        return None if chosen == "off" else cls(chosen, tracking, own)

    def open(
        self,
        folder: Path,
        config: dict[str, Any],
        say: Callable[[str], None],
        run_id: str | None = None,
        beside: bool = False,
    ) -> Any:
        """Open the W&B run of a folder: a `SafeLogger`.

        Args:
            folder: the run's folder; W&B writes to its `wandb/`, or below WANDB_DIR.
            config: the resolved config, logged with the run.
            say: told in one line when the server cannot be reached, and when something is left to be sent at the end.
            run_id: W&B id of an earlier part of the same run.
            beside: leave other W&B runs of this process open.
        """
        from bpgen.tracking.safe_logger import SafeLogger  # Lightning

        if not self.tracking.machine:
            config = _without_folders({key: value for key, value in config.items() if key != "out"})
        varied = swept(self.own.sweep_param_path)
        named = bool(config.get("name")) or not self.own.run_name  # an option wins over WANDB_NAME
        options = _options(self.tracking, folder, self.own, run_id)
        options |= {"name": _name(folder, config, varied) if named else None}
        run = _open(self, folder, options | ({"reinit": "create_new"} if beside else {}), run_id, say)
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step")
        log_config(run.config, config, varied, say)
        return SafeLogger(run, say, config, self.tracking.artifacts)


def start(
    mode: Mode,
    tracking: Tracking,
    folder: Path,
    config: dict[str, Any],
    say: Callable[[str], None],
    run_id: str | None = None,
) -> Any:
    """`Tracker.of` and `Tracker.open` at once."""
    tracker = Tracker.of(mode, tracking)
    return None if tracker is None else tracker.open(folder, config, say, run_id)


def _name(folder: Path, config: dict[str, Any], varied: dict[str, Any]) -> str:
    """What W&B shows a run as: a study's by its condition, a sweep's with what it varies, any other by its folder."""
    tracking = config.get("tracking") or {}
    if tracking.get("study") and tracking.get("condition"):
        return f"{tracking['condition']}, seed {config.get('seed')}"[:_LONGEST]
    values = [f"{key.removesuffix('.name').rpartition('.')[2]}={value}" for key, value in varied.items()]
    return ", ".join([folder.name, *values])[:_LONGEST]


def _without_folders(value: Any) -> Any:
    """A config whose absolute paths are cut to their last part."""
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value


def _open(
    tracker: Tracker, folder: Path, options: dict[str, Any], run_id: str | None, say: Callable[[str], None]
) -> Any:
    """An open W&B run; offline where the server does not answer in time or refuses."""
    import wandb

    mode, own = tracker.mode, tracker.own
    traces = set(_traces(own, options))
    silent = "silent" not in own.model_fields_set and (mode == "offline" or has_key())  # it may ask for a key
    try:
        with redirect_stderr(io.StringIO()) if silent else nullcontext():
            return wandb.init(mode=mode, **options)  # type: ignore[arg-type]
    except (wandb.errors.CommError, wandb.errors.UsageError) as error:
        reason = str(error).strip().splitlines()[0]
    for trace in set(_traces(own, options)) - traces:  # of the try that failed; one run is one folder
        shutil.rmtree(trace, ignore_errors=True)
    if run_id or own.run_id:
        wandb.teardown()  # or W&B says that the id is in use
    elif options["id"]:
        options["id"] = secrets.token_hex(4)
    run = wandb.init(mode="offline", **options)
    kept = folder / "wandb" if options["dir"] else run.settings.sync_dir
    say(f"W&B cannot be reached ({reason}): going on offline; `wandb sync {kept}` sends it later")
    return run


def _options(tracking: Tracking, folder: Path, own: Any, run_id: str | None) -> dict[str, Any]:
    """Arguments of `wandb.init`; what is None there is left to W&B's own settings."""
    import wandb

    settings: dict[str, Any] = {"init_timeout": INIT_SECONDS, "finish_timeout": FINISH_SECONDS, "silent": True}
    settings = {name: value for name, value in settings.items() if name not in own.model_fields_set}
    settings["finish_timeout_raises"] = True
    if not tracking.machine:
        settings |= {
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
    return {
        "dir": None if "root_dir" in own.model_fields_set else folder,
        "project": tracking.project or (None if own.project or own.sweep_id else _PROJECT),
        "id": run_id or (None if own.run_id or own.sweep_id else secrets.token_hex(4)),
        "entity": tracking.entity,
        "group": tracking.group,
        "job_type": tracking.job_type,
        "tags": tracking.tags,
        "resume": "allow",
        "settings": wandb.Settings(**settings),
    }


def _traces(own: Any, options: dict[str, Any]) -> list[Path]:
    """The folders of online parts of a run; W&B names them `run-TIME-ID`."""
    run_id = options["id"] or own.run_id
    return list(Path(options["dir"] or own.root_dir).glob(f"*wandb/run-*-{run_id}")) if run_id else []
