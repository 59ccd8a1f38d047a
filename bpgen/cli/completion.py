"""`bpgen completion`: what a shell completes after `bpgen`, as a script with everything in it.

The script holds the commands, options and names that are installed now, so that Tab costs nothing: Python is not
started. The options of all rules, tasks and neurons are there at once.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from importlib import import_module

from bpgen.cli import COMMANDS
from bpgen.cli.given import FLAGS
from bpgen.cli.listing import PARSER, Asked, Parser
from bpgen.errors import BpgenError
from bpgen.registry import KindName, plugins
from bpgen.run.names import CHOSEN, RUN
from bpgen.shipped import plans
from bpgen.signatures import Option, options_of

SHELLS = ("bash", "zsh", "tcsh")
EPILOG = """\
examples:
  eval "$(bpgen completion bash)"                              in this shell
  bpgen completion bash > ~/.local/share/bash-completion/completions/bpgen     in every bash from now on
  bpgen completion zsh > DIR/_bpgen                            in every zsh; DIR is a folder of its $fpath

Write it again after installing a rule, task or neuron: it holds the names that are there now."""
_PARTS: dict[str, KindName] = {"rules": "rule", "tasks": "task", "reproduce": "paper"}


def run(argv: list[str]) -> int:
    """Print the script."""
    parser = Parser(
        prog="bpgen completion",
        description="Print a script that lets your shell complete commands, options and names after `bpgen`.",
        epilog=EPILOG,
    )
    parser.add_argument("shell", choices=SHELLS, help="which shell")
    options = parser.parse_args(argv)
    import shtab

    print(shtab.complete(whole_parser(), options.shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """The parsers of all commands under that of `bpgen`, as shtab reads them: for completing, never for parsing."""
    whole = argparse.ArgumentParser(prog="bpgen", allow_abbrev=False)
    whole.add_argument("--version", action="store_true", help="the version")
    commands = whole.add_subparsers()
    for name, text in COMMANDS.items():
        own = _fit() if name == "fit" else _asked(name)
        for action in own._actions:
            _point_to_files(action)
        if name in _PARTS or name == "study":
            names = list(plugins(_PARTS[name])) if name in _PARTS else list(plans())
            _positional(own).choices = names
        if name in ("check", "plugins"):
            _positional(own).choices = sorted({part for kind in CHOSEN for part in plugins(kind)})
        commands.add_parser(name, help=text, parents=[own], add_help=False)
    return whole


def _asked(command: str) -> Parser:
    """The parser of a command, which hands it over instead of running."""
    try:
        import_module(f"bpgen.cli.{command}").run([PARSER])
    except Asked as answer:
        return answer.parser
    raise AssertionError(f"{command} parses its arguments with a parser of its own")


def _fit() -> Parser:
    """The options of a run, whatever its parts."""
    from bpgen.run.config import GIVEN, GROUPS
    from bpgen.run.parts import measurements

    parser = Parser(prog="bpgen fit")
    for flag in FLAGS:
        if flag != "help":
            parser.add_argument(f"--{flag}", action="store" if flag in ("config", "resume", "seeds") else "store_true")
    for kind in CHOSEN:
        parser.add_argument(f"--{kind}", choices=list(plugins(kind)))
    for name in RUN:
        parser.add_argument(f"--{name}")
    known = {option for action in parser._actions for option in action.option_strings}
    for group, cls in (*_parts(), *GROUPS.items(), *measurements().items()):
        for option in options_of(cls):
            text = f"--{group}.{option.name}"
            if option.name not in GIVEN.get(group, ()) and text not in known:
                known.add(text)
                said = re.split(r"(?<=[a-z)])[.;:]", option.text)[0].replace("%", "%%")
                parser.add_argument(text, choices=_choices(option), help=said or None)
    return parser


def _parts() -> Iterator[tuple[str, type]]:
    """All rules, tasks and neurons that can be loaded."""
    for kind in CHOSEN:
        for plugin in plugins(kind).values():
            try:
                yield kind, plugin.load()
            except BpgenError:  # a broken one has nothing to complete
                continue


def _choices(option: Option) -> list[str] | None:
    """The values of an option that has few."""
    if option.type == "bool":
        return ["true", "false"]
    return option.type.split("|") if re.fullmatch(r"\w+(\|\w+)+", option.type) else None


def _positional(parser: argparse.ArgumentParser) -> argparse.Action:
    return next(action for action in parser._actions if not action.option_strings)


def _point_to_files(action: argparse.Action) -> None:
    """Let folders and files be completed where they are asked for."""
    import shtab

    if action.choices is not None:
        action.choices = list(action.choices)  # shtab takes a mapping for commands
    words = {str(action.metavar or "").upper(), action.dest.upper()}
    if action.choices is None and action.nargs != 0:
        if words & {"RUN", "RUN|CHECKPOINT", "STUDY", "FOLDER", "RESUME", "DATA_DIR", "TASK.DATA_DIR"}:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif words & {"FILE", "CONFIG", "OUT", "TASK.FILE"}:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
