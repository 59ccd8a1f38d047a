"""The table of parts: everything a run or a study is made of by name, found through entry points, whoever wrote it.

Six kinds, one door each: a package announces a class under the group of its kind, and its name works wherever a name of
this kind is asked for. The parts that come with bpgen go through the same doors.

Nothing here imports a part before it is asked for: listing costs metadata only, and a broken part harms nobody but
the user who asks for it. Standard library only, so that `bpgen rules` answers at once.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bpgen.errors import BpgenError, raised_in, unknown
from bpgen.signatures import check_options
from bpgen.time_limit import on_imports

KindName = Literal["rule", "task", "neuron", "measurement", "launcher", "paper"]
_REINSTALL = "A new entry point is seen only after its package is installed again (pip install)."


class Kind(NamedTuple):
    """One kind of part: the entry-point group that announces it, and the class that every part of it derives from."""

    group: str
    base: str


KINDS: dict[KindName, Kind] = {
    "rule": Kind("bpgen.rules", "bpgen.rules:Rule"),
    "task": Kind("bpgen.tasks", "bpgen.tasks:Task"),
    "neuron": Kind("bpgen.neurons", "bpgen.neurons:Neuron"),
    "measurement": Kind("bpgen.measurements", "bpgen.callbacks.measurement:Measurement"),
    "launcher": Kind("bpgen.launchers", "bpgen.study.launchers:Launcher"),
    "paper": Kind("bpgen.papers", "bpgen.papers:Paper"),
}


@dataclass(frozen=True)
class Plugin:
    """One part: the name a user types, and the entry points that claim it, of which there should be one."""

    kind: KindName
    name: str
    entry_points: tuple[EntryPoint, ...]

    @property
    def package(self) -> str:
        """Name and version of the distribution that brings it; of all that claim its name."""
        return " and ".join(" ".join(owner(point)) for point in self.entry_points)

    @property
    def same_as(self) -> str:
        """The name of the part that this one is by another name, of its own package; empty for all others.

        Of several names the first is that of the module: three_factor of `bpgen_rules.three_factor:ThreeFactor`.
        """
        point = self.entry_points[0]
        group = entry_points(group=KINDS[self.kind].group)
        named = [p.name for p in group if p.value == point.value and owner(p) == owner(point)]
        first = min(map(_spelled, named), key=lambda name: (name != point.module.rpartition(".")[2], name), default="")
        return "" if first == self.name else first

    @property
    def class_path(self) -> str:
        """`module.Class`, as a config file may also spell it."""
        return self.entry_points[0].value.replace(":", ".")

    @property
    def summary(self) -> str:
        """First line of the module's docstring, read from the file without importing it."""
        try:
            file = _source_file(self.entry_points[0].module)
            doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        except Exception as error:  # a broken plugin is listed, never fatal
            return f"(broken: {type(error).__name__}: {error})"
        return doc.splitlines()[0] if doc else "(no docstring)"

    def make(self, *given: Any, **options: Any) -> Any:
        """Make the part.

        Args:
            given: what every part of its kind is made with.
            **options: of its constructor, as a user gives them.

        Raises:
            BpgenError: it cannot be loaded, an option does not exist or is of another type, or its constructor failed.
        """
        cls, what = self.load(), f"{self.kind} {self.name!r}"
        check_options(cls, options, what)
        try:
            part = cls(*given, **options)
        except (BpgenError, KeyboardInterrupt):
            raise
        except BaseException as error:  # a stranger's constructor, which may even exit
            with_ = " ".join(f"{option}={value}" for option, value in options.items()) or "its defaults"
            where = raised_in(error, cls) or "outside its file"
            raise BpgenError(
                f"{what} cannot be built with {with_}: {type(error).__name__}: {error} ({where}). "
                f"See `bpgen plugins {self.name}` for its options."
            ) from error
        if hasattr(cls, "named_children") and "_modules" not in vars(part):  # a torch module that never was made one
            raise BpgenError(f"{what} is not ready: its __init__ has to call super().__init__() first.")
        return part

    def load(self) -> Any:
        """Import the class.

        Raises:
            BpgenError: two packages claim the name, or it cannot be imported, or not in time, or is of another kind.
        """
        if len(self.entry_points) > 1:
            raise BpgenError(f"{self.kind} {self.name!r} is claimed by {self.package}: uninstall all but one.")
        return _checked(self.kind, self.name, self.package, self.entry_points[0].value, self.entry_points[0].load)


@dataclass(frozen=True)
class FilePart(Plugin):
    """A part in a file that no package announces, named FILE.py:Class: for a first try."""

    @property
    def package(self) -> str:
        """There is none."""
        return "a file"

    @property
    def summary(self) -> str:
        """The file."""
        return self.name

    @property
    def class_path(self) -> str:
        """As it was named."""
        return self.name

    def load(self) -> Any:
        """Import the class from its file, once.

        Raises:
            BpgenError: the file cannot be run, or the class is not there or not of this kind.
        """
        file, _, cls = self.name.rpartition(":")
        return _checked(self.kind, self.name, self.package, self.name, partial(_from_file, Path(file), cls))


def plugins(kind: KindName) -> dict[str, Plugin]:
    """All installed parts of one kind by name, sorted; a hyphen in an announced name counts as an underscore."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=KINDS[kind].group):
        found.setdefault(_spelled(point.name), []).append(point)
    return {name: Plugin(kind, name, _one_each(points)) for name, points in sorted(found.items())}


def find(kind: KindName, name: str) -> Plugin:
    """The part called `name`; a hyphen counts as an underscore. FILE.py:Class names a class in a file.

    Raises:
        BpgenError: nothing has this name, with the nearest that exists.
    """
    if re.search(r"\.py:\w+$", name):
        file, _, cls = name.rpartition(":")
        return FilePart(kind, f"{Path(file).expanduser().resolve()}:{cls}", ())
    known = plugins(kind)
    if _spelled(name) not in known:
        raise unknown(kind, name, known, _REINSTALL)
    return known[_spelled(name)]


def base_of(kind: KindName) -> type:
    """The class that every part of this kind derives from."""
    module, _, name = KINDS[kind].base.partition(":")
    return getattr(import_module(module), name)


def owner(point: EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution that announces an entry point."""
    return (point.dist.name or "?", point.dist.version or "") if point.dist else ("?", "")


def _one_each(points: list[EntryPoint]) -> tuple[EntryPoint, ...]:
    """The first of every distribution: one that is found twice on the path, or spells a name twice, is no rival."""
    return tuple(points) if len(points) == 1 else tuple({owner(p)[0]: p for p in reversed(points)}.values())[::-1]


def _spelled(name: str) -> str:
    return name.replace("-", "_")


def _checked(kind: KindName, name: str, package: str, value: str, load: Callable[[], Any]) -> Any:
    """What `load` gives, which must be a class of this kind."""
    base = base_of(kind)  # first: torch may take its time
    with on_imports():
        try:
            loaded = load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin that exits when it is imported has failed, not the program
            raise BpgenError(
                f"{kind} {name!r} from {package} is broken: {type(error).__name__}: {error}. "
                "Repair or uninstall that package; the others still work."
            ) from error
    if not isinstance(loaded, type):
        raise BpgenError(f"{kind} {name!r} from {package} names {value!r}, which is not a class.")
    if not issubclass(loaded, base):
        wanted = KINDS[kind].base.replace(":", ".")
        raise BpgenError(f"{kind} {name!r} from {package} is {loaded.__name__}, which is not a {wanted}.")
    return loaded


def _from_file(file: Path, cls: str) -> Any:
    """A class of a file, which is run at most once in a process."""
    name = "bpgen_file_" + re.sub(r"\W", "_", str(file))
    if name not in sys.modules:
        spec = spec_from_file_location(name, file)
        if spec is None or spec.loader is None or not file.is_file():
            raise FileNotFoundError(f"no file {file}")
        module = module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return getattr(sys.modules[name], cls)


def _source_file(module: str) -> Path:
    """Where a module's source is, without importing any of its parents."""
    top, *rest = module.split(".")
    if top in sys.modules and not rest:
        return Path(sys.modules[top].__file__ or "")
    spec = find_spec(top)  # of a top-level name: imports nothing
    if spec is not None and not rest:
        return Path(spec.origin or "")
    for folder in (spec and spec.submodule_search_locations) or []:
        base = Path(folder).joinpath(*rest)
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return file
    raise ModuleNotFoundError(f"no module {module!r}")
