"""What SLURM knows of a study's tasks, and what the study has to remember of them: STUDY/slurm/*.json.

A submission is written down under a name of its own before it is made, and looked up by that name: so a call of the
study that is killed at any moment leaves nothing behind that the next one does not find.
"""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bpgen import durable

FOLDER = "slurm"  # in the study's folder
_ALIVE = re.compile(r"(?P<name>[^|]+)\|\d+(?:_(?P<index>\d+))?\|(?P<state>\w+)")


@dataclass
class Submission:
    """One array of tasks.

    Attributes:
        name: of the SLURM job, unique.
        packs: names of the runs by task.
        alone: whether these runs were once in tasks that died, so that each is alone now.
        job_id: as SLURM gave it; none if the call was killed before it was told.
        closed: runs that are settled here: what became of them.
    """

    name: str
    packs: list[list[str]]
    alone: bool = False
    job_id: str | None = None
    closed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One task of an array."""

    submission: Submission
    index: int

    @property
    def key(self) -> tuple[str, int]:
        """Its name in the queue."""
        return self.submission.name, self.index

    @property
    def id(self) -> str:
        """As SLURM spells it."""
        one = len(self.submission.packs) == 1
        return f"{self.submission.job_id}" if one else f"{self.submission.job_id}_{self.index}"


class Ledger:
    """All submissions of a study, in their order."""

    def __init__(self, study: Path) -> None:
        self.folder = study / FOLDER
        files = sorted(self.folder.glob("*.json"))
        self.submissions = [Submission(**json.loads(file.read_text(encoding="utf-8"))) for file in files]

    def open(self, packs: Sequence[Sequence[str]], alone: bool) -> Submission:
        """Write down a submission that is to be made."""
        durable.make_folder(self.folder)
        name = f"bpgen-{len(self.submissions):04d}-{uuid.uuid4().hex[:8]}"
        self.submissions.append(Submission(name, [list(pack) for pack in packs], alone))
        self.save(self.submissions[-1])
        return self.submissions[-1]

    def save(self, submission: Submission) -> None:
        """Write down what has changed."""
        durable.write(self.folder / f"{submission.name}.json", json.dumps(asdict(submission), indent=1))

    def tasks(self) -> dict[str, Task]:
        """The tasks that have runs to settle, by the names of these runs."""
        found: dict[str, Task] = {}
        for submission in self.submissions:
            for index, pack in enumerate(submission.packs):
                for run in pack:
                    found.pop(run, None)
                    if run not in submission.closed:
                        found[run] = Task(submission, index)
        return found

    def close(self, task: Task, run: str, what: str) -> None:
        """A run is settled in this task, whether done or to be done in another one."""
        task.submission.closed[run] = what
        self.save(task.submission)


def alive(submissions: Iterable[Submission]) -> dict[tuple[str, int], str] | None:
    """The states of all tasks that wait, run, or are just ending; None while SLURM does not answer."""
    names = [submission.name for submission in submissions]
    if not names:
        return {}
    text = _ask("squeue", "--noheader", "--array", f"--name={','.join(names)}", "--format=%j|%i|%T")
    if text is None:
        return None
    found = (_ALIVE.fullmatch(line.strip()) for line in text.splitlines())
    return {(m["name"], int(m["index"] or 0)): m["state"] for m in found if m}


def ended_as(task: Task) -> str:
    """How SLURM says that a task has ended, e.g. CANCELLED or OUT_OF_MEMORY; UNKNOWN where it does not remember."""
    if task.submission.job_id is None:
        return "UNKNOWN"
    shown = _ask("scontrol", "--oneliner", "show", "job", task.id) or ""
    state = re.search(r"\bJobState=(\w+)", shown)
    if state:
        return state[1]
    counted = _ask("sacct", "--noheader", "--allocations", "--parsable2", "--jobs", task.id, "--format=State") or ""
    return next(iter(counted.split()), "UNKNOWN")


def in_words(submissions: Sequence[Submission], states: dict[tuple[str, int], str]) -> Iterator[str]:
    """A line per array with tasks that are alive."""
    for submission in submissions:
        own = [state for (name, _), state in states.items() if name == submission.name]
        if own:
            counts = ", ".join(f"{own.count(state)} {state.lower()}" for state in sorted(set(own)))
            yield f"SLURM job {submission.job_id or submission.name}: {counts} of {len(submission.packs)} tasks"


def _ask(*command: str) -> str | None:
    """What a command of SLURM prints; None where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603  (a fixed command with a list of arguments)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
