"""A table of installed plugins, from metadata and source files alone: nothing is imported."""

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


def listing(kind: Kind, argv: list[str], description: str) -> int:
    """Print name, package and first docstring line of every plugin of a kind."""
    parser = Parser(prog=f"bpgen {kind}s", description=description)
    parser.parse_args(argv)
    rows = [(p.name, p.package, p.summary) for p in plugins(kind).values()]
    name = max((len(r[0]) for r in rows), default=0)
    package = max((len(r[1]) for r in rows), default=0)
    for row in rows:
        indent = " " * (name + package + 4)
        line = f"{row[0]:<{name}}  {row[1]:<{package}}  {row[2]}"
        print(textwrap.fill(line, 120, subsequent_indent=indent))
    return 0
