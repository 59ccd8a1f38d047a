"""The runs of a section as rows: in which order, which belong together, and how a legend calls them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bpgen.study.catalogue import ENDED, RunEntry, StudyEntry

SHOWN = {  # numbers of the table of runs: column of metrics.csv, heading, factor
    "step": ("step", 1),
    "train/loss": ("train loss", 1),
    "test/accuracy": ("test (%)", 100),
    "test/loss": ("test loss", 1),
    "gap_noisy/accuracy": ("gap, noisy (points)", 100),
    "gap_noisy/loss": ("gap, noisy (loss)", 1),
    "sharpness/lambda_max": ("λ_max", 1),
    "sharpness/surrogate/lambda_max": ("λ_max, surrogate", 1),
    "alignment/cosine": ("cosine", 1),
}
INSTEAD = {"test/loss": "test/accuracy", "gap_noisy/loss": "gap_noisy/accuracy"}  # left out where this is there


@dataclass(frozen=True)
class Row:
    """A run in the table: its number in the page, what it is, how it stands, what it measured last.

    label: what the legend calls its condition. style: that name's number.
    """

    number: int
    entry: RunEntry
    facts: Mapping[str, Any]
    numbers: Mapping[str, float]
    options: Mapping[str, Any]
    label: str
    style: int

    @property
    def name(self) -> str:
        """What hovering a point says first."""
        seed = "" if self.facts["seed"] is None else f", seed {self.facts['seed']}"
        return f"{self.facts['condition']}{seed}"

    @property
    def command(self) -> str:
        """What runs it again."""
        return f"bpgen fit --config {shlex.quote(str(self.entry.path / 'config.yaml'))}"

    @property
    def seconds(self) -> float:
        """How long it took."""
        seconds = self.entry.summary.get("seconds")
        return float(seconds.get("total", math.nan)) if isinstance(seconds, Mapping) else math.nan


def in_order(study: StudyEntry | None, runs: list[RunEntry]) -> list[RunEntry]:
    """In the order of the plan, the reference first; seeds rising."""
    if study is None:
        return runs
    planned = list(dict.fromkeys(row.get("condition", "") for row in study.planned))
    axes = study.plan.get("axes")
    values = axes.get("rule", []) if isinstance(axes, Mapping) else []
    rules = [str(v.get("label") or v.get("name")) if isinstance(v, Mapping) else str(v) for v in values]

    def place(run: RunEntry) -> tuple[Any, ...]:
        facts = run.facts
        at = planned.index(facts["condition"]) if facts["condition"] in planned else len(planned)
        rule = rules.index(facts["rule"]) if facts["rule"] in rules else len(rules)
        return (at, rule, str(facts["condition"]), facts["seed"] if isinstance(facts["seed"], int) else 0)

    return sorted(runs, key=place)


def told_apart(table: pd.DataFrame, loose: bool) -> pd.DataFrame:
    """Runs of no study that share rule, task and alpha but not their options get these into their condition."""
    if not loose or table.empty:
        return table
    options = [c for c in table if "." in c and "/" not in c and not c.endswith((".name", ".seed", ".data_dir"))]
    for _, own in table.groupby(["rule", "task", "alpha"], dropna=False, sort=False):
        varied = [c for c in options if c != "neuron.alpha" and own[c].nunique(dropna=False) > 1][:4]
        for i, row in own.iterrows():
            parts = [str(row["rule"]), *(f"{c.split('.')[-1]}={_plain(row[c])}" for c in varied)]
            table.loc[i, "condition"] = ", ".join(parts)
    return table


def _plain(value: Any) -> str:
    return "none" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)


def once(table: pd.DataFrame, rows: Sequence[Row]) -> tuple[pd.DataFrame, int]:
    """Rows of one run for each condition, setting and seed, and how many runs were left out."""
    last: dict[Any, str] = {}
    for row in rows:
        key = tuple(row.facts[name] for name in ("condition", "task", "alpha", "seed"))
        if key not in last or row.entry.status in ENDED:
            last[key] = str(row.entry.path)
    if table.empty:
        return table, len(rows) - len(last)
    kept = table[table["run"].isin(last.values())]
    conditions = {str(row.entry.path): row.facts["condition"] for row in rows}
    return kept.assign(condition=kept["run"].map(conditions)), len(rows) - len(last)


def row_of(number: int, run: RunEntry, known: pd.Series, labels: Mapping[str, str]) -> Row:
    """A run with what the table knows of it; `labels` are those of its section (`labels_of`)."""
    numbers = {name: float(known[name]) for name in SHOWN if name in known and pd.notna(known[name])}
    facts = {**run.facts, "condition": known["condition"]}
    label = labels[known["condition"]]
    style = list(dict.fromkeys(labels.values())).index(label)
    return Row(number, run, facts, numbers, _changed(run.config), label, style)


def labels_of(table: pd.DataFrame) -> dict[str, str]:
    """What each condition is called in a chart of its setting: its rule, where that tells it apart there."""
    conditions = table.groupby(["task", "alpha"], dropna=False)["condition"].nunique()
    rules = table.groupby(["task", "alpha"], dropna=False)["rule"].nunique()
    name = "rule" if conditions.equals(rules) else "condition"
    return {str(c): str(own[name].iloc[0]) for c, own in table.groupby("condition", sort=False)}


def _changed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rule, task and neuron with their options: what the details of a run show."""
    return {part: config[part] for part in ("rule", "task", "neuron", "network", "optimizer") if part in config}
