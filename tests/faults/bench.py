"""Runs that are broken, held against an undisturbed run of the same config."""

from __future__ import annotations

import errno
import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bpgen.run.config import Config
from bpgen.run.folder import RunFolder
from tests.faults.broken import (
    At,
    Process,
    begun,
    continued,
    forked,
    resumed,
    rows,
    run_in,
    same,
    traceback_in,
)
from tests.faults.damages import DAMAGES, spoil

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES)


@dataclass
class Row:
    """One kind of fault. bits: runs that went on and equal the undisturbed one. wrong: what was not as it must be."""

    kind: str
    group: str
    kills: int = 0
    faults: int = 0
    survived: int = 0
    bits: int = 0
    went_on: int = 0
    lost: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """Kills and faults."""
        return self.kills + self.faults


class Bench:
    """Runs faults, and holds what comes of them against an undisturbed run of the same config."""

    def __init__(self, place: Path, seed: int) -> None:
        self.place, self.random = place, random.Random(seed)
        self.table: list[Row] = []
        self._number = 0

    def room(self) -> Path:
        """A new folder."""
        self._number += 1
        return self.place / str(self._number)

    def whole(self, config: Config, name: str = "") -> tuple[Path, int, float]:
        """An undisturbed run, how often it touched the disk (files whose name ends so), and how long it took."""
        out = self.room()
        counted = out.with_suffix(".count")

        def act() -> int:
            with At(out, -1, name=name) as at:
                code = begun(config, out, draw=bool(name))
            counted.write_text(str(at.seen))
            return code

        started = time.monotonic()
        ended = forked(act)
        run = run_in(out)
        assert ended.code == 0, ended.said
        assert run is not None
        return run, int(counted.read_text()), time.monotonic() - started

    def judge(self, row: Row, what: str, ended: Process, out: Path, whole: Path, again: bool = True) -> None:
        """See that the run goes on from what is there, or says what to do, and is then the undisturbed one."""
        run = run_in(out)
        fine = not traceback_in(ended) and ended.code != 98
        if run is not None and RunFolder(run).checkpoints:
            promised = rows(run)
            status = _status(run)
            then = resumed(run) if again and status == "interrupted" else ended
            fine = fine and not traceback_in(then) and (then.code == 0 or status == "finished")
            row.went_on += 1
            equal = fine and same(run, whole)
            row.bits += equal
            row.lost += max(0, min(promised, rows(whole)) - rows(run))
            fine = fine and equal
            what = f"{what}; then {then.code}: {then.said[-300:]}" if not fine else what
        row.survived += fine
        if not fine:
            row.wrong.append(f"{what}: {ended.code}: {ended.said[-300:]}")
        shutil.rmtree(out, ignore_errors=True)

    def kill_at_writes(self, row: Row, name: str, config: Config, most: int, ending: str = "") -> None:
        """Kill a run at its every touch of the disk, or at so many of them; of files with an ending, e.g. figures."""
        whole, touches, _ = self.whole(config, ending)
        moments = sorted(self.random.sample(range(touches), min(most, touches)))
        for moment in moments:
            out = self.room()

            def act(out: Path = out, moment: int = moment) -> int:
                with At(out, moment, name=ending):
                    return begun(config, out, draw=bool(ending))

            ended = forked(act)
            row.kills += 1
            if ended.code != -9:
                row.wrong.append(f"{name}, write {moment}: was not killed ({ended.code}) {ended.said[-200:]}")
            self.judge(row, f"{name}, killed at write {moment}", ended, out, whole)

    def fail_at_writes(self, row: Row, name: str, config: Config, most: int, lasting: bool) -> None:
        """Let the disk fail at every touch, with each kind of failure."""
        whole, touches, _ = self.whole(config)
        cases = [(moment, number) for moment in range(touches) for number in DISK]
        for moment, number in sorted(self.random.sample(cases, min(most, len(cases)))):
            out = self.room()

            def act(out: Path = out, moment: int = moment, number: int = number) -> int:
                with At(out, moment, number, lasting=lasting):
                    return begun(config, out)

            ended = forked(act)
            row.faults += 1
            what = f"{name}, {errno.errorcode[number]} at write {moment}"
            if ended.code not in (0, 2) or (lasting and ended.code == 2 and os.strerror(number) not in ended.said):
                row.wrong.append(f"{what}: {ended.code} {ended.said[-200:]}")
            self.judge(row, what, ended, out, whole)

    def kill_again(self, row: Row, config: Config, times: int) -> None:
        """Kill a run, and then once more while it goes on."""
        whole, touches, _ = self.whole(config)
        for _ in range(times):
            out, first, second = (
                self.room(),
                self.random.randrange(touches // 3, touches),
                self.random.randrange(touches),
            )

            def act(out: Path = out, first: int = first) -> int:
                with At(out, first):
                    return begun(config, out)

            forked(act)
            run = run_in(out)

            def on(out: Path = out, run: Path | None = run, second: int = second) -> int:
                with At(out, second):
                    return continued(run) if run is not None else 2

            ended = forked(on)
            row.kills += 1 + (ended.code == -9)
            before = row.survived
            self.judge(row, f"killed at write {first}, and at write {second} going on", ended, out, whole)
            row.survived += row.survived > before and ended.code == -9  # both of them

    def kill_at_random(self, row: Row, name: str, config: Config, times: int) -> None:
        """Kill runs at random moments, and once more while they go on."""
        whole, _, seconds = self.whole(config)
        for _ in range(times):
            out, after = self.room(), self.random.uniform(0, seconds)
            ended = forked(lambda out=out: begun(config, out), kill_after=after)  # type: ignore[misc]
            row.kills += 1
            self.judge(row, f"{name}, killed after {after:.3f} s", ended, out, whole)

    def damage(self, row: Row, config: Config) -> None:
        """Spoil every file of a run's folder in every way; it goes on, or says what is damaged."""
        whole, _, _ = self.whole(config)
        for name, contents in DAMAGES.items():
            for content in contents:
                run = Path(shutil.copytree(whole, self.room() / whole.name))
                text = (run / "summary.json").read_text().replace('"finished"', '"interrupted"')
                (run / "summary.json").write_text(text)
                spoil(run / name, content)
                ended = resumed(run)
                row.faults += 1
                fine = ended.code in (0, 2) and not traceback_in(ended) and bool(ended.said.strip() or not ended.code)
                row.survived += fine
                if ended.code == 0:
                    row.went_on += 1
                    row.bits += (run / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
                if not fine:
                    row.wrong.append(f"{name} = {content!r}: {ended.code}: {ended.said[-300:]}")

    @contextmanager
    def kind(self, name: str, group: str) -> Iterator[Row]:
        """A row of the table, printed when it is complete."""
        row = Row(name, group)
        self.table.append(row)
        yield row
        print(line(row), flush=True)
        for wrong in row.wrong[:5]:
            print(f"    WRONG {wrong}", flush=True)


HEAD = f"{'kind':<42}{'tried':>7}{'survived':>10}{'went on':>9}{'bits equal':>12}{'rows lost':>11}"


def line(row: Row) -> str:
    """A row as it is printed."""
    counts = f"{row.tried:>7}{row.survived:>10}{row.went_on:>9}{row.bits:>12}{row.lost:>11}"
    return f"{row.kind:<42}{counts}"


def _status(run: Path) -> str:
    try:
        return str(RunFolder(run).summary().get("status", "interrupted"))
    except Exception:
        return "interrupted"
