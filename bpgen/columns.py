"""What a column of a run's table is: said once, by whoever measures it, for tables, figures, tracking and help."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from bpgen.errors import require


@dataclass(frozen=True)
class Column:
    """One column of metrics.csv.

    name: e.g. "train/loss"; W&B groups its panels by what stands before the slash.
    label: what it is, in the words of tables and legends.
    unit: of its values, in the words of an axis.
    panel: the figure of the run that it belongs to, and that picture's name, such as "weight_norms"; empty is none.
    shown: how the table at the end of a run writes it, e.g. "{:.1%}"; empty leaves it out.
    unless: leave it out of that table where this other column was measured.
    brief: what a line of progress calls it, e.g. "val accuracy"; empty leaves it out.
    optional: only in the file where it was measured; any other column is there in every run, if need be empty.
    """

    name: str
    label: str
    unit: str = ""
    panel: str = ""
    shown: str = ""
    unless: str = ""
    brief: str = ""
    optional: bool = False

    def __post_init__(self) -> None:
        require(
            re.fullmatch(r"\w*", self.panel) is not None,
            f"the panel of column {self.name!r} must be a name such as weight_norms, got {self.panel!r}.",
        )

    def of_surrogate(self) -> Column:
        """The same number of the surrogate network, which stands for one whose neurons spike."""
        prefix, _, rest = self.name.partition("/")
        return replace(self, name=f"{prefix}/surrogate/{rest}", label=f"{self.label}, surrogate network", optional=True)


def written(form: str, value: float) -> str:
    """A number as a format such as "{:+.1%}" writes it, and never as minus zero."""
    text = form.format(value)
    return form.format(0.0) if re.match(r"-[0.]+(?![\d.e])", text) else text


def with_surrogates(*columns: Column) -> tuple[Column, ...]:
    """Columns of a curvature, followed by those of the surrogate network."""
    return (*columns, *(column.of_surrogate() for column in columns))
