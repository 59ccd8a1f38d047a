"""Tables and descriptions of installed plugins."""

from __future__ import annotations

import argparse
import inspect
import sys
import textwrap
from collections.abc import Iterator

from bpgen.errors import BpgenError
from bpgen.registry import Kind, find, plugins


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise instead of exiting."""
        raise BpgenError(f"{message}. See `{self.prog} --help`.")


def table(kind: Kind) -> str:
    """Name, package and first docstring line of every plugin, from metadata and source alone: nothing is imported."""
    rows = [(p.name, p.package, p.summary) for p in plugins(kind).values()]
    name = max((len(r[0]) for r in rows), default=0)
    package = max((len(r[1]) for r in rows), default=0)
    indent = " " * (name + package + 4)
    return "\n".join(
        textwrap.fill(f"{row[0]:<{name}}  {row[1]:<{package}}  {row[2]}", 120, subsequent_indent=indent) for row in rows
    )


def listing(kind: Kind, argv: list[str], description: str) -> int:
    """Print the table."""
    Parser(prog=f"bpgen {kind}s", description=description).parse_args(argv)
    print(table(kind))
    return 0


def described(kind: Kind, name: str) -> str:
    """What a plugin's module and class say of themselves: source, equations, options with their defaults."""
    plugin = find(kind, name)
    cls = plugin.load()
    module = inspect.getdoc(sys.modules[cls.__module__]) or plugin.summary
    options = [f"  --{kind}.{option} {default}" for option, default in _options(cls)]
    text = [f"{name} ({plugin.package})", "", module, "", inspect.getdoc(cls) or ""]
    return "\n".join([*text, "", "options and defaults:", *(options or ["  none"])])


def _options(cls: type) -> Iterator[tuple[str, object]]:
    """A constructor's options, with those it hands on to its base class as **keywords."""
    seen: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base).parameters.values())
        for p in parameters:
            if not p.kind.name.startswith("VAR_") and p.name not in seen:
                seen.add(p.name)
                yield p.name, "(required)" if p.default is p.empty else p.default
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return
