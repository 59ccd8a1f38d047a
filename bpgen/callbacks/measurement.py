"""What a measurement is: a Lightning callback that is a function of an evaluation, and says what its numbers are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from bpgen.callbacks.clock import EvaluationClock
from bpgen.callbacks.evaluation import Evaluation, Metrics
from bpgen.columns import Column
from bpgen.errors import require
from bpgen.training.callback import Callback, LightningModule, Trainer

Self = TypeVar("Self", bound="Measurement")


class Measurement(Callback):
    """Base of the measurements. A subclass names its `columns` and writes `measure`; the evaluation clock calls it.

    In a trainer's list of callbacks it works by itself, alone or beside others, which then share one clock. Rows go to
    the trainer's loggers, to `trainer.callback_metrics`, where other callbacks can monitor them, and to `rows`.

    Attributes:
        name: prefix of its columns, and its entry in the timings of the summary.
        columns: what it measures, in the order of the table.
        alone: whether it asks the trainer or its optimizer, which seeds that are trained at once do not have each.
        rows: what it measured so far, each with its epoch and step.
    """

    name: str = ""
    columns: ClassVar[tuple[Column, ...]] = ()
    alone: ClassVar[bool] = False

    @property
    def rows(self) -> list[Metrics]:
        """See the class."""
        rows: list[Metrics] = self.__dict__.setdefault("_rows", [])
        return rows

    @property
    def enabled(self) -> bool:
        """Whether there is anything to measure."""
        return True

    def measure(self, evaluation: Evaluation) -> Metrics:
        """The metrics at this evaluation, plain numbers by the names of their columns."""
        raise NotImplementedError

    def check(self, evaluation: Evaluation) -> None:
        """Find out before training what would fail in it; nothing by default.

        Raises:
            BpgenError: it cannot be measured here, with the reason.
        """

    def describe(self, evaluation: Evaluation) -> str:
        """One line for the log: what is measured, on which subset."""
        return f"{self.name}: {', '.join(column.label for column in self.columns)}"

    def about(self, evaluation: Evaluation) -> Mapping[str, Any]:
        """What holds of its numbers along the whole run, for the summary, by name; nothing by default."""
        return {}

    def tables(self, evaluation: Evaluation) -> Mapping[str, Any]:
        """What a row cannot hold of the last network: pandas tables by name, each a CSV file; nothing by default."""
        return {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See that there is a clock."""
        EvaluationClock.of(trainer)

    def named(self: Self, name: str) -> Self:
        """Itself under another name, to measure the same twice with different options."""
        self.name = name
        return self

    def prefixed(self, row: Metrics, surrogate: bool = False) -> Metrics:
        """The same numbers under this measurement's name, and of the surrogate network if they are."""
        prefix = f"{self.name}/surrogate" if surrogate else self.name
        return {f"{prefix}/{key}": value for key, value in row.items()}


def size_of(option: str, n: int | None) -> int:
    """The size of a subset; 0 switches a measurement off.

    Raises:
        BpgenError: it is negative.
    """
    require(n is None or n >= 0, f"{option} must be a number of samples (0 switches it off), got {n}.")
    return n or 0
