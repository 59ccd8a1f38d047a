"""`bpgen rules`: the installed learning rules."""

from __future__ import annotations

from bpgen.cli.listing import listing


def run(argv: list[str]) -> int:
    """List the rules."""
    return listing(
        "rule",
        argv,
        "List the installed learning rules: name, package, what it is. "
        "`bpgen fit --rule NAME --help` shows a rule's options; a rule of yours appears after `pip install`.",
    )
