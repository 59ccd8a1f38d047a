"""`bpgen tasks`: the installed tasks, and what one of them is."""

from __future__ import annotations

from pathlib import Path

from bpgen.cli.listing import Parser, table
from bpgen.errors import BpgenError, require
from bpgen.registry import find


def run(argv: list[str]) -> int:
    """List the tasks, describe one, or draw it."""
    parser = Parser(
        prog="bpgen tasks",
        description="List the installed tasks, or describe one. `bpgen fit --task NAME --help` explains its options; "
        "`bpgen new task` writes the package of one of yours, `bpgen check NAME` examines it.",
    )
    parser.add_argument("name", nargs="?", help="a task to describe: what it asks, its source and its options")
    parser.add_argument("--plot", nargs="?", const="", metavar="FILE", help="draw trials of it into FILE (NAME.png)")
    args, options = parser.parse_known_args(argv)
    if args.name is None:
        require(args.plot is None and not options, "--plot and options need a task: `bpgen tasks NAME --plot`.")
        print(table("task"))
        return 0
    name = args.name.replace("-", "_")
    if args.plot is None:
        require(not options, f"options of a task need --plot: bpgen tasks {name} --plot {' '.join(options)}")
        from bpgen.cli.described import described, options_of

        plugin = find("task", name)
        needs = "".join(f" --task.{option.name} ..." for option in options_of(plugin.load()) if option.required)
        print(described(plugin, following=f"bpgen fit --task {name}{needs}, bpgen tasks {name} --plot{needs}"))
        return 0
    return _plot(name, args.plot, options)


def _plot(name: str, file: str, options: list[str]) -> int:
    from bpgen.cli.options import resolve
    from bpgen.tasks.picture import picture

    task = resolve(["--task", name, *options]).make_task()
    to = Path(file or f"{name}.png")
    try:
        picture(task, name).savefig(to)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise BpgenError(f"cannot write {to}: {why}. Name a file such as {name}.png or {name}.pdf.") from None
    print(to)
    return 0
