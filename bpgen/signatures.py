"""The options of a class: what its constructor takes, read from signatures and docstrings; standard library only.

Options that a constructor hands on to its base class as **keywords are its own too.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Union

from bpgen.errors import BpgenError, unknown


class Option(NamedTuple):
    """One option: its default (`inspect.Parameter.empty` where it has none), type and documentation."""

    name: str
    default: Any
    type: str
    text: str

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty

    def plain(self) -> dict[str, Any]:
        """As JSON may hold it."""
        return {**self._asdict(), "default": None if self.required else self.default}


def options_of(cls: type) -> list[Option]:
    """A constructor's options."""
    found: dict[str, Option] = {}
    for base, parameter in _parameters(cls):
        hint = _hint(base, parameter.name)
        named = hint if typing.get_origin(hint) is Literal else parameter.annotation  # choices behind their alias
        kind = "" if parameter.annotation is parameter.empty else _spelled(named)
        option = Option(parameter.name, parameter.default, kind, _argument(base, parameter.name))
        found.setdefault(parameter.name, option)
    return list(found.values())


def check_options(cls: type, given: Mapping[str, Any], what: str) -> None:
    """See that options exist and are of the types that the constructor names, before it is called.

    Args:
        cls: the class.
        given: its options by name.
        what: how an error names the class, e.g. "rule 'snap'".

    Raises:
        BpgenError: an option that does not exist (with the nearest that does), or a value of another type.
    """
    types_of: dict[str, Any] = {}
    for base, parameter in _parameters(cls):
        types_of.setdefault(parameter.name, _hint(base, parameter.name))
    for name, value in given.items():
        if name not in types_of:
            raise unknown(f"option of {what}", name, types_of)
        if not _is(value, types_of[name]):
            raise BpgenError(f"{what}: {name} must be {_in_words(types_of[name])}, got {value!r}.")


def as_meant(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options as their author meant them: yes and on, no and off are true and false where that is asked for."""
    hints = {parameter.name: _hint(base, parameter.name) for base, parameter in _parameters(cls)}
    words = {"yes": True, "on": True, "no": False, "off": False}

    def meant(name: str, value: Any) -> Any:
        asked = isinstance(value, str) and not _is(value, hints.get(name, Any)) and _is(True, hints[name])
        return words.get(value.lower(), value) if asked else value

    return {name: meant(name, value) for name, value in given.items()}


def _hint(cls: type, name: str) -> Any:
    """The type of a constructor's option; Any where it names what exists for type checkers only."""
    try:
        return typing.get_type_hints(cls.__init__).get(name, Any)  # type: ignore[misc]
    except Exception:
        return Any


def _is(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, as far as that can be seen at a glance: containers by their own type alone."""
    origin = typing.get_origin(hint)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if origin is Literal:
        return True  # the constructor knows its own choices, and names the nearest
    if origin in (Union, types.UnionType):
        return any(_is(value, part) for part in typing.get_args(hint))
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    plain = origin or hint
    if plain is tuple:
        return isinstance(value, (tuple, list))  # YAML has no tuples
    return not isinstance(plain, type) or isinstance(value, plain)


def _in_words(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "none"}
    plain = typing.get_origin(hint) or hint
    if plain in (Union, types.UnionType):
        return " or ".join(_in_words(part) for part in typing.get_args(hint))
    containers = {dict: "a mapping", Mapping: "a mapping", list: "a list", Sequence: "a list", tuple: "a pair or list"}
    return words.get(plain) or containers.get(plain) or str(getattr(plain, "__name__", plain))


def _parameters(cls: type) -> Iterator[tuple[type, inspect.Parameter]]:
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base).parameters.values())
        yield from ((base, p) for p in parameters if not p.kind.name.startswith("VAR_"))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return


def _spelled(annotation: Any) -> str:
    """A type as its author wrote it, or a short form of it."""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", None)
    if text is None or text == "Literal" or "Literal[" in str(annotation):
        choices = re.findall(r"'([^']*)'", str(annotation))
        return "|".join(choices) if choices else str(annotation).replace("typing.", "")
    return str(text)


def _argument(cls: type, name: str) -> str:
    """The text on one argument in a Google-style docstring."""
    doc = inspect.getdoc(cls) or ""
    found = re.search(rf"^ +{re.escape(name)}: (.*(?:\n {{6,}}.*)*)", doc, re.MULTILINE)
    return re.sub(r"\s+", " ", found[1]) if found else ""
