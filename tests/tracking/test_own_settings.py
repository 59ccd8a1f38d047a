"""W&B's own variables and settings files count where bpgen's options say nothing, and lose against those that do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import wandb

from bpgen.cli import main
from bpgen.errors import BpgenError
from bpgen.tracking.own_settings import Mode
from bpgen.tracking.wandb import Tracker, Tracking, start
from tests.tracking.bench import EPOCH, Bench, refusing, wandb_command
from tests.tracking.stub import KEY, Stub

# What the environment or the settings file says, and how `auto` then opens a run, with a key and without.
SAID: dict[str, tuple[dict[str, str], str | None, list[str], list[str]]] = {
    "nothing": ({}, None, ["online"], ["offline"]),
    "mode online": ({"WANDB_MODE": "online"}, None, ["online"], ["online"]),
    "mode run": ({"WANDB_MODE": "run"}, None, ["online"], ["online"]),
    "mode offline": ({"WANDB_MODE": "offline"}, None, ["offline"], ["offline"]),
    "mode dryrun": ({"WANDB_MODE": "dryrun"}, None, ["offline"], ["offline"]),
    "mode disabled": ({"WANDB_MODE": "disabled"}, None, [], []),
    "disabled": ({"WANDB_DISABLED": "true"}, None, [], []),
    "disabled, in capitals": ({"WANDB_DISABLED": "TRUE"}, None, [], []),
    "disabled by a number": ({"WANDB_DISABLED": "1"}, None, [], []),
    "disabled beside a mode": ({"WANDB_DISABLED": "true", "WANDB_MODE": "online"}, None, [], []),
    "not disabled": ({"WANDB_DISABLED": "false"}, None, ["online"], ["offline"]),
    "file offline": ({}, "offline", ["offline"], ["offline"]),
    "file disabled": ({}, "disabled", [], []),
    "file online": ({}, "online", ["online"], ["online"]),
    "environment over file": ({"WANDB_MODE": "online"}, "offline", ["online"], ["online"]),
}


def _say(here: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], in_file: str | None) -> None:
    monkeypatch.chdir(here)
    if in_file:
        (here / "wandb").mkdir()
        (here / "wandb" / "settings").write_text(f"[default]\nmode = {in_file}\n")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("key", [True, False], ids=["with a key", "without"])
@pytest.mark.parametrize("said", SAID)
def test_auto_is_what_wandb_itself_was_told(here: Path, monkeypatch: pytest.MonkeyPatch, said: str, key: bool) -> None:
    environment, in_file, with_key, without = SAID[said]
    _say(here, monkeypatch, environment | ({"WANDB_API_KEY": KEY} if key else {}), in_file)
    modes = refusing(monkeypatch, None)
    logger = start("auto", Tracking(), here / "run", {}, pytest.fail)
    assert modes == (with_key if key else without)
    assert (logger is None) == (modes == [])


@pytest.mark.parametrize("explicit", ["online", "offline", "off"])
@pytest.mark.parametrize("said", SAID)
def test_an_explicit_mode_wins(here: Path, monkeypatch: pytest.MonkeyPatch, said: str, explicit: Mode) -> None:
    environment, in_file, _, _ = SAID[said]
    _say(here, monkeypatch, environment | {"WANDB_API_KEY": KEY}, in_file)
    modes = refusing(monkeypatch, None)
    start(explicit, Tracking(), here / "run", {}, pytest.fail)
    assert modes == ([] if explicit == "off" else [explicit])


@pytest.mark.parametrize("command", ["offline", "disabled", "online"])
def test_the_settings_file_is_the_one_that_wandb_writes(
    here: Path, monkeypatch: pytest.MonkeyPatch, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """`wandb offline` and the like, by W&B's own command line; reading it prints nothing."""
    wandb_command(here, command)
    _say(here, monkeypatch, {"WANDB_API_KEY": KEY}, None)
    modes = refusing(monkeypatch, None)
    start("auto", Tracking(), here / "run", {}, pytest.fail)
    assert modes == {"offline": ["offline"], "disabled": [], "online": ["online"]}[command]
    assert capfd.readouterr() == ("", "")


LABELS = {
    "project": ("WANDB_PROJECT", "theirs"),
    "entity": ("WANDB_ENTITY", "lab"),
    "run_name": ("WANDB_NAME", "nice"),
    "run_group": ("WANDB_RUN_GROUP", "pilot"),
    "run_tags": ("WANDB_TAGS", "a,b"),
    "run_id": ("WANDB_RUN_ID", "abc123"),
    "run_notes": ("WANDB_NOTES", "why"),
    "run_job_type": ("WANDB_JOB_TYPE", "sweep"),
}


def _opened(here: Path, tracking: Tracking, config: dict[str, Any] | None = None) -> Any:
    """The settings of a true offline run."""
    (here / "run7").mkdir()
    logger = start("offline", tracking, here / "run7", config or {}, pytest.fail)
    assert logger is not None
    settings = logger.experiment.settings
    logger.experiment.finish()
    return settings


def test_without_a_word_of_anybody(here: Path) -> None:
    settings = _opened(here, Tracking())
    assert (settings.project, settings.run_name, settings.entity) == ("bpgen", "run7", None)
    assert (settings.run_group, settings.run_tags) == (None, None)
    assert Path(settings.sync_dir).parent == here / "run7" / "wandb"


def test_labels_are_those_of_the_environment(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LABELS.values():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_DIR", str(here / "elsewhere"))
    (here / "elsewhere").mkdir()
    settings = _opened(here, Tracking())
    found = {field: getattr(settings, field) for field in LABELS}
    assert found == {field: value for field, (_, value) in LABELS.items()} | {"run_tags": ("a", "b")}
    assert Path(settings.sync_dir).parent == here / "elsewhere" / "wandb"
    assert list((here / "run7").iterdir()) == []


def test_options_win_over_the_environment(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LABELS.values():
        monkeypatch.setenv(name, value)
    settings = _opened(here, Tracking("mine", "me", "final", ["x"]))
    assert (settings.project, settings.entity, settings.run_group) == ("mine", "me", "final")
    assert settings.run_tags == ("x",)


def test_the_name_of_a_run_wins_over_the_environment(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--name run7 named the folder; W&B shows the run as its folder."""
    monkeypatch.setenv("WANDB_NAME", "nice")
    assert _opened(here, Tracking(), {"name": "run7"}).run_name == "run7"


def test_a_project_of_the_settings_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    (here / "wandb").mkdir()
    (here / "wandb" / "settings").write_text("[default]\nproject = theirs\nentity = lab\n")
    settings = _opened(here, Tracking())
    assert (settings.project, settings.entity) == ("theirs", "lab")


def test_a_sweep_keeps_its_project_and_its_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an agent sets is not spoken against, or W&B would warn in every run."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    opened: list[dict[str, Any]] = []

    def init(**options: Any) -> Any:
        opened.append(options)
        raise RuntimeError("far enough")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(RuntimeError, match="far enough"):
        start("offline", Tracking(), here, {}, pytest.fail)
    assert (opened[0]["project"], opened[0]["id"]) == (None, None)


@pytest.mark.parametrize(
    ("name", "value"), [("WANDB_MODE", "bogus"), ("WANDB_MODE", ""), ("WANDB_PROJECT", "a/b"), ("WANDB_SILENT", "?")]
)
def test_variables_that_wandb_refuses_are_bad_input(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BpgenError, match=r"W&B refuses its own settings .*--wandb off"):
        Tracker.of("auto", Tracking())
    assert Tracker.of("off", Tracking()) is None
    wandb.teardown()
    assert main(["fit", "--out", str(here / "runs")]) == 2
    assert "\n" not in capsys.readouterr().err.strip()
    assert not (here / "runs").exists()


def test_a_bad_key_is_not_repeated(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "tooshort ")
    with pytest.raises(BpgenError) as caught:
        Tracker.of("auto", Tracking())
    assert "tooshort" not in str(caught.value)


def test_offline_in_the_environment_of_a_user_with_a_key_sends_nothing(bench: Bench) -> None:
    """End to end: with a key, a server that listens and WANDB_MODE=offline, no connection is made."""
    with Stub() as stub:
        run = bench.fit(
            "told", *EPOCH, WANDB_BASE_URL=stub.url, WANDB_API_KEY=KEY, WANDB_MODE="offline", WANDB_PROJECT="theirs"
        )
    assert (run.code, run.err, stub.connections) == (0, "", 0)
    assert run.wandb.name.startswith("offline-run-")
