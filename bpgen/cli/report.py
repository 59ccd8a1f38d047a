"""`bpgen report`: one self-contained page from any runs and studies, whole or half done."""

from __future__ import annotations

from pathlib import Path

from bpgen.cli.listing import Parser
from bpgen.cli.study import command
from bpgen.registry import plugins

DESCRIPTION = """\
Write one HTML file about runs and studies, also about ones that are half done: the question, verdicts with effect,
interval and n, charts in which every point leads to its run, a table that sorts and filters, what failed and why,
methods from the configs, versions, and the commands that make it again. It needs nothing else: send it, print it, open
it offline."""


def run(argv: list[str]) -> int:
    """Run the command."""
    parser = Parser(prog="bpgen report", description=DESCRIPTION)
    parser.add_argument("folder", nargs="+", metavar="FOLDER", help="runs, studies, or folders that hold some")
    parser.add_argument("--out", metavar="FILE", help="default: report.html in the only FOLDER, or here if several")
    parser.add_argument("--title", default="", help="of the page (default: the name of the study)")
    text = f"judge the claims of: {', '.join(plugins('paper'))} (default: known by the name of the study)"
    parser.add_argument("--paper", metavar="NAME", help=text)
    parser.add_argument(
        "--files", action="store_true", help="also the tables as CSV and figures as PNG and SVG beside it"
    )
    options = parser.parse_args(argv)
    from bpgen.report.content import gather
    from bpgen.report.page import write_report

    report = gather(options.folder, options.title, options.paper, command("report", argv))
    default = Path(options.folder[0]) if len(options.folder) == 1 else Path()
    file = Path(options.out or default / "report.html").expanduser()
    written = write_report(report, file, options.files)
    for section in report.sections:
        print(f"{section.title}: {section.counts}")
        for verdict in section.verdicts:
            print(f"  {verdict.claim + ' ' if verdict.claim else ''}{verdict.verdict}: {verdict.text}")
    others = f", and {len(written) - 1} files in {written[1].parent}" if len(written) > 1 else ""
    print(f"report    {file} ({file.stat().st_size / 1e6:.1f} MB{others})")
    return 0
