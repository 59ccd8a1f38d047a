"""Values as Python writes them, which is what a W&B agent's ${args} hand over: None, True, {'n_rec': 32}, [1, None]."""

from __future__ import annotations

import ast
import json
from collections.abc import Collection, Sequence
from typing import Any

_OTHER = object()  # what is no such value stays as it is written


def plainly(argv: Sequence[str], groups: Collection[str]) -> list[str]:
    """A command line with these values as YAML has them; a group given whole becomes an option for each key.

    Args:
        argv: `--trainer.patience=None --rule={'name': 'rflo', 'scale': 0.5}`
        groups: names of groups of options.
    """
    plain: list[str] = []
    for token in argv:
        key, equals, text = token.partition("=")
        value = _read(text if equals else token)
        if value is _OTHER:
            plain.append(token)
        elif equals and isinstance(value, dict) and key.removeprefix("--") in groups:
            plain += [f"{key}.{option}={_text(inner)}" for option, inner in value.items()]
        else:
            plain.append(f"{key}={_text(value)}" if equals else _text(value))
    return plain


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _read(text: str) -> Any:
    if text not in ("None", "True", "False") and text[:1] not in ("{", "[", "("):
        return _OTHER
    try:
        value = ast.literal_eval(text)
        json.dumps(value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return _OTHER  # of YAML, or a set, bytes, ..., which no option is
    return value
