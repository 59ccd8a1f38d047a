"""The suite for tasks: splits that fit what the task declares, the same in every run, and a perturbation of inputs."""

from __future__ import annotations

from typing import Any

from bpgen.conformance.check import Check
from bpgen.conformance.tasks import life, splits  # noqa: F401  (they register their checks)
from bpgen.conformance.tasks.case import SUITE, Case
from bpgen.errors import BpgenError, raised_in
from bpgen.registry import find
from bpgen.signatures import check_options
from bpgen.tasks import Task


def plan(task: str | type[Task], options: dict[str, Any]) -> list[Check]:
    """All checks for a task, by its name or its class, and with these options of its constructor.

    Raises:
        BpgenError: also where its data are not there: nothing could be checked then.
    """
    cls = find("task", task).load() if isinstance(task, str) else task
    name = find("task", task).name if isinstance(task, str) else task.__name__
    check_options(cls, options, f"task {name!r}")
    try:
        case = Case(name, cls, cls(**options), options)
    except TypeError as error:
        missing = raised_in(error, cls) is None  # an option that it needs
        raise (BpgenError(f"task {name!r}: {error}. Give it as OPTION=VALUE.") if missing else error) from error
    case.load()
    return SUITE.plan(case)
