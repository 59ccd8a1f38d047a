"""A study in W&B: its runs in one group, and a run of its own that says what came out."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from bpgen.run.folder import RunFolder
from tests.tracking.bench import Bench, inspect, wandb_command
from tests.tracking.stub import KEY, Stub

PLAN = """\
name: tiny
question: Does a rule make flat minima?
axes: {rule: [bptt, rflo]}
seeds: 2
set: {trainer.max_epochs: 1, network.n_rec: 8, sharpness.samples: 16, tracking.artifacts: true, tracking.tags: [one]}
measure: {alignment: {samples: 16}, gap: {train_samples: 32, test_samples: 32}}
"""


@pytest.fixture(scope="module")
def study(bench: Bench) -> Path:
    plan, out = bench.work / "tiny.yaml", bench.home / "tiny"
    plan.write_text(PLAN)
    command = [Path(sysconfig.get_path("scripts")) / "bpgen", "study", plan, "--out", out, "--wandb", "offline"]
    subprocess.run(command, cwd=bench.work, env=bench.environment(), check=True, timeout=300, capture_output=True)
    return out


def _seen(folder: Path) -> dict[str, Any]:
    """State, summary and config of the W&B run in a folder, and its first record."""
    (own,) = (folder / "wandb").glob("offline-run-*")
    seen: dict[str, Any] = json.loads(inspect(own, "--summary", "--json"))
    records = [json.loads(line) for line in inspect(own, "--json").splitlines()]
    return {**seen, "run": next(record["run"] for record in records if record["type"] == "run")}


def test_runs_are_one_group_named_by_what_they_are(study: Path) -> None:
    runs = [RunFolder(file.parent) for file in (study / "runs").glob("**/config.yaml")]
    assert len(runs) == 4
    names = set()
    for run in runs:
        seen = _seen(run.path)
        names.add(seen["name"])
        assert (seen["run"]["run_group"], seen["run"]["job_type"], seen["run"]["tags"]) == ("tiny", "train", ["one"])
        assert seen["config"]["tracking"]["study"] == "tiny"
        assert seen["config"]["tracking"]["condition"] == seen["config"]["rule"]["name"]
    assert names == {f"{rule}, seed {seed}" for rule in ("bptt", "rflo") for seed in (0, 1)}


def test_the_study_has_a_run_of_its_own(bench: Bench, study: Path) -> None:
    with Stub() as stub:
        there = bench.environment(WANDB_BASE_URL=stub.url, WANDB_API_KEY=KEY)
        wandb_command(bench.home, "sync", str(study / "wandb"), **there)
    run = stub.run
    assert (run["displayName"], run["groupName"], run["jobType"]) == ("tiny", "tiny", "summary")
    question, *verdicts = run["notes"].splitlines()
    assert question == "Does a rule make flat minima?"
    assert len(verdicts) == 2  # gap and sharpness of rflo against bptt
    assert all("rflo against bptt" in line for line in verdicts)
    assert stub.summary["runs/finished"] == 4
    assert stub.config["tracking"] == {"study": "tiny"}
    assert stub.config["plan"]["axes"] == {"rule": ["bptt", "rflo"]}
    figures = {path.stem for path in (study / "figures").glob("*.png")}
    (row,) = [row for row in stub.history if any(key.startswith("figures/") for key in row)]
    assert {key.removeprefix("figures/") for key in row if key.startswith("figures/")} == figures
    assert all("flat minima" in value["caption"] for key, value in row.items() if key.startswith("figures/"))


def test_with_artifacts_its_report_and_tables_are_there(bench: Bench, study: Path) -> None:
    with Stub() as stub:
        there = bench.environment(WANDB_BASE_URL=stub.url, WANDB_API_KEY=KEY)
        wandb_command(bench.home, "sync", "--include-synced", str(study / "wandb"), **there)
    (report,) = [artifact for name, artifact in stub.artifacts.items() if name.startswith("report-")]
    files = {"plan.yaml", "table.csv", "runs.csv", "summary.md", "report.html", "wandb_manifest.json"}
    assert set(report["files"]) == files
    assert report["files"]["table.csv"] == (study / "table.csv").read_bytes()
    tables = {k: v["files"] for k, v in stub.artifacts.items() if v["type"] == "run_table"}
    counts = {
        k.rpartition("-")[2]: len(json.loads(v[f"{k.rpartition('-')[2]}.table.json"])["data"])
        for k, v in tables.items()
    }
    assert counts == {"verdicts": 2, "evaluations": 8, "runs": 4}


def test_where_it_is_and_what_sends_it_is_said(bench: Bench, study: Path) -> None:
    """The command that is printed sends every run; a second call of a study goes on in its own run."""
    command = [Path(sysconfig.get_path("scripts")) / "bpgen", "study", bench.work / "tiny.yaml", "--out", study]
    before = {path.name[-8:] for path in (study / "wandb").glob("offline-run-*")}
    said = subprocess.run(
        [*command, "--wandb", "offline"], cwd=bench.work, env=bench.environment(), check=True, capture_output=True
    ).stdout.decode()
    assert f"bpgen dashboard {study} --save" in said
    assert f"wandb sync {study}/wandb {study}/runs/*/*/wandb" in said
    assert len(list(study.glob("runs/*/*/wandb"))) == 4
    assert {path.name[-8:] for path in (study / "wandb").glob("offline-run-*")} == before
