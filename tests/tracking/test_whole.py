"""All of a run in W&B, counted: metrics, config, images, tables, artifacts; online, and by `wandb sync` afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import bpgen
from bpgen.run.tracked import caption
from tests.tracking.bench import Bench, Run, as_logged, wandb_command
from tests.tracking.stub import KEY, Stub

WHOLE = ("--trainer.max_epochs", "3", "--tracking.artifacts", "true", "--tracking.job_type", "pilot", "--seed", "3")
STEPS, EVERY = 225, 2  # of three epochs; as many between two losses, so that there are no more than 200
FIGURES = {"alignment", "confusion", "gap", "loss", "overview", "performance", "sharpness"}
OWN = {"_step", "_runtime", "_timestamp", "_wandb", "trainer/global_step"}  # of W&B and Lightning


@pytest.fixture(scope="module")
def online(bench: Bench) -> Iterator[tuple[Run, Stub]]:
    with Stub() as stub:
        yield bench.fit("whole", *WHOLE, WANDB_BASE_URL=stub.url, WANDB_API_KEY=KEY), stub


@pytest.fixture(scope="module")
def synced(bench: Bench) -> Iterator[tuple[Run, Stub]]:
    """The same run offline, and sent later."""
    run = bench.fit("later", *WHOLE)
    with Stub() as stub:
        there = bench.environment(WANDB_BASE_URL=stub.url, WANDB_API_KEY=KEY)
        wandb_command(bench.home, "sync", str(run.folder.path / "wandb"), **there)
        yield run, stub


@pytest.fixture(scope="module", params=["online", "synced"])
def sent(request: pytest.FixtureRequest) -> tuple[Run, Stub]:
    run, stub = request.getfixturevalue(request.param)
    assert run.code == 0, run.err
    return run, stub


def test_every_metric_of_every_evaluation(sent: tuple[Run, Stub]) -> None:
    run, stub = sent
    rows = run.folder.rows()
    assert len(rows) == 4
    evaluations = [row for row in stub.history if "train/loss" in row]
    assert [{k: v for k, v in row.items() if k not in OWN} for row in evaluations] == [pytest.approx(r) for r in rows]


def test_the_loss_of_training_batches_between_them(sent: tuple[Run, Stub]) -> None:
    _, stub = sent
    losses = {row["step"]: row["train/loss_step"] for row in stub.history if "train/loss_step" in row}
    assert list(losses) == list(range(EVERY, STEPS + 1, EVERY))
    assert 0 < losses[STEPS - 1] < losses[EVERY]


def test_every_value_of_the_config(sent: tuple[Run, Stub]) -> None:
    run, stub = sent
    config = {key: value for key, value in stub.config.items() if key != "_wandb"}
    assert config == as_logged(run.folder)
    assert (config["rule"]["name"], config["tracking"]["artifacts"], config["seed"]) == ("rflo", True, 3)
    assert (stub.run["jobType"], stub.run["displayName"]) == ("pilot", run.folder.path.name)


def test_figures_in_one_step_each_with_its_caption(sent: tuple[Run, Stub]) -> None:
    run, stub = sent
    (row,) = [row for row in stub.history if any(key.startswith("figures/") for key in row)]
    assert {key.removeprefix("figures/") for key in row if key not in {*OWN, "step"}} == FIGURES
    for name in FIGURES:
        picture = (run.folder.path / "figures" / f"{name}.png").read_bytes()
        assert stub.files[row[f"figures/{name}"]["path"]] == picture
        assert row[f"figures/{name}"]["caption"] == caption(name)
        assert caption(name).endswith(".")
    assert len({caption(name) for name in FIGURES}) == len(FIGURES)


def test_the_table_of_evaluations(sent: tuple[Run, Stub]) -> None:
    run, stub = sent
    ((kind, files),) = [(a["type"], a["files"]) for name, a in stub.artifacts.items() if name.endswith("-evaluations")]
    assert kind == "run_table"
    table = json.loads(files["evaluations.table.json"])
    assert table["columns"] == run.folder.columns()
    rows = run.folder.rows()
    assert table["data"] == [[pytest.approx(row[c]) if c in row else None for c in table["columns"]] for row in rows]
    (shown,) = [row["evaluations"] for row in stub.history if "evaluations" in row]
    assert (shown["nrows"], shown["ncols"]) == (4, len(table["columns"]))


def test_the_artifact_is_a_run_folder_without_its_place(sent: tuple[Run, Stub], tmp_path: Path) -> None:
    run, stub = sent
    (artifact,) = [artifact for name, artifact in stub.artifacts.items() if name.startswith("networks-")]
    files = {place: body for place, body in artifact["files"].items() if place != "wandb_manifest.json"}
    networks = {f"weights/{file.name}" for file in run.folder.weights().values()}
    assert artifact["type"] == "model"
    assert set(files) == {"config.yaml", "metrics.csv", *networks}
    assert len(networks) == 4
    for place, body in files.items():
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(body)
    loaded, own = bpgen.load_run(tmp_path), bpgen.load_run(run.folder.path)
    assert torch.equal(loaded.network.W_rec, own.network.W_rec)
    assert loaded.metrics.equals(own.metrics)


def test_nothing_is_sent_twice_and_nothing_else(sent: tuple[Run, Stub]) -> None:
    _, stub = sent
    assert len(stub.artifacts) == 2
    assert len(stub.history) == 4 + STEPS // EVERY + 2  # evaluations, losses, table, figures
    assert [row["_step"] for row in stub.history] == list(range(len(stub.history)))
    pictures = [name for name in stub.files if name.endswith(".png")]
    assert len(pictures) == len(FIGURES)


def test_sync_gives_the_same_records(online: tuple[Run, Stub], synced: tuple[Run, Stub]) -> None:
    (first, one), (second, other) = online, synced
    assert first.folder.summary()["wandb_id"] != second.folder.summary()["wandb_id"]
    assert _timeless(one.history) == _timeless(other.history)
    assert _timeless([one.summary]) == _timeless([other.summary])
    assert {k: v for k, v in one.config.items() if k != "_wandb"} == {
        k: v for k, v in other.config.items() if k != "_wandb"
    }


def _timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """History without clocks, and without the addresses of tables, which bear the run's id."""
    kept = [{k: v for k, v in row.items() if k not in ("_runtime", "_timestamp", "_wandb")} for row in rows]
    for row in kept:
        if isinstance(row.get("evaluations"), dict):
            row["evaluations"] = {k: row["evaluations"][k] for k in ("nrows", "ncols", "_type")}
    return kept
