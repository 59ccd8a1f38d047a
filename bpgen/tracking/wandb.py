"""Weights & Biases through Lightning's logger: online with a key, offline without an account, never in the way.

W&B's own word counts wherever bpgen's options say nothing: its environment variables (WANDB_MODE, WANDB_DISABLED,
WANDB_PROJECT, WANDB_ENTITY, WANDB_NAME, WANDB_DIR, WANDB_RUN_GROUP, WANDB_TAGS, ...) and the settings files that
`wandb offline`, `wandb disabled` and `wandb init` write. An option given to bpgen wins over them.

Waiting is bounded: a server that does not answer costs `INIT_SECONDS` at the start, and one that does not take what is
left `FINISH_SECONDS` at the end (WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT set other bounds). Nothing is lost: W&B
keeps the whole run on disk, and `wandb sync` sends it later.

Privacy: W&B can record host, hardware, packages, git state, command line and console output, and sends its makers
diagnostics of its own. All of that is off unless `tracking.machine` asks for it; kept are the metrics, figures and
config of the run without the folders in it, and the versions of W&B and Python.
"""

from __future__ import annotations

import atexit
import io
import netrc
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from lightning.pytorch.loggers import WandbLogger

from bpgen.errors import BpgenError, require, unknown

Mode = Literal["auto", "online", "offline", "off"]
INIT_SECONDS, FINISH_SECONDS = 5.0, 10.0
_PROJECT = "bpgen"
_SECOND_NAMES = {"api.forge.coreweave.com": "api.wandb.ai"}  # W&B looks for keys of its cloud under both
_MODES = {"run": "online", "dryrun": "offline", "disabled": "off"}  # W&B's other names
_YES = ("1", "true", "yes", "on")


@dataclass(frozen=True)
class Tracking:
    """Where a run appears on Weights & Biases.

    Args:
        project: W&B project; by default W&B's own (WANDB_PROJECT or its settings file), or bpgen.
        entity: W&B user or team; by default W&B's own (WANDB_ENTITY), or yours.
        group: runs to show together, e.g. the seeds of one experiment; by default WANDB_RUN_GROUP.
        tags: labels of the run, e.g. [pilot, alpha1]; by default WANDB_TAGS.
        machine: let W&B also record host, hardware, packages, git state, command line and console output.
    """

    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: list[str] | None = None
    machine: bool = False

    def __post_init__(self) -> None:
        project = _PROJECT if self.project is None else self.project
        require(
            1 <= len(project) <= 128 and not set(project) & set("/\\#?%:"),
            f"tracking.project must have 1 to 128 characters, and none of / \\ # ? % :, got {self.project!r}.",
        )
        for tag in self.tags or ():
            require(1 <= len(tag) <= 64, f"tracking.tags must have 1 to 64 characters each, got {tag!r}.")


def check(mode: Mode, tracking: Tracking) -> None:
    """See that W&B can read its own settings, before anything is written.

    Raises:
        BpgenError: an unknown mode, or a variable or settings file of W&B's that W&B refuses.
    """
    if mode not in ("auto", "online", "offline", "off"):
        raise unknown("wandb mode", mode, ("auto", "online", "offline", "off"))
    if mode != "off":
        _own_settings(tracking)


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
        mode: auto is what W&B's own settings say; where they say nothing, online with a configured key, else offline.
        tracking: project and labels.
        folder: the run's folder; W&B writes to its `wandb/`, or below WANDB_DIR.
        config: the resolved config, logged with the run.
        say: told in one line when the server cannot be reached and the run goes on offline.
        run_id: W&B id of an earlier part of the same run.

    Raises:
        BpgenError: see `check`.
    """
    check(mode, tracking)
    if mode == "off":
        return None
    own = _own_settings(tracking)
    chosen = _resolved(mode, own)
    if chosen == "off":
        return None
    if not tracking.machine:
        config = _without_folders({key: value for key, value in config.items() if key != "out"})
    import wandb

    options = _options(tracking, folder, own, run_id)
    traces = set(_traces(own, options))
    try:
        run = wandb.init(mode=chosen, **options)  # type: ignore[arg-type]
    except (wandb.errors.CommError, wandb.errors.UsageError) as error:
        for trace in set(_traces(own, options)) - traces:  # of the try that failed; one run is one folder
            shutil.rmtree(trace, ignore_errors=True)
        run = wandb.init(mode="offline", **options)
        reason = str(error).strip().splitlines()[0]
        kept = folder / "wandb" if options["dir"] else run.settings.sync_dir
        say(f"W&B cannot be reached ({reason}): going on offline; `wandb sync {kept}` sends it later")
    run.define_metric("step", hidden=True)
    run.define_metric("*", step_metric="step")
    run.config.update(config, allow_val_change=True)
    return WandbLogger(experiment=run)


def finish(logger: WandbLogger, status: str, say: Callable[[str], None]) -> None:
    """Close the W&B run with the status of the run; if not everything could be sent in time, say what to do.

    Args:
        logger: what `start` returned.
        status: finished, diverged, interrupted or failed; anything but finished is a failed run for W&B.
        say: told in one line when something is left to be sent.
    """
    run, heard = logger.experiment, io.StringIO()
    run.summary["status"] = status
    try:
        with redirect_stderr(heard):  # W&B says several lines of its own
            run.finish(exit_code=0 if status == "finished" else 1)
        sent = "wandb sync" not in heard.getvalue()
    except TimeoutError:
        sent = False
    if sent:
        sys.stderr.write(heard.getvalue())
        return
    left = Path(run.settings.sync_dir)
    size = sum(file.stat().st_size for file in left.rglob("*") if file.is_file() and not file.is_symlink())
    say(
        f"W&B's server did not take the whole run: it is kept in {left} ({size / 1e6:.1f} MB); "
        f"`wandb sync {left}` sends it later"
    )


def has_key() -> bool:
    """Whether W&B has a key for its server: WANDB_API_KEY, or the netrc entry that `wandb login` writes."""
    import wandb

    settings = wandb.setup().settings
    if os.environ.get("WANDB_API_KEY") or settings.identity_token_file:
        return True
    host = urlparse(settings.base_url).netloc  # from WANDB_BASE_URL, `wandb login --host` or W&B's own
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


def _own_settings(tracking: Tracking) -> Any:
    """What W&B's environment variables and settings files say, read once in a process; W&B itself is kept silent."""
    if not tracking.machine:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # before W&B starts its process
    os.environ.setdefault("WANDB_SILENT", "true")
    _give_a_cache()
    import wandb

    try:
        return wandb.setup().settings
    except (ValueError, wandb.errors.UsageError) as error:  # of pydantic
        lines = [line.split(" [type=")[0].strip() for line in str(error).splitlines()]  # without the value: a secret?
        text = "; ".join(line for line in lines if "errors.pydantic.dev" not in line)
        raise BpgenError(
            f"W&B refuses its own settings ({text}): correct its WANDB_... variables or its settings file, "
            f"or use --wandb off."
        ) from None


def _resolved(mode: Mode, own: Any) -> str:
    """online, offline, shared or off: bpgen's option, else W&B's own settings, else whether there is a key."""
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_DISABLED", "").lower() in _YES:
        return "off"
    if "mode" in own.model_fields_set:
        return _MODES.get(own.mode, own.mode)
    return "online" if has_key() else "offline"


def _options(tracking: Tracking, folder: Path, own: Any, run_id: str | None) -> dict[str, Any]:
    """Arguments of `wandb.init`; what is None there is left to W&B's own settings."""
    import wandb

    settings: dict[str, Any] = {"init_timeout": INIT_SECONDS, "finish_timeout": FINISH_SECONDS}
    settings = {name: value for name, value in settings.items() if name not in own.model_fields_set}
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
        "name": None if own.run_name else folder.name,
        "dir": None if "root_dir" in own.model_fields_set else folder,
        "project": tracking.project or (None if own.project or own.sweep_id else _PROJECT),
        "id": run_id or (None if own.run_id or own.sweep_id else secrets.token_hex(4)),
        "entity": tracking.entity,
        "group": tracking.group,
        "tags": tracking.tags,
        "resume": "allow",
        "settings": wandb.Settings(finish_timeout_raises=True, **settings),
    }


def _traces(own: Any, options: dict[str, Any]) -> list[Path]:
    """The folders of online parts of a run; W&B names them `run-TIME-ID`."""
    run_id = options["id"] or own.run_id
    return list(Path(options["dir"] or own.root_dir).glob(f"*wandb/run-*-{run_id}")) if run_id else []


def _give_a_cache() -> None:
    """W&B's service keeps its log in the user's cache folder; where there is none it would print all of it."""
    home, cache = os.environ.get("HOME"), os.environ.get("XDG_CACHE_HOME")
    try:
        place = Path(cache or Path(home or "") / ".cache")
        place.mkdir(parents=True, exist_ok=True)
        usable = bool(cache or home) and os.access(place, os.W_OK)
    except OSError:
        usable = False
    if not usable and sys.platform.startswith("linux"):
        os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="bpgen-wandb-")
        atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
