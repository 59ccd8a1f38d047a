"""Options of a run: from command line and config files to one resolved config.

The parser is built from the signatures and docstrings of exactly the chosen rule, task and neuron: `--rule rflo
--rule.scale 0.5` is typed, checked and documented like any other option, for a stranger's rule as for a built-in.
Values come from, in rising order: defaults, what the rule declares to suit it, the config files in their order, the
command line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from jsonargparse import ArgumentParser

from bpgen.callbacks.measurement import Measurement
from bpgen.cli.given import FLAGS, Given, given, written_options
from bpgen.cli.wording import Manual, one_line
from bpgen.errors import BpgenError, require, unknown
from bpgen.registry import KindName, find
from bpgen.run.config import Config
from bpgen.run.files import as_text
from bpgen.run.names import CHOSEN
from bpgen.run.parts import groups, is_written, measurements
from bpgen.signatures import as_meant, check_options
from bpgen.threads import HELP as THREADS
from bpgen.tracking.own_settings import Mode


def resolve(argv: list[str] | Given) -> Config:
    """The resolved config of a command line, read already or not.

    Raises:
        BpgenError: an unknown name or option, a value of the wrong type, or an unreadable config.
    """
    asked = argv if isinstance(argv, Given) else given(argv)
    parser = make_parser(asked.chosen)
    _check_names(parser, asked)
    arguments = [f"--{key}={as_text(value)}" for key, value in {**suited(asked), **_meant(asked)}.items()]
    try:
        parsed = parser.parse_args([*arguments, *asked.tokens]).as_dict()
    except argparse.ArgumentError as error:
        raise BpgenError(one_line(str(error))) from None
    for part, name in asked.chosen.items():
        parsed[part] = {"name": name, **(parsed.get(part) or {})}
    absent = [name for name in measurements() if not is_written(name, parsed.get(name, {}))]
    return Config.of({key: value for key, value in parsed.items() if key not in absent})


def suited(asked: Given) -> dict[str, Any]:
    """Options of the run that the rule declares to suit it (`Rule.suits`), where the user gave none."""
    rule = find("rule", asked.chosen["rule"]).load()
    said = {key for key, _ in written_options(asked.tokens)} | set(asked.options)
    return {key: value for key, value in rule.suits.items() if key not in said}


def make_parser(chosen: Mapping[KindName, str]) -> ArgumentParser:
    """The parser for a choice of rule, task and neuron, from the docstrings of all parts."""
    parser = ArgumentParser(prog="bpgen fit", usage="", formatter_class=Manual, exit_on_error=False)
    for name, cls, without in groups(chosen, lambda line: print(line, file=sys.stderr)):
        parser.add_class_arguments(cls, name, skip=set(without), fail_untyped=False)
        group = (parser.groups or {}).get(name)
        if group is not None and not cls.__doc__:
            group.title = cls.__name__
        if group is not None and issubclass(cls, Measurement):
            own = [column.name for column in cls.columns if "/surrogate/" not in column.name]
            group.description = f"columns: {', '.join(own)}"
    run = parser.add_argument_group("The run")
    run.add_argument(
        "--seed", type=int, default=0, help="seed of everything random: weights, batches, feedback, noise."
    )
    name = "name of the run: of its folder in --out, its figures and its W&B run; by default TASK-RULE-seedSEED."
    run.add_argument("--name", type=str | None, default=None, help=name)
    run.add_argument("--out", type=str, default="runs", help="folder that the run's own new folder is made in.")
    run.add_argument(
        "--wandb",
        type=Mode,
        default="auto",
        help="Weights & Biases: auto is what W&B's own variables and settings file say; where they say nothing, online "
        "when a key is configured, else offline into the run's folder.",
    )
    run.add_argument("--threads", type=int | None, default=None, help=THREADS)
    for action in parser._actions:  # a whole group as a file of its own would be a second kind of config
        if action.metavar == "CONFIG":
            action.help = argparse.SUPPRESS
    return parser


def _check_names(parser: ArgumentParser, asked: Given) -> None:
    """See that every option exists, of the config files and of the command line."""
    known = _option_names(parser)
    mappings = {key.split(".")[0] for key in known if "." in key}
    for key in asked.options:
        require(key not in mappings, f"{key} in a config must be a mapping of options, e.g. {key}: {{...}}.")
        if key not in known:
            raise unknown("option", key, known, f"It stands in config {' or '.join(asked.configs)}.")
    for key, _ in written_options(asked.tokens):
        if key not in known:
            owners = [f"'--{other}'" for other in sorted(known) if other.endswith((f".{key}", f"_{key}"))]
            require(not owners, f"unknown option '--{key}'. Did you mean {' or '.join(owners)}?")
            flags = [f"--{k}" for k in (*known, *CHOSEN, *FLAGS)]
            raise unknown("option", f"--{key}", flags, "See `bpgen fit --help`.")


def _option_names(parser: ArgumentParser) -> set[str]:
    """All options but those that stand for a whole group."""
    return {
        option[2:]
        for action in parser._actions
        if action.metavar != "CONFIG"
        for option in action.option_strings
        if option.startswith("--")
    } - {"help"}


def _meant(asked: Given) -> dict[str, Any]:
    """The options of the config files, each of the type that is asked for: '8' in a file is no number.

    Raises:
        BpgenError: one is of another type.
    """
    classes = {group.name: group.cls for group in groups(asked.chosen)}
    meant: dict[str, Any] = {}
    for key, value in asked.options.items():
        group, dot, option = key.rpartition(".")
        cls, name = (classes[group], option) if dot else (Config, key)
        value = as_meant(cls, {name: value})[name]
        check_options(cls, {name: value}, f"{group or 'a run'} in config {' or '.join(asked.configs)}")
        meant[key] = value
    return meant
