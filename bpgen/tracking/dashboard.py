"""What bpgen measures as a workspace or a report of W&B's: sections of panels, made by wandb-workspaces.

Runs are grouped by rule. What `wandb_workspaces` has under several names is written here as W&B's app reads it: a panel
turns the option `names.rule` into `names.value.rule` by itself, a pinned column does not, and a report's set of runs
groups by strings. Summaries of measures are {min, max, last}, so that a panel of summaries names `.last`.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import Any, NamedTuple

from bpgen.errors import BpgenError, require
from bpgen.tracking.own_settings import has_key
from bpgen.tracking.panels import RULE, sections
from bpgen.tracking.sweep import NAMES

_TIMEOUT = 20  # seconds for an answer of the server
_COLUMNS = (
    *("run:displayName", f"config:{NAMES}.value.rule", "config:tracking.value.condition", "config:seed.value"),
    *("summary:train/loss", "summary:gap_noisy/accuracy.last", "summary:sharpness/lambda_max.last"),
)


class About(NamedTuple):
    """Whose runs are shown.

    entity, project: W&B's. group: in W&B, of a study's runs; all of the project without it. title, question: of the
    study. baseline: the W&B id of the run that others are compared with.
    """

    entity: str
    project: str
    group: str = ""
    title: str = ""
    question: str = ""
    baseline: str = ""

    @property
    def name(self) -> str:
        """Of the page."""
        return f"bpgen: {self.title or self.project}"

    @property
    def filters(self) -> str:
        """Which of the project's runs: networks that a study trained, or all; no summary of a study and no tuning."""
        jobs = "JobType not in ['summary', 'tuning']"
        return f"{jobs} and Group = {self.group!r}" if self.group else jobs


def workspace(about: About) -> Any:
    """The workspace; nothing is sent."""
    library = _library()
    ws, wr = library.workspaces, library.reports
    shown = [ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections(wr)]
    return ws.Workspace(
        entity=about.entity,
        project=about.project,
        name=about.name,
        sections=shown,
        settings=ws.WorkspaceSettings(x_axis="step", max_runs=50),
        runset_settings=ws.RunsetSettings(
            filters=about.filters,
            groupby=[library.expr.Config(RULE)],
            pinned_columns=list(_COLUMNS),
            baseline_run=about.baseline or None,
        ),
        auto_generate_panels=True,  # or what others measure would not be shown
    )


def report(about: About) -> Any:
    """The same as a report; with an entity W&B's library asks its server for the number of the project."""
    wr = _library().reports
    blocks: list[Any] = [wr.MarkdownBlock(text=about.question)] if about.question else []
    for name, panels in sections(wr):
        runs = wr.Runset(entity=about.entity, project=about.project, filters=about.filters, groupby=[f"config.{RULE}"])
        blocks += [wr.H2(text=name), wr.PanelGrid(runsets=[runs], panels=_laid_out(wr, panels))]
    text = "Made by bpgen dashboard: sharpness, generalization gap and alignment by learning rule."
    return wr.Report(entity=about.entity, project=about.project, title=about.name, description=text, blocks=blocks)


def saved(about: About, as_report: bool) -> str:
    """Save the workspace, or the report, on W&B's server, as a new one; returns its address.

    Raises:
        BpgenError: there is no key, or the server refuses or cannot be reached.
    """
    import wandb

    require(has_key(), "saving a dashboard needs an account: `wandb login`, or --json for its specification.")
    try:
        about = about._replace(entity=about.entity or wandb.Api(timeout=_TIMEOUT).default_entity or "")
        require(bool(about.entity), "W&B does not say whose project it is: give --entity NAME.")
        page = report(about) if as_report else workspace(about)
        with redirect_stderr(io.StringIO()):  # it says the address, too
            page.save()
        return str(page.url)
    except BpgenError:
        raise
    except Exception as error:  # of W&B's libraries, which name none of them
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BpgenError(f"W&B did not take the dashboard: {reason}. Is {about.project} a project of yours?") from None


def specification(about: About, as_report: bool = False) -> dict[str, Any]:
    """The workspace, or the report, as W&B stores it; nothing is sent.

    The same every time: random names are numbered, and a report lacks the number that W&B has for the project.
    """
    page = report(about._replace(entity="")) if as_report else workspace(about)
    model = page._to_model()
    spec: dict[str, Any] = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))
    return {"name": model.display_name, "project": page.project, "spec": _numbered(spec, {})}


def _numbered(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        for key in ("__id__", "id"):
            if isinstance(value.get(key), str) and value[key]:
                names.setdefault(value[key], f"id{len(names)}")
        return {key: _numbered(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbered(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def _laid_out(wr: Any, panels: Sequence[Any]) -> list[Any]:
    """Two beside each other; a report has 24 columns."""
    for number, panel in enumerate(panels):
        panel.layout = wr.Layout(x=12 * (number % 2), y=8 * (number // 2), w=12, h=8)
    return list(panels)


class _Library(NamedTuple):
    workspaces: Any
    reports: Any
    expr: Any


def _library() -> _Library:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, about pydantic
        try:
            import wandb_workspaces.reports.v2 as reports
            import wandb_workspaces.workspaces as workspaces
            from wandb_workspaces import expr
        except ImportError:
            raise BpgenError("a dashboard needs wandb-workspaces: pip install 'bpgen[dashboard]'.") from None
    return _Library(workspaces, reports, expr)
