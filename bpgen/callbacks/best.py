"""The best evaluation by one column, and the end of training when none better has come for a while."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bpgen.errors import require, unknown
from bpgen.training.callback import Callback, LightningModule, Trainer

_LARGER = ("accuracy", "cosine", "rho", "r2")  # words in the names of columns of which more is better


class Evaluated(NamedTuple):
    """An evaluation's step and its value of the column."""

    step: int
    value: float


def best_of(rows: Iterable[Mapping[str, Any]], by: str) -> Evaluated | None:
    """The best of a run's rows: the smallest value, of accuracies and alignments the largest; the first of equals.

    None where the column holds no number.
    """
    sign = -1 if any(word in by for word in _LARGER) else 1
    found = [Evaluated(int(row["step"]), float(row[by])) for row in rows if math.isfinite(row.get(by, math.nan))]
    return min(found, key=lambda each: sign * each.value, default=None)


class EarlyStopping(Callback):
    """Ends training when the best evaluation so far is `patience` evaluations old.

    Unlike Lightning's it looks at the evaluations of the clock, whenever they are.

    Args:
        by: the column; smaller is better, of accuracies and alignments larger.
        patience: evaluations without a better one.

    Attributes:
        seen: the evaluations so far.
    """

    def __init__(self, by: str = "val/loss", patience: int = 5) -> None:
        require(patience >= 1, f"patience must be a positive number of evaluations, got {patience}.")
        self.by, self.patience = by, patience
        self.seen: list[Evaluated] = []

    def on_evaluation(self, trainer: Trainer, module: Any, row: Mapping[str, Any]) -> None:
        """Look at the row.

        Raises:
            BpgenError: it has no such column, or no number in it.
        """
        if self.by not in row:
            raise unknown("column", self.by, row, "It is to stop training.")
        require(
            bool(self.seen) or math.isfinite(row[self.by]),
            f"{self.by} is not measured here (no number at step {row['step']}): choose another column to stop by.",
        )
        self.seen.append(Evaluated(int(row["step"]), float(row[self.by])))
        self._stop(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run continued where it would have stopped stops."""
        self._stop(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The evaluations so far."""
        return {"seen": [tuple(each) for each in self.seen]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.seen = [Evaluated(*each) for each in state_dict["seen"]]

    def _stop(self, trainer: Trainer) -> None:
        best = best_of(({"step": i, self.by: each.value} for i, each in enumerate(self.seen)), self.by)
        if best is not None and len(self.seen) - 1 - best.step >= self.patience:
            trainer.should_stop = True
