"""The table of parts: the groups of options that a run has, in the order of its config, and whose options they are.

A part is chosen by name (rule, task, neuron), always there (network, loss, ...), or a measurement, of which every
installed one has a group of its own. Parser, help and plans read this table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from bpgen.errors import BpgenError
from bpgen.registry import KindName, find, plugins
from bpgen.run.config import GIVEN, GROUPS, Config
from bpgen.run.names import CHOSEN

_FIRST = ("gap", "sharpness", "alignment", "stability", "spectrum")  # measurements, as config files order them


class Group(NamedTuple):
    """A group of options: the class whose constructor takes them, and arguments of it that are no options."""

    name: str
    cls: type
    given: frozenset[str]


def groups(chosen: Mapping[KindName, str], say: Callable[[str], None] | None = None) -> list[Group]:
    """All groups of a run.

    Args:
        chosen: its rule, task and neuron.
        say: told of every measurement that is broken and left out.

    Raises:
        BpgenError: one of the chosen cannot be loaded.
    """
    whole: dict[str, type] = {kind: find(kind, chosen[kind]).load() for kind in CHOSEN}
    whole |= {name: cls for name, cls in GROUPS.items() if name != "tracking"}
    whole |= {**measurements(say), "tracking": GROUPS["tracking"]}
    return [Group(name, cls, GIVEN.get(name, frozenset())) for name, cls in whole.items()]


def measurements(say: Callable[[str], None] | None = None) -> dict[str, Any]:
    """The classes of all installed measurements in the order of config files: strangers' stand last.

    Args:
        say: told of every one that is broken, and left out.
    """
    found = plugins("measurement")
    classes = {}
    for name in sorted(found, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)):
        try:
            classes[name] = found[name].load()
        except BpgenError as error:
            if say is not None:
                say(f"left out: {error}")
    return classes


def authored(config: Config) -> dict[str, type]:
    """What may fail in a run by its author's fault, by what it is called: the rule, and what strangers wrote."""
    chosen = (config.rule, config.task, config.neuron)
    parts: dict[str, type] = {f"{part.kind} {part.label}": find(part.kind, part.name).load() for part in chosen}
    parts |= {f"measurement {name}": find("measurement", name).load() for name in config.measurements}
    return {n: part for n, part in parts.items() if n.startswith("rule ") or not part.__module__.startswith("bpgen.")}


def is_written(name: str, options: Mapping[str, Any]) -> bool:
    """Whether a config names a measurement: a stranger's only where it is switched on.

    To install a measurement that is off by default therefore changes no config.
    """
    return name in _FIRST or bool(find("measurement", name).make(**options).enabled)
