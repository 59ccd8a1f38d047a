"""`bpgen rules`: the installed learning rules, their traits, or all about one of them."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import sys
import textwrap
from typing import Any

from bpgen.cli.described import described, module_text, options_of
from bpgen.cli.listing import Parser, table
from bpgen.registry import find

_CELL = 34  # letters
_AUDITED = "* measured as well as declared, with the rule's default options: `bpgen check --locality NAME`"
_DESCRIPTION = (
    "List the installed learning rules: name, package, what it is. A rule of yours appears after `pip install`; "
    "`bpgen new rule` writes its package, `bpgen check NAME` examines it."
)


def run(argv: list[str]) -> int:
    """List the rules, print their traits, or print everything about one."""
    parser = Parser(prog="bpgen rules", description=_DESCRIPTION)
    parser.add_argument("name", nargs="?", help="print this rule's equations, options and traits")
    parser.add_argument("--traits", action="store_true", help="print a table of all rules with their traits")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    form.add_argument("--markdown", action="store_true", help="print the traits as a Markdown table")
    options = parser.parse_args(argv)
    if options.name:
        print(_described(options.name, options.json))
        return 0
    if not argv:
        print(table("rule"))
        return 0
    import warnings

    from bpgen.conformance.rules.locality import confirmed
    from bpgen.rules.api import list_rules

    with warnings.catch_warnings(record=True) as broken, contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("always")
        rules = {name: traits.plain() for name, traits in list_rules().items()}
    for warning in broken:
        print(warning.message, file=sys.stderr)
    for name, traits in rules.items():
        traits["audited"] = sorted(confirmed(name, find("rule", name).load()))
    if options.json:
        print(json.dumps(rules, indent=1, ensure_ascii=False))
        return 0
    others = {name: find("rule", name).same_as for name in rules}
    rows = {name: _columns(t) for name, t in rules.items() if not others[name]}
    print(
        _table(rows, " | ", "| ", " |")
        if options.markdown
        else _in_parts(rows, shutil.get_terminal_size((120, 24)).columns)
    )
    again = [f"{name} is another name of {first}." for name, first in others.items() if first]
    print("", "\n".join([_AUDITED, *again]), sep="\n")
    return 0


def _in_parts(rows: dict[str, dict[str, str]], width: int) -> str:
    """Tables for a terminal: where the credit comes from, then what it costs and when it is exact.

    Each of the two is as many tables as it takes, one below the other, for no row to be longer than `width`.
    """
    cost = ("time per step", "memory", "neurons", "exact when")
    titles = list(next(iter(rows.values())))
    parts: list[str] = []
    for of_cost in (False, True):
        group: list[str] = []
        for title in [t for t in titles if (t in cost) is of_cost]:
            if group and _width(_part(rows, [*group, title])) > width:
                parts.append(_part(rows, group))
                group = []
            group.append(title)
        parts.append(_part(rows, group))
    return "\n\n".join(parts)


def _part(rows: dict[str, dict[str, str]], titles: list[str]) -> str:
    return _table({name: {title: cells[title] for title in titles} for name, cells in rows.items()}, "  ", "", "")


def _width(text: str) -> int:
    return max(map(len, text.splitlines()))


def _columns(traits: dict[str, Any]) -> dict[str, str]:
    """The traits that tell rules apart, as short cells; --json and `bpgen rules NAME` have them all."""
    names = (
        "signal_origin",
        "signal_scope",
        "recurrence",
        "weight_transport",
        "needs_future",
        "online",
        "time_per_step",
        "memory",
        "stochastic",
        "update",
        "neurons",
        "exact_when",
    )
    seen = traits["audited"]
    cells = {name.replace("_", " "): _cell(traits[name]) + " *" * (name in seen) for name in names}
    cells["neurons"] = cells["neurons"] or "all"
    return cells


def _cell(value: Any) -> str:
    """A trait as a short text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _table(rows: dict[str, dict[str, str]], between: str, before: str, after: str) -> str:
    """Rows of equal columns; with bars it is a Markdown table."""
    head = ["rule", *next(iter(rows.values()))]
    heads = [head]
    if not before:  # on a terminal, headings of two words take two lines
        split = [("", *title.rsplit(" ", 1))[-2:] for title in head]
        heads = [list(row) for row in zip(*split, strict=True)]
    lines = [*heads, *([name, *cells.values()] for name, cells in rows.items())]
    if not before:
        lines = [part for line in lines for part in _wrapped(line)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = [before + between.join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + after for line in lines]
    text.insert(len(heads), before + between.join("-" * w for w in widths) + after)
    return "\n".join(line.rstrip() for line in text)


def _wrapped(line: list[str]) -> list[list[str]]:
    """A row whose long cells go on below, so that a table fits a terminal."""
    cells = [textwrap.wrap(cell, _CELL) or [""] for cell in line]
    return [list(part) for part in itertools.zip_longest(*cells, fillvalue="")]


def _described(name: str, as_json: bool) -> str:
    """Everything about one rule: what it is and its equations, its options, its traits."""
    plugin = find("rule", name)
    with contextlib.redirect_stdout(sys.stderr):  # what a plugin prints at import is not part of the answer
        cls = plugin.load()
    traits = cls.traits.plain()
    if as_json:
        options = [option.plain() for option in options_of(cls)]
        return json.dumps({"doc": module_text(cls), "options": options, "traits": traits}, indent=1, ensure_ascii=False)
    lines = [f"  {t.replace('_', ' '):<18}{_cell(v) or ('all' if t == 'neurons' else '-')}" for t, v in traits.items()]
    if cls.suits:
        lines += ["", "options of the run that suit it, where you give none"]
        lines += [f"  --{option} {value}" for option, value in cls.suits.items()]
    return described(
        plugin, "\n".join(["traits", *lines]), f"bpgen fit --rule {plugin.name}, bpgen check {plugin.name}"
    )
