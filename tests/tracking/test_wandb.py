"""W&B end to end: `bpgen fit` as its own process, against a server on the loopback or against none."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from lightning.pytorch.loggers import WandbLogger

from bpgen.cli import main
from bpgen.errors import BpgenError
from bpgen.run.folder import RunFolder
from bpgen.tracking.own_settings import has_key
from bpgen.tracking.wandb import Tracking, start
from tests.tracking.bench import EPOCH, REMOTE, SMALL, USER, Bench, Run, as_logged, inspect, refusing, wandb_command
from tests.tracking.stub import KEY, Stub

FIGURES = {"alignment", "confusion", "gap", "loss", "overview", "performance", "sharpness"}


@pytest.fixture(scope="module")
def machine(bench: Bench) -> Run:
    """A run that diverges, and records the machine."""
    return bench.fit("machine", *EPOCH, "--tracking.machine", "true", "--optimizer.lr", "1e6")


@pytest.fixture(scope="module")
def online(bench: Bench) -> Iterator[tuple[Run, Stub]]:
    """With a key in the environment, and every label."""
    labels = ("--tracking.project", "sharp", "--tracking.entity", "lab", "--tracking.group", "seeds")
    with Stub() as stub:
        options = (*EPOCH, *labels, "--tracking.tags", "[one,two]", "--tracking.job_type", "pilot")
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
    kept = {name: seen["summary"].get(name) for name in last}
    kept = {name: value["last"] if isinstance(value, dict) else value for name, value in kept.items()}
    assert kept == pytest.approx(last)
    assert seen["config"] == as_logged(offline.folder)
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


def test_the_summary_has_the_extremes_of_the_measures_and_plain_losses(offline: Run) -> None:
    """Losses stay plain numbers, since a sweep's metric reads them."""
    seen, rows = json.loads(inspect(offline.wandb, "--summary", "--json"))["summary"], offline.folder.rows()
    for name in ("sharpness/lambda_max", "gap_noisy/accuracy", "alignment/rho"):
        values = [row[name] for row in rows]
        assert seen[name] == pytest.approx({"min": min(values), "max": max(values), "last": values[-1]})
        assert min(values) < max(values)
    assert seen["val/loss"] == pytest.approx(rows[-1]["val/loss"])


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
    expected = {"project": "sharp", "entity": "lab", "groupName": "seeds", "tags": ["one", "two"], "jobType": "pilot"}
    assert {field: stub.run[field] for field in expected} == expected
    assert stub.run["name"] == run.folder.summary()["wandb_id"]
    assert stub.run["displayName"] == run.folder.path.name
    config = {key: value for key, value in stub.config.items() if key != "_wandb"}
    assert config == as_logged(run.folder)
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
        first_part = bench.start(*SMALL, "--trainer.max_epochs", "10", "--out", str(runs), **environment)
        assert first_part.stdout is not None
        for line in first_part.stdout:
            if line.startswith("epoch 1,"):
                first_part.send_signal(signal.SIGINT)
                break
        _, err = first_part.communicate(timeout=60)
        assert first_part.returncode == 130, err
        assert stub.keys == {KEY}
        (path,) = runs.iterdir()
        folder = RunFolder(path)
        first, rows = folder.summary(), folder.rows()
        assert (stub.summary["status"], stub.exit_code) == ("interrupted", 1)

        again = bench.start("--resume", str(path), **environment)
        _, err = again.communicate(timeout=60)
        assert again.returncode == 0, err
        last = folder.summary()
        assert last["wandb_id"] == first["wandb_id"] == stub.run["name"]
        assert (stub.summary["status"], stub.exit_code) == ("finished", 0)
        assert len(folder.rows()) == 11 > len(rows)
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
    assert seen["summary"]["epoch"] == machine.folder.rows()[-1]["epoch"]


# keys, and a server that refuses, without training


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
    modes = refusing(monkeypatch, error)
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
    refusing(monkeypatch, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        start("online", Tracking(), here, {}, pytest.fail)


@pytest.mark.parametrize(("mode", "opened"), [("auto", ["offline"]), ("offline", ["offline"]), ("off", [])])
def test_modes_without_a_key(here: Path, monkeypatch: pytest.MonkeyPatch, mode: Any, opened: list[str]) -> None:
    modes = refusing(monkeypatch, None)
    logger = start(mode, Tracking(), here, {}, pytest.fail)
    assert modes == opened
    assert (logger is None) == (mode == "off")


def test_the_logged_config_names_no_folders(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, None)
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
