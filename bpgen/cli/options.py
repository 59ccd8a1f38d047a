"""Options of a run: from command line and config files to one resolved config.

The names of rule, task and neuron are found first, so that the parser can be built from the signatures and
docstrings of exactly these classes: `--rule rflo --rule.scale 0.5` is typed, checked and documented like any
other option, for a stranger's rule as for a built-in. Values come from, in rising order: defaults, the config files
in their order, the command line.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from bpgen.callbacks import Measurement
from bpgen.cli.wording import Manual, one_line
from bpgen.errors import BpgenError, require, unknown
from bpgen.registry import KindName, find
from bpgen.run.config import CHOSEN, Config
from bpgen.run.files import read_config
from bpgen.run.parts import groups, is_written, measurements
from bpgen.shipped import configs
from bpgen.tracking.wandb import Mode

Flat = dict[str, Any]  # "group.option" or "option" -> value


def resolve(argv: list[str]) -> Config:
    """The resolved config of a command line.

    Raises:
        BpgenError: an unknown name or option, a value of the wrong type, or an unreadable config.
    """
    configs, names, rest = _scan(argv)
    flat: Flat = {}
    for config in configs:
        flat.update(_flatten(read_config(_find_config(config)), config))
    chosen, flat = _choose(names, flat)
    parser = make_parser(chosen)
    _check_names(parser, flat, rest, configs)
    arguments = [f"--{key}={_text(value)}" for key, value in flat.items()]
    try:
        parsed = parser.parse_args([*arguments, *rest]).as_dict()
    except argparse.ArgumentError as error:
        raise BpgenError(one_line(str(error))) from None
    for part, name in chosen.items():
        parsed[part] = {"name": name, **(parsed.get(part) or {})}
    absent = [name for name in measurements() if not is_written(name, parsed.get(name, {}))]
    return Config.of({key: value for key, value in parsed.items() if key not in absent})


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
    run.add_argument("--out", type=str, default="runs", help="folder that the run's own new folder is made in.")
    run.add_argument(
        "--wandb",
        type=Mode,
        default="auto",
        help="Weights & Biases: auto is what W&B's own variables and settings file say; where they say nothing, online "
        "when a key is configured, else offline into the run's folder.",
    )
    run.add_argument("--threads", type=int | None, default=None, help="CPU threads; null leaves the choice to torch.")
    for action in parser._actions:  # a whole group as a file of its own would be a second kind of config
        if action.metavar == "CONFIG":
            action.help = argparse.SUPPRESS
    return parser


def chosen_parts(argv: list[str]) -> dict[KindName, str]:
    """Rule, task and neuron of a command line, its config files aside: what `--help` describes."""
    return _choose(_scan(argv)[1], {})[0]


def _choose(names: Mapping[str, str], flat: Flat) -> tuple[dict[KindName, str], Flat]:
    """Rule, task and neuron, and the options of the config files that are left.

    Args:
        names: of those on the command line.
        flat: the options of the config files.
    """
    chosen: dict[KindName, str] = {}
    left = {key: value for key, value in flat.items() if key not in [f"{part}.name" for part in CHOSEN]}
    for part, default in CHOSEN.items():
        configured = str(flat.get(f"{part}.name", default))
        chosen[part] = find(part, names.get(part, configured)).name
        if part in names and chosen[part] not in (configured, configured.replace("-", "_")):
            left = {key: value for key, value in left.items() if not key.startswith(f"{part}.")}  # another part's
    return chosen, left


def _check_names(parser: ArgumentParser, flat: Flat, rest: list[str], configs: list[str]) -> None:
    """See that every option exists, of the config files and of the command line."""
    known = _option_names(parser)
    mappings = {key.split(".")[0] for key in known if "." in key}
    for key in flat:
        require(key not in mappings, f"{key} in a config must be a mapping of options, e.g. {key}: {{...}}.")
        if key not in known:
            raise unknown("option", key, known, f"It stands in config {' or '.join(configs)}.")
    for key, _ in _options(rest):
        if key not in known:
            flags = [f"--{k}" for k in (*known, *CHOSEN, "config", "resume", "print_config")]
            raise unknown("option", f"--{key}", flags, "See `bpgen fit --help`.")


def _scan(argv: list[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """Take --config and the names of rule, task and neuron out of a command line."""
    configs: list[str] = []
    names: dict[str, str] = {}
    rest: list[str] = []
    tokens = iter(argv)
    examples = {"config": "digits"} | {str(part): name for part, name in CHOSEN.items()}
    for token in tokens:
        key, equals, value = token.removeprefix("--").partition("=")
        part = key.removesuffix(".name")
        if not token.startswith("--") or part not in examples:
            rest.append(token)
            continue
        if not equals:
            value = next(tokens, "")
            require(
                bool(value) and not value.startswith("--"),
                f"--{key} needs a name, e.g. --{key} {examples[part]}.",
            )
        if key == "config":
            configs.append(value)
        else:
            names[part] = value
    return configs, names, rest


def _find_config(name: str) -> Path:
    """A config by path, or by the name of a shipped one."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    require(not path.is_dir(), f"{name} is a folder: name the config in it, e.g. {path / 'config.yaml'}.")
    shipped = configs()
    if name in shipped:
        return shipped[name]
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise BpgenError(f"there is no config file {name}. Shipped configs go by name: {', '.join(shipped)}.")
    raise unknown("config", name, shipped, "Or give the path of a YAML file.")


def _flatten(config: dict[str, Any], source: str) -> Flat:
    """`{rule: rflo, network: {n_rec: 64}}` -> `{"rule.name": "rflo", "network.n_rec": 64}`."""
    flat: Flat = {}
    for key, value in config.items():
        if key in CHOSEN and isinstance(value, str):
            flat[f"{key}.name"] = value
        elif isinstance(value, dict):
            flat.update({f"{key}.{option}": v for option, v in value.items()})
        else:
            flat[str(key)] = "off" if key == "wandb" and value is False else value  # what YAML makes of off
    return flat


def _options(tokens: list[str]) -> Iterator[tuple[str, str]]:
    for token in tokens:
        if token.startswith("--") and len(token) > 2:
            key, _, value = token[2:].partition("=")
            yield key, value


def _option_names(parser: ArgumentParser) -> set[str]:
    """All options but those that stand for a whole group."""
    return {
        option[2:]
        for action in parser._actions
        if action.metavar != "CONFIG"
        for option in action.option_strings
        if option.startswith("--")
    } - {"help"}


def _text(value: Any) -> str:
    """A value of a config file as the command line spells it; a date was meant as text."""
    return str(value) if isinstance(value, (str, date)) else json.dumps(value)
