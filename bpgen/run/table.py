"""metrics.csv: a run's table, written row by row, and read back with a clear error where it is damaged."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from bpgen import durable
from bpgen.callbacks.evaluation import Metrics
from bpgen.errors import BpgenError, require


class Table:
    """One complete row per evaluation.

    While a run writes it, the whole text is kept in memory: rows that the disk lost are written again with the next.

    Args:
        file: metrics.csv.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._text: str | None = None  # as it should be on the disk; None as long as nothing was written here

    @property
    def text(self) -> str:
        """All of it; empty before the first row."""
        if self._text is not None:
            return self._text
        return self.file.read_bytes().decode(errors="replace") if self.file.exists() else ""

    def columns(self) -> list[str]:
        """Names of the columns; empty before the first row."""
        return next(csv.reader(self.text.splitlines()[:1]), [])

    def append(self, row: Metrics, columns: Iterable[str] = ()) -> None:
        """Add a row; the first one fixes the columns: these, then any further ones of that row.

        What was not measured stays empty; what a continued run measures beyond its first row is left out.

        Raises:
            durable.NotWritten: the row is kept, and written with the next.
        """
        text = self.text
        names, lines = self.columns() or list(dict.fromkeys([*columns, *row])), io.StringIO()
        writer = csv.DictWriter(lines, names, restval="", extrasaction="ignore", lineterminator="\n")
        if not text:
            writer.writeheader()
        writer.writerow({name: _number(value) for name, value in row.items()})
        self._text = text + lines.getvalue()
        size = self.file.stat().st_size if self.file.exists() else 0
        if size == len(text.encode()):
            durable.append(self.file, lines.getvalue())
        else:
            durable.write(self.file, self._text)

    def replace(self, text: str) -> None:
        """Make it this text, where it is another."""
        if text != self.text:
            durable.write(self.file, text)
        self._text = text

    def up_to(self, step: int) -> str:
        """The text of the rows up to a step, without those that were cut off while they were written."""
        header, *lines = self.text.splitlines(keepends=True) or [""]
        names = header.rstrip("\n").split(",")
        require("step" in names or not lines, f"{self.file} is damaged: it has no column step.")
        kept = [line for line in lines if line.endswith("\n") and _step(line, names.index("step")) <= step]
        return "".join([header, *kept]) if header.endswith("\n") else ""

    def rows(self) -> list[dict[str, float]]:
        """All rows, as numbers; what was not measured is left out.

        Raises:
            BpgenError: a line is not one that a run writes.
        """
        if not self.text:
            return []
        header, *lines = csv.reader(self.text.replace("\0", "?").splitlines())  # older Pythons stop at a zero byte
        rows = []
        for number, cells in enumerate(lines, 2):
            try:
                pairs = zip(header, cells, strict=True)
                rows.append({name: float(cell) for name, cell in pairs if cell != ""})
            except ValueError:
                raise BpgenError(
                    f"{self.file} is damaged at line {number}: expected {len(header)} numbers. If the run is not over, "
                    f"`bpgen fit --resume {self.file.parent}` writes it anew; else run its config.yaml again."
                ) from None
        return rows


def _step(line: str, place: int) -> float:
    """The step of a row; beyond all others where it is none, so that it is dropped."""
    cells = line.rstrip("\n").split(",")
    return int(cells[place]) if place < len(cells) and cells[place].isdecimal() else float("inf")


def _number(value: float | int) -> str:
    return repr(value) if isinstance(value, int) else repr(float(value))
