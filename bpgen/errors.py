"""Errors a user can act on: what was wrong, what was expected, what to do."""

from __future__ import annotations

import difflib
import inspect
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar, get_args

Value = TypeVar("Value")


class BpgenError(Exception):
    """Bad input. The command line prints the message alone and exits with code 2."""


NO_MEMORY = (
    "there is not enough memory for this. Take smaller batches (--trainer.batch_size), a smaller network "
    "(--network.n_rec) or fewer samples of what is measured, or a machine with more."
)


class RuleError(Exception):
    """A rule broke its contract: what it returned cannot be used. The command line prints the message alone, too."""


class DivergedError(Exception):
    """Training left the finite numbers: data about a rule, not bad input (exit code 3)."""


class UnstableRuleWarning(UserWarning):
    """A rule whose credit grows without bound as it travels: its gradients may lose all meaning on long sequences."""


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> BpgenError:
    """The error for a name that does not exist, with the nearest one that does; a short list is given whole."""
    known = sorted(known)
    bare = {other.lstrip("-"): other for other in known}  # dashes alone make nothing alike
    near = difflib.get_close_matches(name.lstrip("-"), bare, n=1)
    parts = [f"unknown {kind} {name!r}."]
    if near:
        parts.append(f"Did you mean {bare[near[0]]!r}?")
    if 0 < len(known) <= 15:
        parts.append(f"Known: {', '.join(known)}.")
    return BpgenError(" ".join([*parts, hint]).strip())


def choice(name: str, value: Value, choices: Any) -> Value:
    """`value`, once it is seen to be one of `choices`.

    Args:
        name: of the option, for the message.
        value: what was given.
        choices: a `Literal`, or the known names (a mapping stands for its keys).

    Raises:
        BpgenError: it is none of them.
    """
    known = get_args(choices) or tuple(choices)
    if value not in known:
        raise unknown(name, str(value), known)
    return value


def require(condition: bool, message: str) -> None:
    """Raise `BpgenError(message)` unless `condition` holds."""
    if not condition:
        raise BpgenError(message)


def defined_in(cls: type, method: str | None = None) -> str:
    """A class, or one of its methods, with the file and line where its author wrote it."""
    part: Any = cls if method is None else getattr(cls, method)
    try:
        return f"{cls.__name__} ({inspect.getsourcefile(part)}, line {inspect.getsourcelines(part)[1]})"
    except (OSError, TypeError):  # typed into a shell or a notebook
        return cls.__name__


def raised_in(error: BaseException, cls: type) -> str | None:
    """Where in the file of `cls` an error came up, for those who wrote it; None if it did not pass through there."""
    found = culprit(error, {cls.__name__: cls})
    return found.place if found else None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was not enough; torch's on a CPU is a RuntimeError like any other."""
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))


class Culprit(NamedTuple):
    """Whose code raised an error, and where in it."""

    name: str
    place: str


def culprit(error: BaseException, parts: Mapping[str, type]) -> Culprit | None:
    """The part in whose file an error came up, nearest to where it was raised; None if it passed through none.

    Args:
        error: as it was caught.
        parts: their classes by what they are called.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        for name, cls in parts.items():
            with suppress(OSError, TypeError):  # typed into a shell or a notebook
                if inspect.getsourcefile(cls) == frame.filename:
                    return Culprit(name, f"{frame.filename}, line {frame.lineno}, in {frame.name}")
    return None


def failure(error: BaseException, parts: Mapping[str, type]) -> BpgenError:
    """The error that says which part failed, and where.

    Args:
        error: as it was caught; raised again where it is the fault of none of them.
        parts: their classes by what they are called.
    """
    if out_of_memory(error):
        return BpgenError(NO_MEMORY)
    who = culprit(error, parts)
    if who is None:
        raise error
    return BpgenError(f"{who.name} failed: {type(error).__name__}: {error} ({who.place})")
