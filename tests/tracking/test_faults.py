"""A W&B server that refuses, hangs or is away costs a bounded wait and one line, and nothing of the run."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import wandb

from bpgen.tracking.wandb import FINISH_SECONDS, INIT_SECONDS, Tracking, start
from tests.tracking.bench import EPOCH, SMALL, Bench, inspect, wandb_command
from tests.tracking.stub import KEY, Stub

timed = pytest.mark.slow  # seconds of a busy machine say nothing
SLACK = 8.0  # seconds for starting W&B, on a machine that others use; without bounds it takes 25 s and more
FAULTS: tuple[int | str, ...] = ("refused", 401, 403, 404, 429, 500, 503, "hang", "drop")


@contextmanager
def _faulty(fault: int | str) -> Iterator[str]:
    """The address of a server with a fault from the first request on."""
    if fault == "refused":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = free.getsockname()[1]
        yield f"http://127.0.0.1:{address}"
        return
    with Stub() as stub:
        stub.fault = fault
        yield stub.url


def _break(stub: Stub, fault: int | str) -> None:
    if fault == "refused":
        stub.close()
    else:
        stub.fault = fault


def _logged_in(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)


def _begun_beside(fault: int | str, mode: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """Begin and end a run whose server fails from the first request on; how long both take."""
    said: list[str] = []
    (here / "run").mkdir()
    with _faulty(fault) as url:
        _logged_in(monkeypatch, url)
        began = time.monotonic()
        logger = start(mode, Tracking(), here / "run", {"seed": 1}, said.append)
        beginning = time.monotonic() - began
        assert logger is not None
        logger.log_metrics({"step": 1, "train/loss": 1.0})
        began = time.monotonic()
        logger.finish("finished")
        end = time.monotonic() - began
    (line,) = said
    assert "\n" not in line
    assert f"wandb sync {here / 'run' / 'wandb'}" in line
    (folder,) = (here / "run" / "wandb").glob("*run-*-*")  # of the failed try nothing is left
    assert folder.name.startswith("offline-run-")
    return beginning, end


@timed
@pytest.mark.parametrize("mode", ["auto", "online"])
@pytest.mark.parametrize("fault", FAULTS)
def test_at_the_start(here: Path, monkeypatch: pytest.MonkeyPatch, fault: int | str, mode: Any) -> None:
    beginning, end = _begun_beside(fault, mode, here, monkeypatch)
    assert beginning < INIT_SECONDS + SLACK
    assert end < SLACK


def test_whatever_time_it_takes_a_run_begins_offline(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    _begun_beside(429, "auto", here, monkeypatch)


@pytest.mark.parametrize("fault", [401, 429, "refused"])
def test_a_resumed_run_keeps_its_id(here: Path, monkeypatch: pytest.MonkeyPatch, fault: int | str) -> None:
    (here / "run").mkdir()
    said: list[str] = []
    for part in (1, 2):
        with Stub() as stub, _faulty(fault) as url:
            _logged_in(monkeypatch, stub.url if part == 1 else url)
            logger = start("auto", Tracking(), here / "run", {}, said.append, None if part == 1 else "abc123")
            assert logger is not None
            logger.log_metrics({"step": part})
            logger.finish("finished")
        wandb.teardown()
    assert len(said) == 1
    folders = sorted(path.name for path in (here / "run" / "wandb").glob("*run-*-*"))
    assert [name[:4] for name in folders] == ["offl", "run-"]
    assert folders[0].endswith("-abc123")


@timed
@pytest.mark.parametrize("fault", FAULTS)
def test_in_the_middle(
    here: Path, monkeypatch: pytest.MonkeyPatch, fault: int | str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server fails once the run has begun; what it did not take is sent later, complete."""
    said: list[str] = []
    (here / "run").mkdir()
    with Stub() as stub:
        _logged_in(monkeypatch, stub.url)
        logger = start("auto", Tracking(), here / "run", {"seed": 1}, said.append)
        assert logger is not None
        logger.log_metrics({"step": 1, "train/loss": 1.0})
        _break(stub, fault)
        logger.log_metrics({"step": 2, "train/loss": 0.5})
        began = time.monotonic()
        logger.finish("finished")
        assert time.monotonic() - began < FINISH_SECONDS + SLACK
    assert capfd.readouterr().err == ""
    if fault == "drop" and not said:  # it took everything
        assert [row["train/loss"] for row in stub.history] == [1.0, 0.5]
        return
    (line,) = said
    assert "\n" not in line
    (folder,) = (here / "run" / "wandb").glob("run-*-*")
    assert f"`wandb sync --include-online {folder}`" in line
    with Stub() as later:
        wandb_command(here, *line.split("`")[1].split()[1:], WANDB_BASE_URL=later.url, WANDB_API_KEY=KEY)
    assert [row["train/loss"] for row in later.history] == [1.0, 0.5]
    assert (later.summary["status"], later.exit_code) == ("finished", 0)


def test_a_server_that_works_is_told_all_and_says_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The negative control of the two above."""
    (here / "run").mkdir()
    with Stub() as stub:
        _logged_in(monkeypatch, stub.url)
        logger = start("auto", Tracking(), here / "run", {"seed": 1}, pytest.fail)
        assert logger is not None
        logger.log_metrics({"step": 1, "train/loss": 1.0})
        logger.finish("diverged")
    assert (stub.summary["status"], stub.exit_code) == ("diverged", 1)
    assert [row["train/loss"] for row in stub.history] == [1.0]
    assert capfd.readouterr() == ("", "")


@timed
@pytest.mark.parametrize(("name", "seconds"), [("WANDB_INIT_TIMEOUT", 1.0), ("WANDB_FINISH_TIMEOUT", 1.0)])
def test_bounds_of_wandbs_own_count(here: Path, monkeypatch: pytest.MonkeyPatch, name: str, seconds: float) -> None:
    monkeypatch.setenv(name, str(seconds))
    (here / "run").mkdir()
    with Stub() as stub:
        stub.fault = 429 if "INIT" in name else None
        _logged_in(monkeypatch, stub.url)
        said: list[str] = []
        began = time.monotonic()
        logger = start("auto", Tracking(), here / "run", {}, said.append)
        assert logger is not None
        stub.fault = 429
        logger.log_metrics({"step": 1})
        logger.finish("finished")
        assert time.monotonic() - began < seconds + SLACK
    assert len(said) == 1


@timed
@pytest.mark.parametrize("fault", [429, "refused"])
def test_a_whole_run_beside_a_failing_server(bench: Bench, fault: int | str) -> None:
    """The process ends in time, its own files are complete, and one line says what to do."""
    with Stub() as stub:
        runs = bench.home / f"middle-{fault}"
        environment = {"WANDB_BASE_URL": stub.url, "WANDB_API_KEY": KEY}
        process = bench.start(*SMALL, "--trainer.max_epochs", "4", "--out", str(runs), **environment)
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("epoch 1,"):
                _break(stub, fault)
            if line.startswith("epoch 4,"):
                break
        began = time.monotonic()
        out, err = process.communicate(timeout=60)
        spent = time.monotonic() - began
    assert (process.returncode, err) == (0, "")
    assert spent < FINISH_SECONDS + 2 * SLACK  # with the figures
    said = [line for line in [*lines, *out.splitlines()] if "W&B's server" in line]
    assert len(said) == 1
    assert "uploads it" not in out  # the report knows that
    (path,) = runs.iterdir()
    assert json.loads((path / "summary.json").read_text())["status"] == "finished"
    (folder,) = (path / "wandb").glob("run-*-*")
    seen = json.loads(inspect(folder, "--summary", "--json"))
    assert (seen["summary"]["status"], seen["summary"]["epoch"]) == ("finished", 4)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds W&B's process in /proc")
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_wandbs_own_process_dies(here: Path, monkeypatch: pytest.MonkeyPatch, mode: Any) -> None:
    said: list[str] = []
    (here / "run").mkdir()
    with Stub() as stub:
        _logged_in(monkeypatch, stub.url)
        logger = start(mode, Tracking(), here / "run", {}, said.append)
        assert logger is not None
        logger.log_metrics({"step": 1})
        children = " ".join((task / "children").read_text() for task in Path("/proc/self/task").iterdir()).split()
        (service,) = [pid for pid in children if "wandb-core" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(int(service), signal.SIGKILL)
        time.sleep(0.5)
        for step in range(2, 5):
            logger.log_metrics({"step": step})
        logger.finish("finished")
    (line,) = said
    assert "goes on without it" in line


@pytest.mark.parametrize("home", [None, "", "/proc/nobody"], ids=["unset", "empty", "unwritable"])
def test_without_a_home_nothing_of_wandbs_log_is_printed(bench: Bench, home: str | None) -> None:
    runs = bench.home / f"homeless-{home and 'unwritable'}-{home is None}"
    environment = bench.environment(MPLCONFIGDIR=str(bench.home))  # matplotlib has a line of its own
    del environment["HOME"]
    if home is not None:
        environment["HOME"] = home
    before = set(os.listdir(bench.work))
    run = bench.fit(runs.name, *EPOCH, whole=environment)
    assert (run.code, run.err) == (0, "")
    assert run.wandb.name.startswith("offline-run-")
    assert set(os.listdir(bench.work)) == before  # W&B would make its cache where it was called


SECRETS = {
    "WANDB_API_KEY": KEY,
    "AWS_SECRET_ACCESS_KEY": "aws-c49c2e5f",
    "HF_TOKEN": "hf-90b3a1d7",
    "SSH_AUTH_SOCK": "/tmp/ssh-5d1e7a/agent",
    "HTTPS_PROXY": "http://user:pass-77aa01@127.0.0.1:9",
    "MY_OWN": "value-3f6b8c",
}


@pytest.mark.parametrize("machine", ["false", "true"])
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_no_key_and_no_value_of_the_environment_is_in_any_file(bench: Bench, mode: str, machine: str) -> None:
    with Stub() as stub:
        options = ("--wandb", mode, "--tracking.machine", machine)
        run = bench.fit(f"secrets-{mode}-{machine}", *EPOCH, *options, WANDB_BASE_URL=stub.url, **SECRETS)
    assert run.code == 0, run.err
    assert run.wandb.name.startswith("offline" if mode == "offline" else "run-")
    files = [path for path in run.folder.path.rglob("*") if path.is_file()]
    assert len(files) > 10
    raw = {path: path.read_bytes() for path in files}
    found = {(name, path.name) for name, value in SECRETS.items() for path in files if value.encode() in raw[path]}
    assert found == set()
    assert not any(value.encode() in body for value in SECRETS.values() for _, body in stub.requests)
