"""Runs whose W&B server fails: they end as without W&B, and nothing is lost of what was to be sent."""

from __future__ import annotations

import csv
import math
import os
import threading
import time
from pathlib import Path

from bpgen.run.config import Config
from bpgen.run.folder import RunFolder
from tests.faults.bench import Bench, Row
from tests.faults.broken import Process, begun, config_of, forked, rows, run_in, same, traceback_in
from tests.tracking.stub import KEY, Stub

FAULTS: tuple[int | str, ...] = ("refused", "hang", "drop", 401, 429, 500)
MOMENTS = ("the start", "the middle")
SECONDS = 2  # that W&B waits for an answer


def failing_servers(bench: Bench, row: Row, config: Config) -> None:
    """Every fault of a server, at the start of a run and in its middle.

    Args:
        bench: where.
        row: of the table.
        config: of the runs, without W&B.
    """
    whole, _, _ = bench.whole(config)
    for fault in FAULTS:
        for moment in MOMENTS:
            out = bench.room()
            ended, stub = begun_beside(out, fault, moment)
            wrong = wrong_with(ended, stub, out, whole)
            row.faults += 1
            row.survived += not wrong
            row.went_on += run_in(out) is not None
            row.bits += not wrong
            if wrong:
                row.wrong.append(f"{fault} at {moment}: {wrong}")


def begun_beside(out: Path, fault: int | str, moment: str) -> tuple[Process, Stub]:
    """A run, in a process of its own, whose server fails at a moment; and the server."""
    ready, broken = out.with_suffix(".ready"), out.with_suffix(".broken")
    with Stub() as stub:

        def act() -> int:
            stub._server.socket.close()  # inherited: the port would stay open
            _logged_in(stub)
            save = RunFolder.save_weights

            def wait(self: RunFolder, step: int, *given: object) -> None:
                if step == 2:
                    ready.touch()
                    while not broken.exists():
                        time.sleep(0.01)
                save(self, step, *given)  # type: ignore[arg-type]

            if moment == "the middle":
                RunFolder.save_weights = wait  # type: ignore[method-assign, assignment]
            return begun(config_of("--wandb", "auto"), out)

        def fail() -> None:
            while moment == "the middle" and not ready.exists():
                time.sleep(0.01)
            if fault == "refused":
                stub.close()
            else:
                stub.fault = fault
            broken.touch()

        failing = threading.Thread(target=fail, daemon=True)
        failing.start()
        if moment == "the start":
            failing.join()
        return forked(act), stub


def wrong_with(ended: Process, stub: Stub, out: Path, whole: Path) -> str:
    """What is not as it must be: the run is the undisturbed one, a line says what to send, and that is all of it."""
    run = run_in(out)
    if ended.code or traceback_in(ended) or run is None or not same(run, whole):
        return f"the run itself: {ended.code} {ended.said[-300:]}"
    said = [line for line in ended.said.splitlines() if "W&B" in line]
    if len(said) > 1 or (said and "wandb sync" not in said[0]):
        return f"says {said}"
    if said:
        folders = [folder for folder in (run / "wandb").glob("*run-*-*") if folder.is_dir() and not folder.is_symlink()]
        if len(folders) != 1:
            return f"{len(folders)} folders of one W&B run"
        with Stub() as later:
            sent = forked(lambda: _sync(later, folders[0]))
            stub = later
        if sent.code:
            return f"cannot be sent later: {sent.said[-300:]}"
    with (run / "metrics.csv").open() as file:
        ours = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    theirs = [row for row in stub.history if "train/loss" in row]
    kept = [{key: float(row.get(key, math.nan)) for key in mine} for mine, row in zip(ours, theirs, strict=False)]
    if kept != ours or stub.summary.get("status") != "finished":
        return f"W&B has {len(theirs)} of {rows(run) - 1} rows, or others, and {stub.summary.get('status')}"
    return ""


def _sync(stub: Stub, folder: Path) -> int:
    """`wandb sync`, in this process."""
    from wandb.cli.cli import cli

    stub._server.socket.close()
    _logged_in(stub)
    os.chdir(folder.parent)
    cli.main(["sync", "--include-online", str(folder)], standalone_mode=False)
    return 0


def _logged_in(stub: Stub) -> None:
    times = {"WANDB_INIT_TIMEOUT": str(SECONDS), "WANDB_FINISH_TIMEOUT": str(SECONDS)}
    os.environ.update(WANDB_BASE_URL=stub.url, WANDB_API_KEY=KEY, **times)
