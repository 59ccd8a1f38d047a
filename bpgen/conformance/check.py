"""What a check is, how it is registered and run, for parts of every kind."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from bpgen.errors import BpgenError, RuleError, raised_in

Status = Literal["pass", "fail", "declared", "skipped"]


class Outcome(NamedTuple):
    """What came of a check: message is why it failed, what was declared, or why it was skipped."""

    status: Status
    message: str
    seconds: float


class Case(Protocol):
    """The part under examination: each kind has one, with what its checks need.

    name: how reports call the part. cls: its class. exceptions: checks that it declares to fail, with reasons.
    """

    name: str

    @property
    def cls(self) -> type: ...  # noqa: D102
    @property
    def exceptions(self) -> Mapping[str, str]: ...  # noqa: D102

    def remarks(self, outcomes: Mapping[str, Outcome]) -> list[str]:
        """What was found out that neither passes nor fails, and, last and loudly, what was not checked.

        Args:
            outcomes: of all its checks by name.
        """
        ...


class Inapplicable(Exception):
    """This part cannot be put into the situation a check is about; the message says why."""


@dataclass(frozen=True)
class Check:
    """One property of one part. Call it, or let pytest: an AssertionError says what is wrong.

    name: the property. why: what it protects from. skipped: why it does not apply to this part, or "". declared: the
    reason that the part gives for not having the property, or "".
    """

    name: str
    why: str
    case: Any
    examine: Callable[[Any], None] = field(repr=False)
    skipped: str = ""
    declared: str = ""

    def __str__(self) -> str:
        return self.name

    def __call__(self) -> Outcome:
        """Examine the part.

        Raises:
            AssertionError: the part lacks the property, or has it although it declares that it does not.
        """
        outcome = self.run()
        if outcome.status == "fail":
            raise AssertionError(f"{self.case.name}: {self.name}: {outcome.message}\nWhy it matters: {self.why}")
        return outcome

    def run(self) -> Outcome:
        """Examine the part and say what came of it; never raises for what the part does."""
        start, status, message = time.perf_counter(), "pass", ""
        if self.skipped:
            return Outcome("skipped", self.skipped, 0.0)
        import torch  # a misspelt name is refused before it is there

        try:
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what torch deprecates is no failure of the part
                self.examine(self.case)
        except Inapplicable as reason:
            status, message = "skipped", str(reason)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a part that exits fails its check
            status, message = "fail", _in_words(error, self.case.cls)
        if self.declared and status == "fail":
            status, message = "declared", self.declared
        elif self.declared and status == "pass":
            status, message = "fail", "it is declared as an exception, but it holds: remove the declaration."
        return Outcome(status, message, time.perf_counter() - start)  # type: ignore[arg-type]


def _in_words(error: BaseException, cls: type) -> str:
    """Why a check failed: its own words, or what the part raised and where in its file."""
    own_file = raised_in(error, cls)
    if isinstance(error, RuleError) or (isinstance(error, AssertionError) and own_file is None):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = own_file or f"{last.filename}, line {last.lineno}, in {last.name}"
    return f"it raised {type(error).__name__}: {' '.join(str(error).split())} ({where})."


class _Property(NamedTuple):
    name: str
    why: str
    unless: Callable[[Any], str]
    examine: Callable[[Any], None]


class Suite:
    """All checks of one kind of part.

    Args:
        order: names of the modules that register them, in the order of a report: what breaks everything else is first.
    """

    def __init__(self, *order: str) -> None:
        self._order = order
        self._properties: list[_Property] = []

    def prop(self, name: str, why: str, unless: Callable[[Any], str] = lambda case: "") -> Callable[[Any], Any]:
        """Register a check: `unless(case)` is the reason why it does not apply to a part, or ""."""

        def register(examine: Callable[[Any], None]) -> Callable[[Any], None]:
            self._properties.append(_Property(name, why, unless, examine))
            return examine

        return register

    def plan(self, case: Case) -> list[Check]:
        """Every check, those that do not apply with their reason.

        Raises:
            BpgenError: the part declares an exception to a check that does not exist.
        """
        known = [p.name for p in self._properties]
        for name in case.exceptions:
            if name not in known:
                checks = "; ".join(known)
                raise BpgenError(f"{case.name}.conformance_exceptions names {name!r}; the checks are: {checks}.")
        order = sorted(self._properties, key=lambda p: self._place(p.examine))
        return [Check(p.name, p.why, case, p.examine, p.unless(case), case.exceptions.get(p.name, "")) for p in order]

    def _place(self, examine: Callable[[Any], None]) -> int:
        module = examine.__module__.rsplit(".", 1)[-1]
        return self._order.index(module) if self._order else 0
