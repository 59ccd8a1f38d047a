"""What one installed plugin, rule or task, says of itself: its module, its class, its options."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from bpgen.registry import Plugin


class Option(NamedTuple):
    """One option of a plugin: its default (`inspect.Parameter.empty` where it has none), type and documentation."""

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
    """A constructor's options, with those it hands on to its base class as **keywords."""
    found: dict[str, Option] = {}
    for base, parameter in _parameters(cls):
        kind = "" if parameter.annotation is parameter.empty else _spelled(parameter.annotation)
        option = Option(parameter.name, parameter.default, kind, _argument(base, parameter.name))
        found.setdefault(parameter.name, option)
    return list(found.values())


def module_text(cls: type) -> str:
    """The docstring of a class's module."""
    return inspect.getdoc(sys.modules[cls.__module__]) or "(its module has no docstring)"


def described(plugin: Plugin, sections: str = "", following: str = "") -> str:
    """Everything about one plugin, as text.

    Args:
        plugin: the plugin, which is imported.
        sections: what its kind has to add, after the options.
        following: commands to try next.
    """
    cls = plugin.load()
    options = [
        f"  --{plugin.kind}.{o.name} {o.type} ({'required' if o.required else f'default: {_default(o.default)}'})"
        for o in options_of(cls)
    ]
    blocks = [
        f"{plugin.name}, from {plugin.package} ({plugin.class_path})",
        module_text(cls),
        inspect.getdoc(cls) or f"{cls.__name__} (no docstring)",
        "\n".join(["options" if options else "no options", *options]),
        sections,
        following and f"next: {following}",
    ]
    return "\n\n".join(block for block in blocks if block)


def _parameters(cls: type) -> Iterator[tuple[type, inspect.Parameter]]:
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base).parameters.values())
        yield from ((base, p) for p in parameters if not p.kind.name.startswith("VAR_"))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return


def _default(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


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
