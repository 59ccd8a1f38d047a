"""The table of parts: the groups of options that a run has, in the order of its config, and whose options they are.

A part is chosen by name (rule, task, neuron), always there (network, loss, ...), or a measurement, of which every
installed one has a group of its own. Parser, help and plans read this table.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from bpgen.errors import BpgenError
from bpgen.registry import KindName, find, plugins
from bpgen.run.config import CHOSEN, GIVEN, GROUPS

_FIRST = ("gap", "sharpness", "alignment", "stability", "spectrum")  # measurements, as config files order them


class Group(NamedTuple):
    """A group of options: the class whose constructor takes them, and arguments of it that are no options."""

    name: str
    cls: type
    given: frozenset[str]


def groups(chosen: Mapping[KindName, str]) -> list[Group]:
    """All groups of a run whose rule, task and neuron are these.

    Raises:
        BpgenError: one of these cannot be loaded.
    """
    whole: dict[str, type] = {kind: find(kind, chosen[kind]).load() for kind in CHOSEN}
    whole |= {name: cls for name, cls in GROUPS.items() if name != "tracking"}
    whole |= {**measurements(), "tracking": GROUPS["tracking"]}
    return [Group(name, cls, GIVEN.get(name, frozenset())) for name, cls in whole.items()]


def measurements() -> dict[str, Any]:
    """The classes of all installed measurements, in the order of config files; a broken one is left out with a warning.

    Those that came with the first config format stand first, strangers' behind them.
    """
    found = plugins("measurement")
    classes = {}
    for name in sorted(found, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)):
        try:
            classes[name] = found[name].load()
        except BpgenError as error:
            warnings.warn(f"measurement {name!r} is left out: {error}", stacklevel=2)
    return classes


def is_written(name: str, options: Mapping[str, Any]) -> bool:
    """Whether a config names a measurement: a stranger's only where it is switched on.

    To install a measurement that is off by default therefore changes no config.
    """
    return name in _FIRST or bool(find("measurement", name).make(**options).enabled)
