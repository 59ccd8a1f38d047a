"""W&B's own word: its environment variables, its settings files, and whether it has a key."""

from __future__ import annotations

import atexit
import io
import netrc
import os
import shutil
import sys
import tempfile
from contextlib import redirect_stderr
from typing import Any, Literal
from urllib.parse import urlparse

from bpgen.errors import BpgenError

Mode = Literal["auto", "online", "offline", "off"]
_SECOND_NAMES = {"api.forge.coreweave.com": "api.wandb.ai"}  # W&B looks for keys of its cloud under both
_MODES = {"run": "online", "dryrun": "offline", "disabled": "off"}  # W&B's other names
_YES = ("1", "true", "yes", "on")


def own_settings(machine: bool) -> Any:
    """What W&B's environment variables and settings files say, read once in a process.

    Args:
        machine: whether W&B may send its makers diagnostics; decided by the first call.

    Raises:
        BpgenError: W&B refuses one of them.
    """
    if not machine:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # before W&B starts its process
    _give_a_cache()
    import wandb

    heard = io.StringIO()  # it says which files it reads
    try:
        with redirect_stderr(heard):
            settings = wandb.setup().settings
    except (ValueError, wandb.errors.UsageError) as error:  # of pydantic
        heard.write(f"wandb: ERROR {error}")
    lines = [line.split(" [type=")[0].removeprefix("wandb: ") for line in heard.getvalue().splitlines()]  # no values
    if not any(line.startswith("ERROR") for line in lines):
        return settings
    wandb.teardown()
    text = " ".join(line.removeprefix("ERROR").strip() for line in lines if "errors.pydantic.dev" not in line)
    raise BpgenError(
        f"W&B refuses its own settings ({text}): correct its WANDB_... variables or its settings file, "
        f"or use --wandb off."
    )


def resolved(mode: Mode, own: Any) -> str:
    """online, offline, shared or off: bpgen's option, else W&B's own settings, else whether there is a key."""
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_DISABLED", "").lower() in _YES:
        return "off"
    if "mode" in own.model_fields_set:
        return _MODES.get(own.mode, own.mode)
    return "online" if has_key() else "offline"


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


def _give_a_cache() -> None:
    """W&B's service keeps its log in the user's cache folder; where there is none it would print all of it."""
    home, cache = os.environ.get("HOME"), os.environ.get("XDG_CACHE_HOME")
    place = cache or (os.path.join(home, ".cache") if home else None)
    try:
        if place is not None:
            os.makedirs(place, exist_ok=True)
        usable = place is not None and os.access(place, os.W_OK)
    except OSError:
        usable = False
    if not usable and sys.platform.startswith("linux"):
        os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="bpgen-wandb-")
        atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
