"""W&B end to end: `bpgen fit` as its own process, against a server on the loopback or against none."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import wandb
from lightning.pytorch.loggers import WandbLogger

from bpgen.cli import main
from bpgen.errors import BpgenError
from bpgen.run.folder import RunFolder
from bpgen.tracking.wandb import Tracking, has_key, start
from tests.tracking.stub import KEY, Stub

SMALL = (
    *("--alignment.samples", "32", "--sharpness.samples", "32"),
    *("--gap.train_samples", "64", "--gap.test_samples", "64", "--threads", "1"),
)
EPOCH = ("--trainer.max_epochs", "1")
FIGURES = {"alignment", "gap", "loss", "overview", "performance", "sharpness"}
USER, REMOTE = "dulcinea", "https://example.invalid/rocinante.git"


class Run(NamedTuple):
    """A finished process and the run folder it made."""

    code: int
    out: str
    err: str
    folder: RunFolder

    @property
    def wandb(self) -> Path:
        """The W&B run's own folder."""
        (folder,) = (self.folder.path / "wandb").glob("*run-*")
        return folder

    def records(self) -> list[dict[str, Any]]:
        """Everything W&B wrote down, record by record."""
        return [json.loads(line) for line in inspect(self.wandb, "--json").splitlines()]


class Bench:
    """A user's home with a git checkout to work in; nothing of the real user's W&B reaches it."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / USER
        self.work = self.home / "work"
        self.work.mkdir(parents=True)
        git = ("git", "-c", "user.name=x", "-c", "user.email=x")
        for command in ("init -q", f"remote add origin {REMOTE}", "commit -q --allow-empty -m x"):
            subprocess.run([*git, *command.split()], cwd=self.work, check=True)

    def environment(self, **extra: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "XDG_"))}
        here = {"HOME": str(self.home), "NETRC": str(self.home / "netrc"), "USER": USER, "LOGNAME": USER}
        return {**kept, **here, **extra}

    def start(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [Path(sysconfig.get_path("scripts")) / "bpgen", "fit", *options],
            cwd=self.work,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def fit(self, out: str, *options: str, **environment: str) -> Run:
        runs = self.home / out
        process = self.start(*SMALL, "--out", str(runs), *options, **environment)
        stdout, stderr = process.communicate(timeout=300)
        assert runs.is_dir(), stderr
        (folder,) = runs.iterdir()
        return Run(process.returncode, stdout, stderr, RunFolder(folder))


def wandb_command(at: Path, *arguments: str, **environment: str) -> str:
    """What `wandb ...` prints; it leaves a log in the folder it is called from."""
    command = [sys.executable, "-m", "wandb", *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(
        command, cwd=at, env=environment, capture_output=True, text=True, check=True, timeout=120
    ).stdout


def inspect(run: Path, *options: str) -> str:
    return wandb_command(run.parents[3], "leet", "inspect", *options, str(run))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def server() -> Iterator[Stub]:
    """A server that must never hear from an offline run."""
    with Stub() as stub:
        yield stub


@pytest.fixture(scope="module")
def offline(bench: Bench, server: Stub) -> Run:
    """What a user without an account gets; every way out of the machine leads to the server."""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), server.url)
    return bench.fit("offline", *EPOCH, WANDB_BASE_URL=server.url, **proxies)


@pytest.fixture(scope="module")
def machine(bench: Bench) -> Run:
    """A run that diverges, and records the machine."""
    return bench.fit("machine", *EPOCH, "--tracking.machine", "true", "--optimizer.lr", "1e6")


@pytest.fixture(scope="module")
def online(bench: Bench) -> Iterator[tuple[Run, Stub]]:
    """With a key in the environment, and every label."""
    labels = ("--tracking.project", "sharp", "--tracking.entity", "lab", "--tracking.group", "seeds")
    with Stub() as stub:
        options = (*EPOCH, *labels, "--tracking.tags", "[one,two]")
        yield bench.fit("online", *options, WANDB_BASE_URL=stub.url, WANDB_API_KEY=KEY), stub


# without a key


def test_without_a_key_the_run_is_complete_offline(offline: Run, server: Stub) -> None:
    assert (offline.code, offline.err) == (0, "")
    assert offline.wandb.name.startswith("offline-run-")
    seen = json.loads(inspect(offline.wandb, "--summary", "--json"))
    assert (seen["state"], seen["exit_code"], seen["project"]) == ("finished", 0, "bpgen")
    assert seen["name"] == offline.folder.path.name
    assert seen["run_id"] == offline.folder.summary()["wandb_id"]
    last = offline.folder.rows()[-1]
    assert len(last) > 20
    assert {name: seen["summary"].get(name) for name in last} == pytest.approx(last)
    config = {k: v for k, v in offline.folder.config().items() if k != "out"}
    assert seen["config"] == config
    assert server.connections == 0


def test_offline_logs_every_evaluation_and_figure(offline: Run) -> None:
    items = [record["history"]["item"] for record in offline.records() if record["type"] == "history"]
    rows = [{k: v for k, v in item.items() if not k.startswith(("_", "trainer/"))} for item in items]
    rows = [row for row in rows if "train/loss" in row]
    assert [pytest.approx(row) for row in rows] == offline.folder.rows()
    logged = {name.split("/")[1].split(".")[0] for item in items for name in item if name.startswith("figures/")}
    assert logged == FIGURES
    pictures = {
        path.name.rsplit("_", 2)[0] for path in (offline.wandb / "files" / "media/images/figures").glob("*.png")
    }
    assert pictures == FIGURES


def test_every_metric_is_drawn_against_the_training_step(offline: Run) -> None:
    records = offline.records()
    globs = [record["metric"] for record in records if record["type"] == "metric"]
    axes = {metric.get("glob_name", metric.get("name")): metric.get("step_metric") for metric in globs}
    names = set(offline.folder.columns()) - {"step"}
    assert {name.split("/")[0] for name in names} > {"train", "test_noisy", "gap", "sharpness", "alignment", "lr"}
    for name in names:
        best = max((glob for glob in axes if _covers(glob, name)), key=len)
        assert axes[best] == "step", name
    assert axes["step"] is None


def _covers(glob: str, name: str) -> bool:
    return name.startswith(glob[:-1]) if glob.endswith("*") else name == glob


# privacy


def _told(run: Run) -> tuple[str, bytes]:
    """Everything W&B would upload from a run: as text, and byte by byte."""
    files = [path for path in run.wandb.rglob("*") if path.is_file() and path.parent.name != "logs"]
    text = [path.read_text() for path in files if path.suffix not in (".wandb", ".png")]
    return inspect(run.wandb, "--json") + "\n".join(text), b"".join(path.read_bytes() for path in files)


def _secrets(machine: Run) -> dict[str, str]:
    """What W&B finds out about user and machine when it is allowed to, by kind."""
    found: dict[str, Any] = {}
    for record in machine.records():
        if record["type"] == "environment":
            found |= record["environment"]
    secrets = {
        "user": USER,
        "git remote": found["git"]["remote_url"],
        "git commit": found["git"]["commit"],
        "host": found["host"],
        "command line": next(arg for arg in found["args"] if arg.startswith("--")),
        "executable": found["executable"],
        "program": found["program"],
        "system": found["os"],
        "packages": "wandb==",
        "console": "val accuracy",
    }
    models = [found.get("cpu", {}).get("model"), *(gpu.get("name") for gpu in found.get("gpu_nvidia", ()))]
    return secrets | {f"processor {n}": model for n, model in enumerate(models) if model}


def _mentioned(secrets: dict[str, str], text: str) -> set[str]:
    return {kind for kind, secret in secrets.items() if re.search(rf"(?<!\w){re.escape(secret)}", text)}


def test_with_leave_the_machine_is_recorded(machine: Run) -> None:
    """The negative control of the next two tests: what they look for is there to be found."""
    secrets = _secrets(machine)
    assert secrets["git remote"] == REMOTE
    assert secrets["host"] == socket.gethostname()
    assert _mentioned(secrets, _told(machine)[0]) == set(secrets)


def test_without_leave_nothing_of_user_or_machine_is_recorded(offline: Run, machine: Run) -> None:
    text, raw = _told(offline)
    assert _mentioned(_secrets(machine), text) == set()
    assert USER.encode() not in raw
    assert REMOTE.encode() not in raw
    kinds = {json.loads(line)["type"] for line in text.splitlines()}
    assert kinds == {"header", "run", "telemetry", "metric", "config", "summary", "history", "files", "exit"}


def test_without_leave_nothing_of_user_or_machine_is_sent(online: tuple[Run, Stub], machine: Run) -> None:
    _, stub = online
    text = "\n".join(body.decode(errors="replace") for path, body in stub.requests if not path.endswith(".png"))
    assert _mentioned(_secrets(machine), text) == set()
    assert not any(USER.encode() in body for _, body in stub.requests)
    kinds = {re.sub(r"^/(\w+)/.*?(\w+)$", r"\1 \2", path) for path, _ in stub.requests}
    assert kinds == {"/graphql", "files file_stream", "upload png", "upload json", "upload yaml"}


# with a key


def test_with_a_key_the_run_is_complete_online(online: tuple[Run, Stub]) -> None:
    run, stub = online
    assert run.code == 0, run.err
    assert stub.keys == {KEY}
    assert run.wandb.name.startswith("run-")
    expected = {"project": "sharp", "entity": "lab", "groupName": "seeds", "tags": ["one", "two"]}
    assert {field: stub.run[field] for field in expected} == expected
    assert stub.run["name"] == run.folder.summary()["wandb_id"]
    assert stub.run["displayName"] == run.folder.path.name
    config = {key: value for key, value in stub.config.items() if key != "_wandb"}
    assert config == {key: value for key, value in run.folder.config().items() if key != "out"}
    sent = [row for row in stub.history if "train/loss" in row]
    rows = run.folder.rows()
    assert [{name: row[name] for name in rows[0]} for row in sent] == [pytest.approx(row) for row in rows]
    assert (stub.summary["status"], stub.exit_code) == ("finished", 0)
    pictures = {Path(name).name.rsplit("_", 2)[0]: body for name, body in stub.files.items() if name.endswith(".png")}
    saved = {path.stem: path.read_bytes() for path in (run.folder.path / "figures").glob("*.png")}
    assert set(saved) == FIGURES
    assert pictures == saved


def test_a_resumed_run_goes_on_in_the_same_wandb_run(bench: Bench) -> None:
    """Also: the key may stand in the netrc file, as `wandb login` puts it there."""
    with Stub() as stub:
        netrc = bench.home / "netrc-of-the-stub"
        netrc.write_text(f"machine {stub.url.removeprefix('http://')} login user password {KEY}\n")
        netrc.chmod(0o600)
        environment = {"WANDB_BASE_URL": stub.url, "NETRC": str(netrc)}
        runs = bench.home / "resumed"
        endless = bench.start(*SMALL, "--trainer.max_epochs", "100000", "--out", str(runs), **environment)
        assert endless.stdout is not None
        for line in endless.stdout:
            if line.startswith("epoch 1,"):
                endless.send_signal(signal.SIGINT)
                break
        _, err = endless.communicate(timeout=60)
        assert endless.returncode == 130, err
        assert stub.keys == {KEY}
        (path,) = runs.iterdir()
        folder = RunFolder(path)
        first, rows = folder.summary(), folder.rows()
        assert (stub.summary["status"], stub.exit_code) == ("interrupted", 1)

        config = folder.config()
        config["trainer"]["max_epochs"] = int(rows[-1]["epoch"]) + 1
        folder.write_config(config)
        again = bench.start("--resume", str(path), **environment)
        _, err = again.communicate(timeout=60)
        assert again.returncode == 0, err
        last = folder.summary()
        assert last["wandb_id"] == first["wandb_id"] == stub.run["name"]
        assert (stub.summary["status"], stub.exit_code) == ("finished", 0)
        assert len(folder.rows()) == len(rows) + 1
        assert [row["step"] for row in stub.history if "train/loss" in row] == [row["step"] for row in folder.rows()]
        assert [row["_step"] for row in stub.history] == list(range(len(stub.history)))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "online"])
def test_a_server_out_of_reach_costs_one_line(bench: Bench, offline: Run, mode: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
        environment = {"WANDB_BASE_URL": closed, "WANDB_API_KEY": KEY}
        run = bench.fit(f"unreachable-{mode}", *EPOCH, "--wandb", mode, **environment)
    assert run.code == 0, run.err
    (line,) = [line for line in run.out.splitlines() if "W&B cannot be reached" in line]
    assert "offline" in line
    assert "Traceback" not in run.err
    (finished,) = (run.folder.path / "wandb").glob("offline-run-*")
    seen = json.loads(inspect(finished, "--summary", "--json"))
    assert (seen["summary"]["status"], seen["exit_code"]) == ("finished", 0)
    assert run.folder.metrics_file.read_bytes() == offline.folder.metrics_file.read_bytes()


# off, and not finished


def test_off_leaves_no_trace_and_changes_no_number(bench: Bench, offline: Run) -> None:
    run = bench.fit("off", *EPOCH, "--wandb", "off", WANDB_API_KEY=KEY)
    assert (run.code, run.err) == (0, "")
    assert not (run.folder.path / "wandb").exists()
    assert "wandb_id" not in run.folder.summary()
    assert run.folder.metrics_file.read_bytes() == offline.folder.metrics_file.read_bytes()


def test_a_diverged_run_says_so(machine: Run) -> None:
    assert machine.code == 3
    assert "diverged" in machine.err
    seen = json.loads(inspect(machine.wandb, "--summary", "--json"))
    assert (seen["summary"]["status"], seen["exit_code"]) == ("diverged", 1)
    assert seen["summary"]["step"] == machine.folder.rows()[-1]["step"]


# keys, and a server that refuses, without training


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This process as a user without any W&B configuration; W&B reads its environment only once."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "XDG_")) or name == "NETRC"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()
    yield tmp_path
    wandb.teardown()


def test_no_key(here: Path) -> None:
    assert not has_key()


def test_key_in_the_environment(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert has_key()


@pytest.mark.parametrize("server", [(), ("--host", "http://localhost:8080")], ids=["cloud", "own server"])
def test_key_of_wandb_login(here: Path, server: tuple[str, ...]) -> None:
    wandb_command(here, "login", "--no-verify", *server, KEY)
    assert has_key()


@pytest.mark.parametrize(
    ("machine", "known"),
    [("api.wandb.ai", True), ("api.forge.coreweave.com", True), ("example.invalid", False), ("unfinished", False)],
)
def test_key_in_netrc(here: Path, machine: str, known: bool) -> None:
    secret = "" if machine == "unfinished" else KEY
    (here / ".netrc").write_text(f"machine {machine} login user password {secret}\n")
    (here / ".netrc").chmod(0o600)
    assert has_key() is known


class FakeRun:
    """A W&B run that remembers how it was opened."""

    id = "fake"

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.logged: dict[str, Any] = {}
        self.config = SimpleNamespace(update=lambda config, allow_val_change: self.logged.update(config))

    def define_metric(self, name: str, **options: Any) -> None:
        pass


def _refusing(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> list[str]:
    """Let W&B open offline runs only; the modes it was asked for."""
    modes: list[str] = []

    def init(**options: Any) -> FakeRun:
        modes.append(options["mode"])
        if error is not None and options["mode"] == "online":
            raise error
        return FakeRun(**options)

    monkeypatch.setattr(wandb, "init", init)
    return modes


@pytest.mark.parametrize("mode", ["auto", "online"])
@pytest.mark.parametrize(
    "error",
    [
        wandb.errors.CommError("no answer\nfrom the server"),
        wandb.errors.AuthenticationError("no answer: wrong key"),
        wandb.errors.UsageError("no answer: no key"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_refusal_costs_one_line(here: Path, monkeypatch: pytest.MonkeyPatch, mode: Any, error: Exception) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    modes = _refusing(monkeypatch, error)
    said: list[str] = []
    logger = start(mode, Tracking(), here / "run", {}, said.append)
    assert isinstance(logger, WandbLogger)
    assert logger.experiment.options["mode"] == "offline"
    assert modes == ["online", "offline"]
    (line,) = said
    assert "\n" not in line
    assert "no answer" in line
    assert str(here / "run" / "wandb") in line


def test_other_errors_are_not_hidden(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _refusing(monkeypatch, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        start("online", Tracking(), here, {}, pytest.fail)


@pytest.mark.parametrize(("mode", "opened"), [("auto", ["offline"]), ("offline", ["offline"]), ("off", [])])
def test_modes_without_a_key(here: Path, monkeypatch: pytest.MonkeyPatch, mode: Any, opened: list[str]) -> None:
    modes = _refusing(monkeypatch, None)
    logger = start(mode, Tracking(), here, {}, pytest.fail)
    assert modes == opened
    assert (logger is None) == (mode == "off")


def test_the_logged_config_names_no_folders(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _refusing(monkeypatch, None)
    folder = str(here / "mnist")
    config = {"out": str(here), "task": {"data_dir": folder, "files": [folder, "a/b"]}, "seed": 1}
    private = start("offline", Tracking(), here, config, pytest.fail)
    open_ = start("offline", Tracking(machine=True), here, config, pytest.fail)
    assert private is not None
    assert open_ is not None
    assert private.experiment.logged == {"task": {"data_dir": "mnist", "files": ["mnist", "a/b"]}, "seed": 1}
    assert open_.experiment.logged == config


def test_an_offline_run_in_two_parts_is_uploaded_as_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = None
    for step in (0, 10):
        logger = start("offline", Tracking(), here, {}, pytest.fail, run_id)
        assert logger is not None
        run_id = logger.experiment.id
        logger.log_metrics({"step": step, "train/loss": 1.0})
        logger.log_metrics({"step": step + 5, "train/loss": 0.5})
        logger.experiment.finish()
    with Stub() as stub:
        wandb_command(here, "sync", str(here / "wandb"), WANDB_BASE_URL=stub.url, WANDB_API_KEY=KEY)
    assert stub.run["name"] == run_id
    assert [(row["_step"], row["step"]) for row in stub.history] == [(0, 0), (1, 5), (2, 10), (3, 15)]


@pytest.mark.parametrize(
    "options", [{"project": "a/b"}, {"project": "a" * 129}, {"tags": ["ok", ""]}, {"tags": ["a" * 65]}]
)
def test_labels_that_wandb_refuses_are_bad_input(options: dict[str, Any]) -> None:
    with pytest.raises(BpgenError, match=rf"tracking\.{next(iter(options))} must"):
        Tracking(**options)


def test_bad_labels_are_found_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    assert main(["fit", "--tracking.project", "a/b", "--wandb", "offline", "--out", str(runs)]) == 2
    assert "tracking.project must" in capsys.readouterr().err
    assert not runs.exists()


def test_an_unknown_mode_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BpgenError, match="Did you mean 'online'"):
        start("on-line", Tracking(), tmp_path, {}, pytest.fail)  # type: ignore[arg-type]
