"""The page: one HTML file without any request to anywhere; jinja2 escapes whatever comes from configs and folders."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import jinja2

from bpgen.errors import BpgenError
from bpgen.figures.study import study_figures
from bpgen.report.charts import SHAPES
from bpgen.report.content import Report, Section, relative
from bpgen.study.catalogue import slug
from bpgen.study.loading import write_table


def page(report: Report, file: Path) -> str:
    """The HTML of a report that will lie at `file`: links to runs are relative to it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bpgen.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": _number, "picture": _picture, "shape": lambda i: SHAPES[i % len(SHAPES)]}
    here = file.resolve().parent
    link = lambda path: relative(Path(path).resolve(), here)  # noqa: E731
    return environment.get_template("report.html.jinja").render(report=report, link=link)


def write_report(report: Report, file: Path, beside: bool = False) -> list[Path]:
    """Write the page, and `beside` it a folder with every section's table and figures; returns what was written.

    Raises:
        BpgenError: it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page(report, file), encoding="utf-8")
        written = [file]
        if beside:
            folder = file.with_name(f"{file.stem}_files")
            folder.mkdir(exist_ok=True)
            written += [other for section in report.sections for other in _files(section, folder)]
    except OSError as error:
        raise BpgenError(f"cannot write the report to {file}: {error.strerror}. Choose another --out.") from None
    return written


def _files(section: Section, folder: Path) -> list[Path]:
    if section.table.empty:
        return []
    name = slug(section.title) or "section"
    written = [folder / f"{name}.csv"]
    write_table(section.table, written[0])
    for figure_name, figure in study_figures(section.table).items():
        written += [folder / f"{name}_{figure_name}.{kind}" for kind in ("png", "svg")]
        for path in written[-2:]:
            figure.savefig(path)
    return written


def _number(value: Any, factor: float = 1) -> str:
    """A number as the tables show it; nothing for what was not measured."""
    if value is None or not math.isfinite(value):
        return ""
    value = factor * value
    whole = value == int(value) or abs(value) >= 1e3
    return f"{value:.0f}" if whole and abs(value) < 1e7 else f"{value:.3g}"


def _picture(path: Path) -> str:
    """A picture as a data address."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
