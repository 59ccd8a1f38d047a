"""What one installed part says of itself: its module, its class, its options."""

from __future__ import annotations

import inspect
import sys
import textwrap
from typing import Any

from bpgen.registry import Plugin
from bpgen.signatures import options_of


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
    cls, options = plugin.load(), []
    group = plugin.name if plugin.kind == "measurement" else plugin.kind
    for o in options_of(cls):
        default = "required" if o.required else f"default: {_default(o.default)}"
        options.append(f"  --{group}.{o.name} {o.type} ({default})")
        options += [textwrap.fill(o.text, 116, initial_indent=" " * 6, subsequent_indent=" " * 6)] if o.text else []
    blocks = [
        f"{plugin.name}, from {plugin.package} ({plugin.class_path})",
        module_text(cls),
        (inspect.getdoc(cls) or f"{cls.__name__} (no docstring)").split("\n\nArgs:")[0],
        "\n".join(["options" if options else "no options", *options]),
        sections,
        following and f"next: {following}",
    ]
    return "\n\n".join(block for block in blocks if block)


def _default(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
