"""The parser of a command, and the table of installed plugins: standard library only."""

from __future__ import annotations

import argparse
import sys
import textwrap
from typing import Any

from bpgen.errors import BpgenError
from bpgen.registry import KindName, plugins

CODES = "exit codes: 0 done, 2 bad input, 130 interrupted."
WIDTH = 110  # of all help texts, those of `bpgen fit` included


PARSER = "\0parser"  # asks a command for its parser, and nothing else; no shell can write it


class Asked(Exception):
    """Carries the parser of a command that was asked for it. parser: it."""

    def __init__(self, parser: Parser) -> None:
        super().__init__(parser.prog)
        self.parser = parser


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help of our width; descriptions are filled, what follows them is printed as it is written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=WIDTH)


class Parser(argparse.ArgumentParser):
    """An argument parser whose help and errors are like those of `bpgen fit`.

    Words of an option may be joined by hyphens or underscores.
    """

    def __init__(self, **options: Any) -> None:
        codes = options.pop("codes", CODES)
        filled = textwrap.fill(" ".join(options.pop("description", "").split()), WIDTH)
        epilog = options.pop("epilog", "").rstrip("\n")
        epilog = "\n\n".join(part for part in (epilog, codes) if part)
        super().__init__(
            description=filled, epilog=epilog, formatter_class=_Help, add_help=False, allow_abbrev=False, **options
        )
        self.add_argument("-h", "--help", action="help", help="this text")

    def parse_known_args(self, args=None, namespace=None):
        """As the base class, after the spelling of options."""
        if args == [PARSER]:
            raise Asked(self)
        known = {_plain(option): option for option in self._option_string_actions}
        spelled = []
        for token in sys.argv[1:] if args is None else args:
            name, equals, value = token.partition("=")
            own = known.get(_plain(name), name) if name.startswith("--") and len(name) > 2 else name
            spelled.append(own + equals + value)
        return super().parse_known_args(spelled, namespace)

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise instead of exiting."""
        raise BpgenError(f"{message}. See `{self.prog} --help`.")


def joined_by_underscores(token: str) -> str:
    """An option with hyphens between its words as the parser of a run spells it; any other token as it is."""
    name, equals, value = token.partition("=")
    return "--" + _plain(name[2:]) + equals + value if name.startswith("--") else token


def _plain(option: str) -> str:
    return option.replace("-", "_")


def table(kind: KindName) -> str:
    """Name, package and first docstring line of every plugin, from metadata and source alone: nothing is imported."""
    parts = plugins(kind).values()
    also: dict[str, list[str]] = {}
    for part in parts:
        also.setdefault(part.same_as or part.name, []).append(part.name)
    rows = []
    for p in (p for p in parts if not p.same_as):
        others = [name for name in also[p.name] if name != p.name]
        rows.append((p.name, p.package, p.summary + (f" Also called {', '.join(others)}." if others else "")))
    name = max((len(r[0]) for r in rows), default=0)
    package = max((len(r[1]) for r in rows), default=0)
    indent = " " * (name + package + 4)
    return "\n".join(
        textwrap.fill(f"{row[0]:<{name}}  {row[1]:<{package}}  {row[2]}", 120, subsequent_indent=indent) for row in rows
    )
