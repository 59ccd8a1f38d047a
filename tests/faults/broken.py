"""Runs in processes of their own that are killed, or whose disk fails, at a chosen write.

A process is a fork of this one, which has torch and Lightning already, so that a fault costs a fraction of a second.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bpgen.cli.options import resolve
from bpgen.errors import BpgenError
from bpgen.run.config import Config
from bpgen.run.fit import fit
from bpgen.run.folder import RunFolder
from bpgen.run.resume import resume

TINY = [
    *("--network.n_rec", "8", "--trainer.max_steps", "4", "--evaluation.every", "2", "--threads", "1"),
    *("--sharpness.samples", "0", "--alignment.samples", "0", "--gap.train_samples", "8", "--gap.test_samples", "8"),
]
OFF = ["--wandb", "off"]
POINTS = ("open", "write", "fsync", "replace")  # what a process does to a file


class Process(NamedTuple):
    """How a process ended: its exit code, -9 where it was killed, and what it said."""

    code: int
    said: str


def forked(act: Callable[[], int | None], kill_after: float | None = None, limit: float = 120.0) -> Process:
    """Do something in a process of its own.

    Args:
        act: what; its value is the exit code.
        kill_after: seconds after which it is killed, by SIGKILL.
        limit: seconds after which it hangs: a fault of bpgen.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        code = 99
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code = act() or 0
        except BaseException:
            said.write(traceback.format_exc())
        finally:
            with contextlib.suppress(OSError):
                os.write(write, said.getvalue().encode()[-60_000:])
            os._exit(code)
    os.close(write)
    until, killed = time.monotonic() + limit, False
    moment = None if kill_after is None else time.monotonic() + kill_after
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if (moment is not None and time.monotonic() >= moment) or time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            killed = killed or time.monotonic() > until
            moment = None
        time.sleep(0.002)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return Process(98 if killed else code, said)


class At:
    """Something that happens at the n-th touch of a file in a folder: the process is killed, or the disk fails.

    Args:
        folder: only files below it count.
        moment: which touch, from 0; -1 only counts.
        fault: "kill", or a number of `errno`.
        point: only this one of `POINTS`; None is any.
        name: only files whose name ends so.
        lasting: the disk fails from there on, and not once only.
    """

    def __init__(
        self,
        folder: Path,
        moment: int,
        fault: str | int = "kill",
        point: str | None = None,
        name: str = "",
        lasting: bool = True,
    ) -> None:
        self.folder, self.moment, self.fault = str(folder), moment, fault
        self.point, self.name, self.lasting, self.seen = point, name, lasting, 0

    def touch(self, point: str, file: Any, half: Callable[[], object] | None = None) -> None:
        """Count a touch; kill or fail if it is the one. half: what has been done by then, of a write."""
        path = str(file)
        if not path.startswith(self.folder) or (self.point and point != self.point):
            return
        if self.name and not path.removesuffix(".part").endswith(self.name):
            return
        now, self.seen = self.seen, self.seen + 1
        if self.moment < 0 or now < self.moment or (now > self.moment and not self.lasting):
            return
        if half is not None:
            half()
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(self.fault, os.strerror(int(self.fault)))

    def __enter__(self) -> At:
        self._kept = builtins.open, os.fsync, os.replace
        opened, fsync, replace = builtins.open, os.fsync, os.replace

        def open_(file: Any, mode: str = "r", *given: Any, **options: Any) -> Any:
            if not set(mode) & set("wax+") or isinstance(file, int):
                return opened(file, mode, *given, **options)
            self.touch("open", file)
            handle = opened(file, mode, *given, **options)
            write = handle.write

            def part(data: Any) -> Any:
                def half() -> None:
                    write(data[: len(data) // 2])
                    handle.flush()

                self.touch("write", file, half)
                return write(data)

            with contextlib.suppress(AttributeError):
                handle.write = part
                return handle
            return _Watched(handle, part)

        def fsync_(descriptor: int) -> None:
            self.touch("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
            fsync(descriptor)

        def replace_(source: Any, target: Any, **options: Any) -> None:
            self.touch("replace", target)
            replace(source, target, **options)

        builtins.open, os.fsync, os.replace = open_, fsync_, replace_
        return self

    def __exit__(self, *exception: object) -> None:
        builtins.open, os.fsync, os.replace = self._kept


class _Watched:
    """A buffered file whose `write` is another: C's own takes no attributes."""

    def __init__(self, handle: Any, write: Callable[[Any], Any]) -> None:
        self._handle, self.write = handle, write

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *exception: object) -> None:
        self._handle.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)


def config_of(*options: str) -> Config:
    """The config of a tiny run."""
    return resolve([*TINY, *(() if "--wandb" in options else OFF), *options])


def begun(config: Config, out: Path, draw: bool = False) -> int:
    """What `bpgen fit` does with a config, without building its parser and, mostly, without figures."""
    return _ended(lambda: fit(replace(config, out=str(out)), draw=draw))


def resumed(run: Path) -> Process:
    """What `bpgen fit --resume` does, in a process of its own."""
    return forked(lambda: continued(run))


def continued(run: Path) -> int:
    """The same in this process."""
    return _ended(lambda: resume(str(run), draw=False))


def _ended(act: Callable[[], Any]) -> int:
    try:
        ending = act()
    except BpgenError as error:
        print(error)
        return 2
    print(ending.message)
    return int(ending.exit_code)


def run_in(out: Path) -> Path | None:
    """The run in a folder of runs, if there is one with a config."""
    found = [path.parent for path in out.glob("*/config.yaml")] if out.is_dir() else []
    return found[0] if found else None


def same(a: Path, b: Path) -> bool:
    """Whether two runs have the same rows to the byte, and the same networks and rules to the bit."""
    if (a / "metrics.csv").read_bytes() != (b / "metrics.csv").read_bytes():
        return False
    ours, theirs = RunFolder(a).weights(), RunFolder(b).weights()
    return list(ours) == list(theirs) and all(_equal(torch.load(ours[s]), torch.load(theirs[s])) for s in ours)


def rows(run: Path) -> int:
    """Lines of the table."""
    file = run / "metrics.csv"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def traceback_in(process: Process) -> bool:
    """Whether a user would have seen a traceback."""
    return "Traceback (most recent call last)" in process.said


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)
