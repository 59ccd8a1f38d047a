"""Files that runs and studies read, each with a clear error where it is damaged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bpgen._version import __version__
from bpgen.errors import BpgenError, require
from bpgen.run import dialect

FORMAT = 1
_EXAMPLES = {"config": "rule: rflo", "plan": "axes: {rule: [bptt, rflo]}"}


def read_config(path: Path, kind: str = "config") -> dict[str, Any]:
    """A config file, or another `kind` of them, as a dictionary without its format number.

    Raises:
        BpgenError: unreadable, not YAML, not a mapping, or of another format.
    """
    try:
        config = dialect.read(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BpgenError(f"cannot read {kind} {path}: {getattr(error, 'strerror', None) or error}.") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        raise BpgenError(
            f"{kind} {path} is not valid YAML{f' at line {where.line + 1}' if where else ''}: "
            f"{getattr(error, 'problem', error)}."
        ) from None
    require(isinstance(config, dict), f"{kind} {path} must be a mapping such as '{_EXAMPLES[kind]}'.")
    written = config.pop("format", FORMAT)
    require(
        type(written) is int and written == FORMAT,
        f"{kind} {path} has format {written!r}, this bpgen {__version__} reads format {FORMAT}: "
        f"use the bpgen that wrote it, or carry its options over by hand.",
    )
    return config


def read_value(text: str) -> Any:
    """The value of an option as it is written on a command line, in YAML.

    Raises:
        BpgenError: it is none.
    """
    try:
        return dialect.read(text)
    except yaml.YAMLError as error:
        raise BpgenError(f"{text[:80]!r} is not a value in YAML: {getattr(error, 'problem', error)}.") from None


def as_text(value: Any) -> str:
    """A value as it is written on a command line."""
    return value if isinstance(value, str) else json.dumps(value)


def as_json(value: Any) -> str:
    """A value as JSON; numbers that it does not know become null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_file(file: Path, remedy: str, *keys: str) -> dict[str, Any]:
    """What torch saved in a file: a dictionary.

    Args:
        file: to read; nothing in it is executed.
        remedy: what to do where it is damaged.
        keys: what it must hold.

    Raises:
        BpgenError: the file is damaged, or holds something else.
    """
    import torch  # configs are read before it is there

    try:
        content = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # pickle and zip have many ways to fail
        raise BpgenError(f"{file} is damaged ({type(error).__name__}): {remedy}.") from None
    whole = isinstance(content, dict) and all(key in content for key in keys)
    require(whole, f"{file} is damaged (it does not hold {', '.join(keys)}): {remedy}.")
    return content
