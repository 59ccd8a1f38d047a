"""`bpgen tasks`: the installed tasks."""

from __future__ import annotations

from bpgen.cli.listing import listing


def run(argv: list[str]) -> int:
    """List the tasks."""
    return listing(
        "task",
        argv,
        "List the installed tasks: name, package, what it is. `bpgen fit --task NAME --help` shows a task's options.",
    )
