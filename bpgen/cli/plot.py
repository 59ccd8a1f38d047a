"""`bpgen plot`: existing runs together in one figure."""

from __future__ import annotations

from pathlib import Path

from bpgen.cli.listing import Parser
from bpgen.errors import BpgenError, unknown

DESCRIPTION = """\
Draw existing runs together, each measure against training steps with a line a run: test accuracy, training loss, gap,
sharpness and alignment, as far as they were measured; or the columns of metrics.csv that are named. Runs of the same
condition share a colour."""


def run(argv: list[str]) -> int:
    """Run the command."""
    parser = Parser(prog="bpgen plot", description=DESCRIPTION)
    parser.add_argument("run", nargs="+", metavar="RUN", help="runs, studies, or folders that hold some")
    parser.add_argument("--columns", metavar="A,B", help="columns of metrics.csv, a panel each, e.g. train/loss,lr")
    parser.add_argument("--out", metavar="FILE", default="runs.png", help="a .png, .svg or .pdf (default: runs.png)")
    options = parser.parse_args(argv)
    file = Path(options.out).expanduser()
    if file.suffix not in (".png", ".svg", ".pdf"):
        raise BpgenError(f"--out must end in .png, .svg or .pdf, got {options.out}.")
    from bpgen.figures.together import together
    from bpgen.report.content import gather

    sections = [s for s in gather(options.run).sections if not s.table.empty]
    if not sections:
        raise BpgenError("none of these runs has been evaluated yet: there is nothing to draw.")
    import pandas as pd

    several = len(sections) > 1
    parts = [s.table.assign(label=s.table["condition"] + (f", {s.title}" if several else "")) for s in sections]
    table = pd.concat(parts, ignore_index=True)
    columns = [c.strip() for c in (options.columns or "").split(",") if c.strip()]
    for column in columns:
        if column not in table or not pd.api.types.is_numeric_dtype(table[column]):
            raise unknown("column", column, [c for c in table if "/" in c], "See metrics.csv of a run.")
    figure = together(table, columns)
    try:
        figure.savefig(file)
    except OSError as error:
        raise BpgenError(f"cannot write {options.out}: {error.strerror}. Choose another --out.") from None
    print(f"figure    {file}: {table['run'].nunique()} runs")
    return 0
