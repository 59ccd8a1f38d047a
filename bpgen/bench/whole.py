"""Whole commands, as a user starts them: what starting, measuring and writing cost, as ratios in one run.

    first minute    a misspelt name, `fit --help` and a whole `fit`, beside the import of Lightning alone
    busy            a whole `fit` beside a process that keeps two threads busy, and without it
    seeds           `fit --seeds S` on one thread, against so many runs alone; by processor time
Every command is a process of its own, the rounds take turns, and minima count. Of the whole `fit` the peer is what it
says itself that training and measuring took (`summary.json`) and the import.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bpgen.bench import Row
from bpgen.errors import BpgenError

LIGHTNING = [sys.executable, "-c", "import lightning.pytorch"]
BPGEN = [sys.executable, "-m", "bpgen"]
BUSY = "import torch; torch.set_num_threads(2); a = torch.ones(600, 600)\nwhile True: a @ a"
MISSPELT_MS = 500.0  # the most that the answer to a misspelt name may take
GOALS = {"help": 0.4, "fit": 1.6, "busy": 2.5, "seeds": 0.4}


@dataclass(frozen=True)
class Spent:
    """Seconds of a command: by the clock, of processors (its children included), and what its runs say they took."""

    wall: float
    cpu: float
    own: float = 0.0


def spent(command: Sequence[str], expected: int = 0, environment: Mapping[str, str] | None = None) -> Spent:
    """Run a command to its end.

    Args:
        command: its words.
        expected: its exit code.
        environment: variables beside those that are there.

    Raises:
        BpgenError: it ends with another code.
    """
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(  # noqa: S603  (our own words)
        command, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    wall, after = time.perf_counter() - began, os.times()
    if done.returncode != expected:
        raise BpgenError(f"{' '.join(command)} ended with {done.returncode}, not {expected}: {done.stderr[-500:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Spent(wall, cpu)


def fitted(*options: str, **environment: str) -> Spent:
    """A whole `bpgen fit` in a folder that is then thrown away, with its own seconds of training and measuring."""
    with tempfile.TemporaryDirectory() as folder:
        took = spent([*BPGEN, "fit", *options, "--out", folder, "--wandb", "off"], environment=environment)
        own = 0.0
        for summary in Path(folder).glob("*/summary.json"):
            seconds = json.loads(summary.read_text(encoding="utf-8"))["seconds"]
            own += seconds["training"] + sum(seconds["measuring"].values())
    return Spent(took.wall, took.cpu, own)


@contextmanager
def busy() -> Iterator[None]:
    """Another process keeps two threads busy in here."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
    with subprocess.Popen([sys.executable, "-c", BUSY], env=alone) as other:  # noqa: S603  (our own words)
        try:
            time.sleep(5)  # it has imported torch by then
            yield
        finally:
            other.kill()


def rows(seeds: int = 8, rounds: int = 3, options: Sequence[str] = ()) -> list[Row]:
    """All of it.

    Args:
        seeds: how many at once, S.
        rounds: of all commands; what a `fit` takes is measured once more in each of them beside a busy process.
        options: further ones of every `fit`.
    """
    fit = ("--rule", "rflo", *options)
    found: dict[str, list[Spent]] = {}
    for _ in range(rounds):
        for name, took in (
            ("import", spent(LIGHTNING)),
            ("misspelt", spent([*BPGEN, "fit", "--rule", "rfol"], expected=2)),
            ("help", spent([*BPGEN, "fit", "--help"])),
            ("fit", fitted(*fit)),
            ("alone", fitted(*fit, OMP_NUM_THREADS="1")),
            ("seeds", fitted(*fit, "--seeds", str(seeds), OMP_NUM_THREADS="1")),
        ):
            found.setdefault(name, []).append(took)
        with busy():
            found.setdefault("busy", []).append(fitted(*fit))
    return ratios(found, seeds)


def ratios(found: Mapping[str, Sequence[Spent]], seeds: int) -> list[Row]:
    """The rows, of the least that each command took; `fit` by the round in which it is nearest to its own seconds."""
    ms = {name: 1e3 * min(took.wall for took in each) for name, each in found.items()}
    cpu = {name: 1e3 * min(took.cpu for took in found[name]) for name in ("alone", "seeds")}
    best = min(found["fit"], key=lambda took: took.wall - took.own)
    return [
        _row("a misspelt name", ms["misspelt"], "the most it may take", MISSPELT_MS, 1.0),
        _row("fit --help", ms["help"], "import lightning.pytorch", ms["import"], GOALS["help"]),
        _row(
            "fit --rule rflo",
            1e3 * best.wall,
            "its training and measuring, and the import",
            1e3 * best.own + ms["import"],
            GOALS["fit"],
        ),
        _row("the same beside a busy process of two threads", ms["busy"], "quiet", ms["fit"], GOALS["busy"]),
        _row(f"fit --seeds {seeds}, processor", cpu["seeds"], f"{seeds} alone", seeds * cpu["alone"], GOALS["seeds"]),
        _row(f"fit --seeds {seeds}, clock", ms["seeds"], f"{seeds} alone", seeds * ms["alone"], None),
    ]


def _row(case: str, ms: float, peer: str, peer_ms: float, goal: float | None) -> Row:
    ratio = ms / peer_ms
    return Row(case, 1, ms, peer, peer_ms, ratio, goal, None if goal is None else ratio <= goal)


def table(found: Sequence[Row]) -> str:
    """One line per row."""
    lines = [f"{'a whole command':48}{'s':>8}  {'peer':44}{'s':>8}{'ratio':>8}"]
    for r in found:
        goal = "" if r.goal is None else f"  ({'<=' if r.met else 'not'} {r.goal:.2f})"
        lines.append(f"{r.case:48}{r.ms / 1e3:8.2f}  {r.peer:44}{r.peer_ms / 1e3:8.2f}{r.ratio:8.2f}{goal}")
    return "\n".join(lines)
