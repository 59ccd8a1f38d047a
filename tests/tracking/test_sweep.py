"""Runs that a W&B agent starts: its own flags and locked config, made by W&B's own functions, against the stub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from wandb.sdk import wandb_config
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args
from wandb.sdk.lib import config_util

from bpgen.cli.options import resolve
from bpgen.cli.python_values import plainly
from bpgen.tracking.panels import RULE
from bpgen.tracking.sweep import log_config
from tests.tracking.bench import EPOCH, Bench, Run
from tests.tracking.stub import KEY, Stub

SWEEP = "sweep1"


def _flags(**chosen: Any) -> list[str]:
    """What ${args} are of what a sweep chose."""
    flags: list[str] = create_sweep_command_args({"args": {k: {"value": v} for k, v in chosen.items()}})["args"]
    return flags


def _started(bench: Bench, stub: Stub, name: str, chosen: dict[str, Any]) -> Run:
    """As an agent starts a run: see `_command_run` of wandb_agent.py."""
    file = bench.work / "wandb" / f"sweep-{SWEEP}" / f"config-{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    config_util.save_config_file_from_dict(str(file), {k: {"value": v} for k, v in chosen.items()})
    agent = {"WANDB_SWEEP_ID": SWEEP, "WANDB_RUN_ID": name, "WANDB_PROJECT": "bpgen"}
    there = {"WANDB_BASE_URL": stub.url, "WANDB_API_KEY": KEY, "WANDB_SWEEP_PARAM_PATH": str(file)}
    return bench.fit(name, *EPOCH, *_flags(**chosen), **agent, **there)


def _config(stub: Stub) -> dict[str, Any]:
    return {key: value for key, value in stub.config.items() if key != "_wandb"}


def test_a_rule_that_is_a_word(bench: Bench) -> None:
    """It stays, or W&B's grid search would not know the run again; its options stand beside it."""
    with Stub() as stub:
        run = _started(bench, stub, "word", {"rule": "eprop", "optimizer.lr": 0.03, "seed": 2})
        config, whole = _config(stub), run.folder.plain_config()
    assert run.code == 0, run.err
    assert (config["rule"], config["optimizer.lr"], config["seed"]) == ("eprop", 0.03, 2)
    assert {f"rule.{k}": v for k, v in whole["rule"].items()} == {k: v for k, v in config.items() if k[:5] == "rule."}
    assert config["names"]["rule"] == config["rule.name"] == whole["rule"]["name"] == "eprop"
    assert config["optimizer"] == whole["optimizer"]
    assert config["optimizer"]["lr"] == 0.03
    assert stub.run["sweep"] == SWEEP
    assert stub.run["displayName"] == f"{run.folder.path.name}, rule=eprop, lr=0.03, seed=2"
    assert "this sweep varies rule," in run.out
    assert "locked" not in run.err


@pytest.mark.parametrize(
    "chosen",
    [
        {"rule.name": "rflo", "rule.scale": 0.5, "trainer.patience": None},
        {"rule": {"name": "rflo", "scale": 0.5}, "trainer": {"patience": None}, "network": {"n_rec": 16}},
    ],
    ids=["dotted", "nested"],
)
def test_what_is_chosen_stays_and_the_rest_is_logged_too(bench: Bench, chosen: dict[str, Any]) -> None:
    """Also a group to the letter: it may be a value of a grid, which is known again by all of it."""
    with Stub() as stub:
        run = _started(bench, stub, "-".join(chosen), chosen)
        config, whole = _config(stub), run.folder.plain_config()
    assert run.code == 0, run.err
    assert {key: config[key] for key in chosen} == chosen
    for key in set(whole) - {"out"}:
        beside = {k.removeprefix(f"{key}."): v for k, v in config.items() if k.startswith(f"{key}.")}
        assert {**beside, **config[key]} == whole[key] if isinstance(whole[key], dict) else config[key] == whole[key]
    assert (whole["rule"]["name"], whole["rule"]["scale"]) == ("rflo", 0.5)
    assert "locked" not in run.err
    assert ("varies rule," in run.out) is ("rule" in chosen)


@pytest.mark.parametrize("varied", [{}, {"rule": "rflo"}, {"rule": {"name": "rflo"}}, {"rule.name": "rflo", "seed": 1}])
def test_every_run_has_its_rule_in_the_same_place(varied: dict[str, Any]) -> None:
    """By which the dashboard groups: of a config whose sweep is locked as W&B locks it, and of one without a sweep."""
    logged = wandb_config.Config()
    logged.update_locked(varied, user="sweep")
    config = {"rule": {"name": "rflo", "scale": 1.0}, "task": {"name": "digits"}, "seed": 1}
    log_config(logged, config, varied, lambda line: None)
    place: Any = dict(logged)
    for part in RULE.split("."):
        place = place[part]
    assert place == "rflo"
    assert logged["names"]["task"] == "digits"
    assert {key: logged[key] for key in varied} == varied


def test_divergence_does_not_stop_an_agent(bench: Bench) -> None:
    """Three exit codes other than 0 within a minute do."""
    with Stub() as stub:
        run = _started(bench, stub, "diverging", {"optimizer.lr": 1e6})
    assert run.code == 0
    assert "diverged" in run.err
    assert (stub.summary["status"], stub.exit_code) == ("diverged", 1)
    assert bench.fit("alone", *EPOCH, "--optimizer.lr", "1e6", "--wandb", "off").code == 3


def test_names_tell_the_members_of_a_study_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bpgen.tracking.wandb import _name

    config = {"seed": 3, "tracking": {"study": "leak", "condition": "rflo, alpha=0.5"}}
    assert _name(tmp_path / "digits-rflo-seed3", config, {}) == "rflo, alpha=0.5, seed 3"
    assert len(_name(tmp_path, {}, {f"optimizer.x{i}": 0.123456 for i in range(40)})) == 128


@pytest.mark.parametrize(
    ("chosen", "plain"),
    [
        ({"trainer.patience": None}, ["--trainer.patience=null"]),
        ({"network.dale": True}, ["--network.dale=true"]),
        ({"optimizer.lr_scale": {"W_rec": 0.1}}, ['--optimizer.lr_scale={"W_rec": 0.1}']),
        ({"tracking.tags": ["a", None]}, ['--tracking.tags=["a", null]']),
        ({"rule": {"name": "rflo", "seed": None}}, ["--rule.name=rflo", "--rule.seed=null"]),
        ({"optimizer.lr": 1e-05}, ["--optimizer.lr=1e-05"]),
        ({"out": "None of it"}, ["--out=None of it"]),
    ],
)
def test_values_as_python_writes_them(chosen: dict[str, Any], plain: list[str]) -> None:
    assert plainly(_flags(**chosen), {"rule", "optimizer", "network", "trainer"}) == plain


def test_what_a_user_types_stays_as_it_is() -> None:
    typed = ["--tracking.tags", "[one,two]", "--rule", "rflo", "--config=a.yaml", "--task.files=[a, b]", "{a: 1}"]
    assert plainly(typed, {"rule", "task"}) == typed


def test_an_agents_flags_give_the_config_that_a_file_gives(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("rule: {name: rflo, scale: 0.5}\ntrainer: {patience: null}\noptimizer: {lr_scale: {W_rec: 0.1}}\n")
    flags = _flags(
        **{"rule": {"name": "rflo", "scale": 0.5}, "trainer": {"patience": None}},
        **{"optimizer.lr_scale": {"W_rec": 0.1}},
    )
    assert resolve(flags) == resolve(["--config", os.fspath(file)])
