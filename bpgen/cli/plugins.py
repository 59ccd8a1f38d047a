"""`bpgen plugins`: every installed part by kind, where it comes from, and what is wrong with it."""

from __future__ import annotations

import contextlib
import json
import sys

from bpgen.cli.listing import Parser
from bpgen.errors import BpgenError, require, unknown
from bpgen.registry import KINDS, Plugin, owner, plugins


def run(argv: list[str]) -> int:
    """Print the table of parts."""
    groups = ", ".join(kind.group for kind in KINDS.values())
    parser = Parser(
        prog="bpgen plugins",
        description="List everything installed that a run or a study can name, by kind, and try to import each. A part "
        f"of yours is announced by one line of its package's pyproject.toml, under an entry-point group: {groups}.",
    )
    parser.add_argument(
        "name", nargs="?", help="say all about the parts of this name: what it is, its options, columns"
    )
    parser.add_argument("--json", action="store_true", help="print JSON: name, group, package, version, error of each")
    options = parser.parse_args(argv)
    if options.name is not None:
        require(not options.json, "--json lists all parts: leave out the name.")
        print(_about(options.name))
        return 0
    rows = [row for kind in KINDS for plugin in plugins(kind).values() for row in _rows(plugin)]
    if options.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return 0
    width = {key: max(len(str(row[key])) for row in rows) for key in ("name", "package", "version")}
    for name, kind in KINDS.items():
        own = [row for row in rows if row["group"] == kind.group]
        print(f"{kind.group}" + ("" if own else "  (none)"))
        for row in own:
            cells = [str(row[key]).ljust(length) for key, length in width.items()]
            first = plugins(name)[str(row["name"])].same_as
            another = f"another name of {first}" if first else ""
            print(f"  {'  '.join(cells)}  {row['error'] or another}".rstrip())
    return 0


def _rows(plugin: Plugin) -> list[dict[str, str | None]]:
    """A row for every package that announces the part."""
    error = None
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a package prints when it is imported is no row
            plugin.load()
    except BpgenError as fault:
        error = str(fault)
    rows: list[dict[str, str | None]] = []
    for point in plugin.entry_points:
        package, version = owner(point)
        names = {"name": plugin.name, "group": point.group, "package": package, "version": version}
        rows.append({**names, "error": error})
    return rows


def _about(name: str) -> str:
    """All about the parts of a name, of whatever kinds."""
    from bpgen.cli.described import described

    asked = name.replace("-", "_")
    found = [plugins(kind)[asked] for kind in KINDS if asked in plugins(kind)]
    if not found:
        raise unknown("part", name, {other for kind in KINDS for other in plugins(kind)}, "See `bpgen plugins`.")
    texts = []
    for plugin in found:
        columns = [(c.name, c.label, c.unit) for c in getattr(plugin.load(), "columns", ())]
        width = max((len(column) for column, _, _ in columns), default=0)
        lines = [f"  {column:<{width}}  {label}{f' ({unit})' if unit else ''}" for column, label, unit in columns]
        texts.append(described(plugin, "\n".join(["columns", *lines]) if lines else ""))
    return "\n\n".join(texts)
