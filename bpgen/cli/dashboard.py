"""`bpgen dashboard`: what bpgen measures as a workspace or a report on Weights & Biases."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpgen.cli.listing import Parser
from bpgen.errors import require

if TYPE_CHECKING:
    from bpgen.tracking.dashboard import About

DESCRIPTION = """\
Make a workspace on Weights & Biases for a study or a project: sharpness by rule with its bounds, generalization gap by
rule, gap against sharpness, alignment, spectra, sample efficiency, remedies by condition, and the runs side by side.
Runs are grouped by rule and compared with the study's first BPTT run. Needs the extra `dashboard`."""


def run(argv: list[str]) -> int:
    """Run the command."""
    parser = Parser(prog="bpgen dashboard", description=DESCRIPTION)
    parser.add_argument("of", metavar="STUDY|PROJECT", help="folder of a study, or a W&B project, also ENTITY/NAME")
    parser.add_argument("--entity", help="W&B user or team (default: that of the runs, or W&B's own)")
    parser.add_argument("--report", action="store_true", help="a report instead of a workspace")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--json", action="store_true", help="print its specification; nothing is sent, no account needed")
    what.add_argument("--save", action="store_true", help="save it on W&B's server and print its address")
    options = parser.parse_args(argv)
    about = _about(options.of, options.entity)
    from bpgen.tracking import dashboard

    if options.json:
        print(json.dumps(dashboard.specification(about, options.report), indent=1, ensure_ascii=False))
    else:
        print(f"saved     {dashboard.saved(about, options.report)}")
    return 0


def _about(of: str, entity: str | None) -> About:
    """Whose runs: of a study's folder, or of a project."""
    from bpgen.tracking.dashboard import About
    from bpgen.tracking.own_settings import own_settings

    own = own_settings(machine=False)
    folder = Path(of).expanduser()
    if not folder.is_dir():
        known, _, project = of.rpartition("/")
        looks_like_a_path = len(Path(of).parts) > 2 or of.startswith((".", "~", "/"))
        require(bool(project) and not looks_like_a_path, f"{of} is neither the folder of a study nor a W&B project.")
        return About(entity or known or own.entity or "", project)
    require((folder / "plan.yaml").is_file(), f"{of} is not the folder of a study: it has no plan.yaml.")
    return _of_study(folder, entity, own)


def _of_study(folder: Path, entity: str | None, own: Any) -> About:
    from bpgen.study.catalogue import StudyEntry, entries
    from bpgen.tracking.dashboard import About

    study = StudyEntry(folder)
    runs = [run for run in entries([folder]) if not run.stage]
    tracked = [run for run in runs if run.summary.get("wandb_id")]
    if not tracked:
        print("none of its runs is on W&B yet: `bpgen study ... --wandb auto` tracks them", file=sys.stderr)
    options = [run.config.get("tracking") or {} for run in tracked or runs] or [{}]
    bptt = [run for run in tracked if run.facts["rule"] == "bptt" and run.status == "finished"]
    first = min(bptt, key=lambda run: run.facts["seed"], default=None)
    return About(
        entity or options[0].get("entity") or own.entity or "",
        options[0].get("project") or own.project or "bpgen",
        options[0].get("group") or study.name,
        study.name,
        str(study.plan.get("question") or ""),
        str(first.summary["wandb_id"]) if first else "",
    )
