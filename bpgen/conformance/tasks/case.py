"""The task under examination, and fresh copies of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from bpgen.conformance.check import Outcome, Suite
from bpgen.errors import BpgenError
from bpgen.tasks import Split, Task
from bpgen.tasks.base import SPLITS, SplitName
from bpgen.tasks.contract import checked_splits

SUITE = Suite("splits", "life")


@dataclass
class Case:
    """The task under examination: its class, one of it, and what the user chose of its options."""

    name: str
    cls: type[Task]
    task: Task
    options: Mapping[str, Any] = field(default_factory=dict)
    _raw: dict[SplitName, Any] | None = None

    @property
    def exceptions(self) -> Mapping[str, str]:
        """Checks that it declares to fail, with reasons."""
        declared: Mapping[str, str] = getattr(self.task, "conformance_exceptions", {})
        return declared

    def remarks(self, outcomes: Mapping[str, Outcome]) -> list[str]:
        """What a network that ignores its inputs achieves, and what no suite can know."""
        return [*_chance(self.task), *_reused(self.task), _UNKNOWN]

    def fresh(self, **options: Any) -> Task:
        """A new one, its data not loaded yet."""
        return self.cls(**{**self.options, **options})

    def load(self) -> None:
        """Load the data.

        Raises:
            BpgenError: they are not there. What else goes wrong is for the checks to find.
        """
        try:
            self.task.load()
        except BpgenError:
            raise
        except Exception:
            return

    def splits(self) -> dict[SplitName, Split]:
        """Every split as the task itself hands it over, before anything is converted."""
        if self._raw is None:
            self._raw = checked_splits(f"task {self.name}", self.task.load())
        return {name: Split(*self._raw[name]) for name in SPLITS if name in self._raw}

    def inputs(self) -> Tensor:
        """Inputs that the noise of the test falls on [T,n,I]: of the test set, or of training where there is none."""
        return self.task.split("test" if self.task.has("test") else "train").x


_UNKNOWN = (
    "Not known to any suite: whether the target follows from the inputs, and how far back one has to look. Solve some "
    "trials with a few lines of your own; `bpgen tasks NAME --plot` draws them."
)


def _reused(task: Task) -> list[str]:
    if isinstance(task.clean_gap, str):
        return [f"The gap on clean inputs is not defined: {task.clean_gap}."]
    if not task.reuses_training:
        return []
    return ["Validation and test may hold sequences of training: the gap on clean inputs says little of new ones."]


def _chance(task: Task) -> list[str]:
    try:
        return [task.chance()]
    except Exception:  # a task whose splits do not fit fails its checks
        return []
