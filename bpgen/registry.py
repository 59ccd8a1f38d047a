"""Plugins: rules and tasks found through entry points, whoever wrote them.

Nothing here imports a plugin before it is asked for: listing costs metadata only, and a broken plugin harms
nobody but the user who asks for it. Standard library only, so that `bpgen rules` answers at once.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from bpgen.errors import BpgenError, unknown

Kind = Literal["rule", "task"]
GROUPS: dict[Kind, str] = {"rule": "bpgen.rules", "task": "bpgen.tasks"}
_REINSTALL = "A new entry point is seen only after its package is installed again (pip install)."


@dataclass(frozen=True)
class Plugin:
    """One entry point: the short name a user types and where its class lives."""

    kind: Kind
    name: str
    entry_point: EntryPoint

    @property
    def package(self) -> str:
        """Name and version of the distribution that brings it."""
        dist = self.entry_point.dist
        return f"{dist.name} {dist.version}" if dist else "?"

    @property
    def class_path(self) -> str:
        """`module.Class`, as a config file may also spell it."""
        return self.entry_point.value.replace(":", ".")

    @property
    def summary(self) -> str:
        """First line of the module's docstring, read from the file without importing it."""
        try:
            file = _source_file(self.entry_point.module)
            doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        except Exception as error:  # a broken plugin is listed, never fatal
            return f"(broken: {type(error).__name__}: {error})"
        return doc.splitlines()[0] if doc else "(no docstring)"

    def load(self) -> type:
        """Import the class.

        Raises:
            BpgenError: the plugin cannot be imported; it is named, and the others keep working.
        """
        try:
            loaded: Any = self.entry_point.load()
        except Exception as error:
            raise BpgenError(
                f"{self.kind} {self.name!r} from {self.package} is broken: "
                f"{type(error).__name__}: {error}. Repair or uninstall that package; the others still work."
            ) from error
        if not isinstance(loaded, type):
            raise BpgenError(
                f"{self.kind} {self.name!r} from {self.package} names {self.entry_point.value!r}, which is not a class."
            )
        return loaded


def plugins(kind: Kind) -> dict[str, Plugin]:
    """All installed plugins of one kind by name, sorted; a name claimed twice keeps the first distribution."""
    found: dict[str, Plugin] = {}
    for point in entry_points(group=GROUPS[kind]):
        found.setdefault(point.name, Plugin(kind, point.name, point))
    return dict(sorted(found.items()))


def find(kind: Kind, name: str) -> Plugin:
    """The plugin called `name`; a hyphen counts as an underscore.

    Raises:
        BpgenError: nothing has this name (with the nearest that exists), or two packages claim it.
    """
    name = name.replace("-", "_")
    points = {p.dist.name if p.dist else "?": p for p in entry_points(group=GROUPS[kind], name=name)}
    if not points:
        raise unknown(kind, name, plugins(kind), _REINSTALL)
    if len(points) > 1:
        raise BpgenError(f"{kind} {name!r} is claimed by {' and '.join(sorted(points))}: uninstall one of them.")
    return Plugin(kind, name, next(iter(points.values())))


def _source_file(module: str) -> Path:
    """Where a module's source is, without importing any of its parents."""
    top, *rest = module.split(".")
    if top in sys.modules and not rest:
        return Path(sys.modules[top].__file__ or "")
    spec = find_spec(top)  # of a top-level name: imports nothing
    if spec is None:
        raise ModuleNotFoundError(f"no module {top!r}")
    if not rest:
        return Path(spec.origin or "")
    for folder in spec.submodule_search_locations or []:
        base = Path(folder).joinpath(*rest)
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return file
    raise ModuleNotFoundError(f"no module {module!r}")
