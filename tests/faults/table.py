"""The fault table: what was tried, what survived, whether the bits are equal, what was lost."""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from bpgen.registry import plugins
from bpgen.run.config import Config
from bpgen.run.folder import RunFolder
from tests.faults.bench import HEAD, Bench, Row
from tests.faults.broken import At, begun, config_of, forked, resumed, traceback_in
from tests.faults.strangers import strange_imports, strange_rules
from tests.faults.tracked import failing_servers

KINDS_OF_RUN: dict[str, tuple[str, ...]] = {
    "adam": ("--optimizer.name", "adam", "--optimizer.lr", "0.01"),
    "chunks": ("--rule", "rtrl", "--trainer.chunk", "3"),
    "stream": ("--task", "delayed_recall", "--trainer.chunk", "4", "--trainer.stream", "true"),
}


KILLED = "Killed (`kill -9`) at every write of a run, at writes of each rule, of Adam, chunks, streams, figures and W&B"
TWICE = "Killed at a random moment, and killed twice, the second time while going on"
DISK = "Disk full, over quota, broken or closed to the user at every write, for good or once; a small disk filling up"
OTHERS = "Damaged folders, a second writer, a removed folder, strangers' rules and files, W&B's server failing"


def main(argv: list[str] | None = None) -> int:
    """Print the table; 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a few of each kind, in seconds")
    parser.add_argument("--seed", type=int, default=0, help="of what is tried at random")
    options = parser.parse_args(argv)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        _without_settings(Path(place) / "home")
        bench = Bench(Path(place), options.seed)
        print(f"seed {options.seed}\n{HEAD}", flush=True)
        _killed(bench, short=options.short)
        _disk(bench, short=options.short)
        if not options.short:  # the rest stands in tests of its own
            _others(bench)
    kills, faults = sum(row.kills for row in bench.table), sum(row.faults for row in bench.table)
    wrong, lost = sum(len(row.wrong) for row in bench.table), sum(row.lost for row in bench.table)
    print(f"{kills} kills, {faults} other faults, {lost} rows lost, {wrong} wrong; {time.monotonic() - started:.0f} s")
    print("\n".join(["", *in_four_rows(bench.table)]))
    return 1 if wrong or lost else 0


def in_four_rows(table: list[Row]) -> list[str]:
    """The table as the README has it, in Markdown."""
    lines = ["| What was tried | Tried | Went on, bits equal | Rows lost |", "| --- | --- | --- | --- |"]
    for group in (KILLED, TWICE, DISK, OTHERS):
        rows = [row for row in table if row.group == group]
        tried, went_on, bits, lost = (sum(getattr(r, n) for r in rows) for n in ("tried", "went_on", "bits", "lost"))
        lines.append(f"| {group} | {tried} | {bits} of {went_on} | {lost} |")
    return lines


def _killed(bench: Bench, short: bool) -> None:
    rflo = config_of()
    with bench.kind("killed at a write, rflo", KILLED) as row:
        bench.kill_at_writes(row, "rflo", rflo, 5 if short else 10_000)
    rules = ["bptt", "eprop"] if short else [name for name in plugins("rule") if name != "rflo"]
    with bench.kind("killed at a write, other rules", KILLED) as row:
        for rule in rules:
            bench.kill_at_writes(row, rule, config_of("--rule", rule), 1 if short else 4)
    with bench.kind("killed at a write, Adam, chunks, stream", KILLED) as row:
        for name, given in KINDS_OF_RUN.items():
            bench.kill_at_writes(row, name, config_of(*given), 1 if short else 8)
    if not short:
        with bench.kind("killed at a write, figures and W&B", KILLED) as row:
            bench.kill_at_writes(row, "figures", rflo, 12, ending=".png")
            bench.kill_at_writes(row, "W&B offline", config_of("--wandb", "offline"), 8)
    with bench.kind("killed at a random moment", TWICE) as row:
        bench.kill_at_random(row, "rflo", rflo, 2 if short else 40)
    with bench.kind("killed twice", TWICE) as row:
        bench.kill_again(row, rflo, 1 if short else 30)


def _disk(bench: Bench, short: bool) -> None:
    rflo = config_of()
    with bench.kind("disk fails for good at a write", DISK) as row:
        bench.fail_at_writes(row, "rflo", rflo, 6 if short else 10_000, lasting=True)
    with bench.kind("disk fails once at a write", DISK) as row:
        bench.fail_at_writes(row, "rflo", rflo, 3 if short else 200, lasting=False)
    with bench.kind("a file system of its own, small", DISK) as row, _small(bench.room()) as small:
        _on_another(bench, row, rflo, small, short)


def _others(bench: Bench) -> None:
    rflo = config_of()
    with bench.kind("damaged folders", OTHERS) as row:
        bench.damage(row, rflo)
    with bench.kind("two writers, folder removed", OTHERS) as row:
        _two_writers(bench, row, rflo)
        _removed(bench, row, rflo)
    with bench.kind("strangers' rules", OTHERS) as row:
        strange_rules(bench, row)
    with bench.kind("strangers' files, imported", OTHERS) as row:
        strange_imports(bench, row)
    with bench.kind("W&B's server fails", OTHERS) as row:
        failing_servers(bench, row, rflo)


def _without_settings(home: Path) -> None:
    """Let no key, setting or cache of this machine's user into the runs; load before forking what all of them need."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]
    home.mkdir()
    os.environ["HOME"] = os.environ["MPLCONFIGDIR"] = str(home)
    for module in ("matplotlib.pyplot", "wandb"):
        import_module(module)


def _on_another(bench: Bench, row: Row, config: Config, small: Path | None, short: bool) -> None:
    """Kills on another file system than the temporary folder's, and a real one that fills up."""
    whole, touches, _ = bench.whole(config)
    if small is None:
        print("    (no small file system: mounting one needs root)", flush=True)
        return
    for moment in range(0, touches, touches // 2 if short else 4):
        out = small / "kills"

        def act(out: Path = out, moment: int = moment) -> int:
            with At(out, moment):
                return begun(config, out)

        row.kills += 1
        bench.judge(row, f"other file system, killed at write {moment}", forked(act), out, whole)
    room = shutil.disk_usage(small).free
    for left in range(2_000, 60_000, 30_000 if short else 3_000):
        ballast, out = small / "ballast", small / "full"
        ballast.write_bytes(b"0" * max(0, room - left))
        ended = forked(lambda out=out: begun(config, out))  # type: ignore[misc]
        row.faults += 1
        if ended.code == 2 and os.strerror(errno.ENOSPC) not in ended.said:
            row.wrong.append(f"full with {left} left: {ended.said[-200:]}")
        ballast.unlink()
        bench.judge(row, f"a full file system, {left} bytes left", ended, out, whole)


def _two_writers(bench: Bench, row: Row, config: Config) -> None:
    whole, _, _ = bench.whole(config)
    (whole / "summary.json").unlink()
    before = (whole / "metrics.csv").read_bytes()
    with RunFolder(whole):
        ended = resumed(whole)
    row.faults += 1
    fine = ended.code == 2 and "another bpgen process" in ended.said
    row.survived += fine and (whole / "metrics.csv").read_bytes() == before
    if not fine:
        row.wrong.append(f"two writers: {ended.code} {ended.said[-200:]}")


def _removed(bench: Bench, row: Row, config: Config) -> None:
    for step in (0, 2, 4):
        out = bench.room()

        def act(out: Path = out, step: int = step) -> int:
            save = RunFolder.save_weights

            def remove(self: RunFolder, at: int, *given: object) -> None:
                if at == step:
                    shutil.rmtree(self.path)
                save(self, at, *given)  # type: ignore[arg-type]

            RunFolder.save_weights = remove  # type: ignore[method-assign, assignment]
            return begun(config, out)

        ended = forked(act)
        row.faults += 1
        fine = ended.code == 2 and "folder was removed" in ended.said and not traceback_in(ended)
        row.survived += fine
        if not fine:
            row.wrong.append(f"removed at {step}: {ended.code} {ended.said[-200:]}")


@contextmanager
def _small(place: Path) -> Iterator[Path | None]:
    """A file system of 4 MB in memory; None where this process may not mount one."""
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True)
    try:
        yield place if mounted.returncode == 0 else None
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(place)], check=False)
