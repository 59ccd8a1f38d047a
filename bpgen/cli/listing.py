"""The parser of a command, and the table of installed plugins: standard library only."""

from __future__ import annotations

import argparse
import textwrap

from bpgen.errors import BpgenError
from bpgen.registry import Kind, plugins


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
