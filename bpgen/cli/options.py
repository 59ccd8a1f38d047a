"""Options of a run: from command line and config files to one resolved dictionary.

The names of rule, task and neuron are found first, so that the parser can be built from the signatures and
docstrings of exactly these classes: `--rule rflo --rule.scale 0.5` is typed, checked and documented like any
other option, for a stranger's rule as for a built-in. Values come from, in rising order: defaults, the config files
in their order, the command line.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from bpgen.callbacks import Alignment, EvaluationClock, GeneralizationGap, Sharpness, Spectrum, Stability
from bpgen.errors import BpgenError, require, unknown
from bpgen.network import Network
from bpgen.registry import KindName, find
from bpgen.shipped import configs
from bpgen.tracking.wandb import Tracking
from bpgen.training.build import TrainerOptions, make_loss
from bpgen.training.config import read_config
from bpgen.training.optim import Optimizer, Schedule

Flat = dict[str, Any]  # "group.option" or "option" -> value
NAMED: dict[KindName, str] = {"rule": "rflo", "task": "digits", "neuron": "leaky"}  # chosen by name; the defaults
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "dict": "a mapping",
    "list": "a list such as [a, b]",
    "tuple": "a pair such as [a, b]",
}


def resolve(argv: list[str]) -> dict[str, Any]:
    """The resolved config of a command line.

    Raises:
        BpgenError: an unknown name or option, a value of the wrong type, or an unreadable config.
    """
    configs, names, rest = _scan(argv)
    flat: Flat = {}
    for config in configs:
        flat.update(_flatten(read_config(_find_config(config)), config))
    chosen = {}
    for part, default in NAMED.items():
        configured = str(flat.get(f"{part}.name", default))
        chosen[part] = find(part, names.get(part, configured)).name
        if chosen[part] != configured:  # options of another rule mean nothing to this one
            flat = {key: value for key, value in flat.items() if not key.startswith(f"{part}.")}
        flat.pop(f"{part}.name", None)
    parser = make_parser(chosen)
    known = _option_names(parser)
    groups = {key.split(".")[0] for key in known if "." in key}
    for key in flat:
        require(key not in groups, f"{key} in a config must be a mapping of options, e.g. {key}: {{...}}.")
        if key not in known:
            raise unknown("option", key, known, f"It stands in config {' or '.join(configs)}.")
    for key, _ in _options(rest):
        if key not in known:
            flags = [f"--{k}" for k in (*known, *NAMED, "config", "resume", "print_config")]
            raise unknown("option", f"--{key}", flags, "See `bpgen fit --help`.")
    arguments = [f"--{key}={_text(value)}" for key, value in flat.items()]
    try:
        parsed = parser.parse_args([*arguments, *rest]).as_dict()
    except argparse.ArgumentError as error:
        raise BpgenError(_one_line(str(error))) from None
    for part, name in chosen.items():
        parsed[part] = {"name": name, **(parsed.get(part) or {})}
    return parsed


def make_parser(chosen: dict[str, str]) -> ArgumentParser:
    """The parser for a choice of rule, task and neuron, from their own docstrings."""
    parser = ArgumentParser(prog="bpgen fit", usage="", formatter_class=_Manual, exit_on_error=False)
    for part in NAMED:
        plugin = find(part, chosen[part])
        cls = plugin.load()
        parser.add_class_arguments(cls, part, fail_untyped=False)
        if parser.groups and part in parser.groups and not cls.__doc__:
            parser.groups[part].title = plugin.summary.rstrip(".")
    parser.add_class_arguments(Network, "network", skip={"neuron", "n_in", "n_out", "seed", "dtype"})
    parser.add_function_arguments(make_loss, "loss")
    for options, group in (
        (Optimizer, "optimizer"),
        (Schedule, "schedule"),
        (TrainerOptions, "trainer"),
        (EvaluationClock, "evaluation"),
        (GeneralizationGap, "gap"),
        (Sharpness, "sharpness"),
        (Alignment, "alignment"),
        (Stability, "stability"),
        (Spectrum, "spectrum"),
        (Tracking, "tracking"),
    ):
        parser.add_class_arguments(options, group)
    run = parser.add_argument_group("The run")
    run.add_argument(
        "--seed", type=int, default=0, help="seed of everything random: weights, batches, feedback, noise."
    )
    run.add_argument("--out", type=str, default="runs", help="folder that the run's own new folder is made in.")
    run.add_argument(
        "--wandb",
        type=Literal["auto", "online", "offline", "off"],
        default="auto",
        help="Weights & Biases: auto is online only when a key is configured, else offline into the run's folder.",
    )
    run.add_argument("--threads", type=int | None, default=None, help="CPU threads; null leaves the choice to torch.")
    for action in parser._actions:  # a whole group as a file of its own would be a second kind of config
        if action.metavar == "CONFIG":
            action.help = argparse.SUPPRESS
    return parser


class _Manual(DefaultHelpFormatter):
    """Help that says types in words, and leaves out those that the choices already say."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=110)

    def _expand_help(self, action: argparse.Action) -> str:
        text = super()._expand_help(action)
        return re.sub(r"\(type: (.*), default: ([^()]*)\)$", lambda m: _typed(m[1], m[2]), text)


def _typed(python_type: str, default: str) -> str:
    """`(type: int | null, default: null)` -> `(a whole number; default: none)`."""
    outer = re.sub(r"\b(list|dict|tuple)\[[^\]]*\]", r"\1", python_type)  # what is inside a list is not another choice
    words = [word for kind, word in _WORDS.items() if re.search(rf"\b{kind}\b", outer)]
    text = " or ".join(words) + "; " if words and "bool" not in python_type else ""
    return (
        f"({text}default: {'none' if default == 'null' else default.replace('True', 'true').replace('False', 'false')})"
    )


def _scan(argv: list[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """Take --config and the names of rule, task and neuron out of a command line."""
    configs: list[str] = []
    names: dict[str, str] = {}
    rest: list[str] = []
    tokens = iter(argv)
    for token in tokens:
        key, equals, value = token.removeprefix("--").partition("=")
        part = key.removesuffix(".name")
        if not token.startswith("--") or (key != "config" and part not in NAMED):
            rest.append(token)
            continue
        if not equals:
            value = next(tokens, "")
            require(bool(value) and not value.startswith("--"), f"--{key} needs a name, e.g. --{key} {_example(part)}.")
        if key == "config":
            configs.append(value)
        else:
            names[part] = value
    return configs, names, rest


def _example(part: str) -> str:
    return NAMED.get(part, "digits")


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
        if key in NAMED and isinstance(value, str):
            flat[f"{key}.name"] = value
        elif isinstance(value, dict):
            flat.update({f"{key}.{option}": v for option, v in value.items()})
        else:
            flat[str(key)] = value
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
    return value if isinstance(value, str) else json.dumps(value)


def _one_line(message: str) -> str:
    """What was wrong and what was expected, without the types' Python spelling."""
    key = re.search(r'Parser key "([^"]+)"', message)
    value = re.search(r"(?:Got value|Given value): (.*)", message)
    if not key:
        return message.strip().splitlines()[0].rstrip(".") + ". See `bpgen fit --help`."
    expected = dict.fromkeys(re.findall(r"Expected (?:an? )?(.+?)(?:\. Got value.*)?$", message, re.MULTILINE))
    readable = " or ".join(_readable(e) for e in expected) or "another value"
    got = value.group(1) if value else "?"
    return f"--{key.group(1)} expects {readable}, got {got}. See `bpgen fit --help`."


def _readable(python_type: str) -> str:
    names = {**_WORDS, "NoneType": "null"}
    literal = re.match(r"typing\.Literal\[(.*)\]", python_type)
    if literal:
        return "one of " + ", ".join(literal.group(1).replace("'", "").split(", "))
    inner = re.match(r"<class '(\w+)'>", python_type)
    return names.get(inner.group(1), inner.group(1)) if inner else python_type
