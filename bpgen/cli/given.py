"""What a user gave for a run: command line and config files, as far as they are understood before anything is imported.

Standard library and YAML only: a misspelt name of a part, a config or a group of options is refused at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bpgen.cli.python_values import plainly
from bpgen.errors import BpgenError, require, unknown
from bpgen.registry import KindName, find, plugins
from bpgen.run.files import read_config
from bpgen.run.names import CHOSEN, GROUPS, RUN
from bpgen.shipped import configs

FLAGS = ("config", "seeds", "resume", "print_config", "dry_run", "help")  # of `bpgen fit`, beside the options of a run
Flat = dict[str, Any]  # "group.option" or "option" -> value


class Given(NamedTuple):
    """What was given.

    chosen: rule, task and neuron by name.
    options: those of the config files that are left for these parts; later files win over earlier ones.
    tokens: the rest of the command line.
    configs: the config files, as they were named.
    """

    chosen: dict[KindName, str]
    options: Flat
    tokens: list[str]
    configs: list[str]


def given(argv: list[str]) -> Given:
    """What the arguments of `bpgen fit` give.

    Raises:
        BpgenError: an unknown name of a rule, task, neuron, config or group of options, or an unreadable config.
    """
    groups = {*CHOSEN, *GROUPS, *plugins("measurement")}
    files, names, tokens = _scan(plainly(argv, groups))
    options: Flat = {}
    for file in files:
        options.update(_flatten(read_config(_find_config(file)), file))
    chosen, options = _choose(names, options)
    for key in options:
        _check_group(key, key, f"It stands in config {' or '.join(files)}.")
    for key, _ in written_options(tokens):
        _check_group(key, f"--{key}", "See `bpgen fit --help`.")
    return Given(chosen, options, tokens, files)


def written_options(tokens: list[str]) -> Iterator[tuple[str, str]]:
    """The options in a command line, each with its value where that is written into it by =."""
    for token in tokens:
        if token.startswith("--") and len(token) > 2:
            key, _, value = token[2:].partition("=")
            yield key, value


def _choose(names: Mapping[str, str], options: Flat) -> tuple[dict[KindName, str], Flat]:
    """Rule, task and neuron, and the options of the config files that are left.

    Args:
        names: of those on the command line.
        options: of the config files.
    """
    chosen: dict[KindName, str] = {}
    left = {key: value for key, value in options.items() if key not in [f"{part}.name" for part in CHOSEN]}
    for part, default in CHOSEN.items():
        configured = str(options.get(f"{part}.name", default))
        chosen[part] = find(part, names.get(part, configured)).name
        if part in names and chosen[part] not in (configured, configured.replace("-", "_")):
            left = {key: value for key, value in left.items() if not key.startswith(f"{part}.")}  # another part's
    return chosen, left


def _check_group(key: str, written: str, hint: str) -> None:
    """Refuse an option of a group that does not exist where another group is near; the parser names all others."""
    group, dot, _ = key.partition(".")
    groups = {*CHOSEN, *GROUPS, *plugins("measurement")}
    known = groups if dot else {*groups, *RUN, *FLAGS}
    near = [] if group in known else difflib.get_close_matches(group, known, n=1)
    if near:
        raise BpgenError(f"unknown option {written!r}. Did you mean {written.replace(group, near[0], 1)!r}? {hint}")


def _scan(argv: list[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """Take --config and the names of rule, task and neuron out of a command line."""
    files: list[str] = []
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
            files.append(value)
        else:
            names[part] = value
    return files, names, rest


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
