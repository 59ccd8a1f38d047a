"""The tidy tables of a study: one row per run and evaluation, and one row per run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bpgen.analysis.sequential import with_looks
from bpgen.analysis.settings import BLOCK, PASSES, REUSES, WHERE, with_surrogates
from bpgen.study.runs import Run

KEYS = ("condition", "rule", "alpha", "task", "seed")  # what figures and statistics group by


def evaluation_table(runs: Sequence[Run], study: Path, looks: Sequence[int] = ()) -> pd.DataFrame:
    """One row per run and evaluation: what the run was (KEYS, axes, tuned values, status, folder), then its metrics.

    A diverged run is there with its rows up to the divergence and status "diverged". Where seeds were added in looks,
    every row says for which one. λ_max of spiking networks is that of the surrogate network.
    """
    parts, apart = [], _apart(runs)
    for run in runs:
        if run.folder is None or not run.folder.metrics_file.is_file():
            continue
        rows = pd.read_csv(run.folder.metrics_file)
        facts = {**_facts(run), WHERE: _where(run, apart), "status": run.status, "run": _relative_path(run, study)}
        parts.append(pd.concat([pd.DataFrame([facts] * len(rows)), rows], axis=1))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*KEYS, "status", "run"])
    return with_looks(with_surrogates(table), looks)


def write_tables(table: pd.DataFrame, folder: Path) -> None:
    """table.csv as it is, and table.csv.gz with 6 digits: small enough to share, enough to judge every claim again."""
    table.to_csv(folder / "table.csv", index=False)
    packed = {"method": "gzip", "mtime": 0}  # the same table makes the same file
    table.to_csv(folder / "table.csv.gz", index=False, float_format="%.6g", compression=packed)


def run_table(runs: Sequence[Run], study: Path) -> pd.DataFrame:
    """One row per run: what it was, how it ended and why, how long it took, where it is."""
    return pd.DataFrame(
        [
            {
                **_facts(run),
                "status": run.status,
                "reason": run.message,
                "seconds": run.seconds,
                "config_hash": run.hash,
                "run": _relative_path(run, study),
            }
            for run in runs
        ]
    )


def _facts(run: Run) -> dict[str, Any]:
    config, factors, task = run.config, run.condition.factors, run.config.make_task()
    sharpness = config.measurements.get("sharpness")
    known = {
        "condition": run.condition.label,
        "rule": str(factors.get("rule", config.rule.name)),
        "alpha": config.neuron.options.get("alpha"),
        "task": config.task.name,
        REUSES: task.clean_gap is not True,
        PASSES: config.rule.make().forward_passes,
        **({BLOCK: str(sharpness["block"])} if sharpness else {}),
        "seed": run.seed,
    }
    others = {axis: value for axis, value in factors.items() if axis not in ("rule", "task", "neuron.alpha")}
    return {**known, **others, **run.tuned}


def _apart(runs: Sequence[Run]) -> list[str]:
    """The axes along which rules are not compared, beside task and alpha: all others, where there are several rules."""
    values: dict[str, set[str]] = {}
    for run in runs:
        for axis, value in run.condition.factors.items():
            values.setdefault(axis, set()).add(str(value))
    varied = [axis for axis, found in values.items() if len(found) > 1]
    return [axis for axis in varied if axis not in ("rule", "neuron.alpha")] if "rule" in varied else []


def _where(run: Run, apart: Sequence[str]) -> str:
    """Where a run is on these axes, in words; nothing of a task that goes by its own name."""
    shown = {axis: str(run.condition.factors[axis]) for axis in apart}
    named = (value if axis in ("task", "neuron") else f"{axis}={value}" for axis, value in shown.items())
    return ", ".join(value for value in named if value != run.config.task.name)


def _relative_path(run: Run, study: Path) -> str:
    return "" if run.folder is None else str(run.folder.path.relative_to(study))
