"""`bpgen dashboard`: its specification against the golden one, what it names, and saved on the stub.

The golden file is written by `python -m tests.tracking.test_dashboard`; look at the difference before you keep it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bpgen.cli import main
from bpgen.registry import plugins
from bpgen.tracking.batch_loss import COLUMN
from bpgen.tracking.dashboard import About, specification
from tests.tracking.stub import KEY, Stub

pytest.importorskip("wandb_workspaces")

GOLDEN = Path(__file__).with_name("dashboard.json")
ABOUT = About("lab", "sharp", "leak", "leak", "Does the leak matter?", "1mbku38n")


def _golden() -> dict[str, Any]:
    return {"workspace": specification(ABOUT), "report": specification(ABOUT, as_report=True)}


@pytest.mark.parametrize("page", ["workspace", "report"])
def test_the_golden_specification(page: str, here: Path) -> None:
    assert _golden()[page] == json.loads(GOLDEN.read_text(encoding="utf-8"))[page]


def _values(value: Any, key: str) -> list[Any]:
    """Everything under a key, at any depth."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [value[key]] if isinstance(value, dict) and key in value else []
    return own + [found for part in inner for found in _values(part, key)]


def test_panels_name_what_is_measured_and_options_that_exist() -> None:
    spec = specification(ABOUT)["spec"]
    panels = _values(spec, "panels")
    measured = {column.name for plugin in plugins("measurement").values() for column in plugin.load().columns}
    measured |= {COLUMN, *(f"spectrum/lambda_{i}" for i in (2, 3))}  # lambda_1 stands for all
    named = {name.removesuffix(".last") for names in _values(panels, "metrics") for name in names}
    axes = [*_values(panels, "xAxis"), *_values(panels, "yAxis")]
    named |= {axis.removeprefix("summary:").removesuffix(".last") for axis in axes if axis.startswith("summary:")}
    assert len(named) > 20
    assert named <= measured
    assert set(_values(panels, "groupBy")) == {"names.value.rule", "tracking.value.condition"}


def test_summaries_are_named_as_the_run_defines_them() -> None:
    """Losses and accuracies are plain numbers in a summary, measures {min, max, last}: see `keep_extremes`."""
    panels = _values(specification(ABOUT)["spec"], "panels")
    bars = [p["config"]["metrics"][0] for part in panels for p in part if p["viewType"] == "Bar Chart"]
    axes = [
        p["config"][a] for part in panels for p in part if p["viewType"] == "Scatter Plot" for a in ("xAxis", "yAxis")
    ]
    for name in [*bars, *(axis.removeprefix("summary:") for axis in axes)]:
        plain = name.partition("/")[0] in ("train", "val", "test", "test_noisy")
        assert name.endswith(".last") is not plain, name
    assert len(bars) == 4


def test_runs_are_grouped_by_rule_and_compared_with_bptt() -> None:
    (runs,) = specification(ABOUT)["spec"]["section"]["runSets"]
    assert runs["grouping"] == [{"section": "config", "name": "names.value.rule"}]
    assert runs["filters"]["filters"][0]["value"] == ["summary", "tuning"]
    assert runs["filters"]["filters"][1]["value"] == "leak"
    assert runs["baselineRunId"] in runs["pinnedRunIds"]
    (whole,) = specification(About("lab", "sharp"))["spec"]["section"]["runSets"]
    assert len(whole["filters"]["filters"]) == 1
    assert "baselineRunId" not in whole


def _study(folder: Path) -> Path:
    """A study whose second run is the first of BPTT on W&B."""
    runs = {"rflo-0": ("rflo", 0, "finished"), "bptt-1": ("bptt", 1, "finished"), "bptt-0": ("bptt", 0, "diverged")}
    for name, (rule, seed, status) in runs.items():
        run = folder / "runs" / rule / name
        run.mkdir(parents=True)
        tracking = {"project": "sharp", "entity": None, "group": "leak"}
        config = {"rule": {"name": rule}, "task": {"name": "digits"}, "seed": seed, "tracking": tracking}
        (run / "config.yaml").write_text(json.dumps(config))
        (run / "summary.json").write_text(json.dumps({"status": status, "wandb_id": f"id-{name}"}))
    (folder / "plan.yaml").write_text("name: leak\nquestion: Does the leak matter?\n")
    return folder


def test_a_study_is_found_in_its_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", str(_study(here / "leak")), "--entity", "lab", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == specification(ABOUT._replace(baseline="id-bptt-1"))


@pytest.mark.parametrize("option", [(), ("--report",)], ids=["workspace", "report"])
def test_it_is_saved_on_the_server(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: tuple[str, ...]
) -> None:
    with Stub() as stub:
        monkeypatch.setenv("WANDB_BASE_URL", stub.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        assert main(["dashboard", str(_study(here / "leak")), "--save", *option]) == 0
        about = ABOUT._replace(entity="someone", baseline="id-bptt-1")
        expected = specification(about, bool(option))
        assert stub.url in capsys.readouterr().out
    (view,) = stub.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("someone", "sharp", "bpgen: leak")
    assert view["type"] == ("runs" if option else "project-view")
    assert len(view["spec"]) > 10_000
    assert _values(json.loads(view["spec"]), "metrics") == _values(expected["spec"], "metrics")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["bpgen", "--save"], "needs an account"),
        (["no/such/folder", "--json"], "neither the folder of a study nor a W&B project"),
        ([".", "--json"], "no plan.yaml"),
        (["bpgen"], "--json --save is required"),
    ],
)
def test_bad_input(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    monkeypatch.chdir(here)
    assert main(["dashboard", *argv]) == 2
    assert message in capsys.readouterr().err


def test_a_server_that_refuses_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Stub() as stub:
        stub.fault = 403
        monkeypatch.setenv("WANDB_BASE_URL", stub.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        assert main(["dashboard", "lab/sharp", "--save"]) == 2
    assert "W&B did not take the dashboard" in capsys.readouterr().err


def test_without_the_extra_it_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    assert main(["dashboard", "sharp", "--json"]) == 2
    assert "bpgen[dashboard]" in capsys.readouterr().err


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(_golden(), indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
