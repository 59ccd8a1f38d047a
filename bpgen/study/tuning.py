"""Which candidate of its nuisance parameters a condition gets: the best on validation data, over seeds.

A candidate is out if any of its runs did not finish, and so is every larger learning rate than one that diverged: what
is stable at 0.3 although it is not at 0.03 (BPTT in delayed match to sample, both tuning seeds) is luck, and was seen
to end with other seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from bpgen.study.plan import Condition, Tuning
from bpgen.study.runs import Run

RATE = "optimizer.lr"
_Values = dict[str, Any]


def choose(
    conditions: Sequence[Condition], tune: Tuning, runs: Sequence[Run]
) -> tuple[dict[str, _Values], pd.DataFrame]:
    """The best candidate by condition, and a table of all candidates of all conditions.

    In the table `why` says why a candidate is out, and `edge` marks a choice at the end of an axis, beyond which a
    better value may lie.
    """
    chosen: dict[str, _Values] = {}
    rows: list[_Values] = []
    for condition in conditions:
        tried: dict[str, list[Run]] = {}
        for run in runs:
            if run.condition.label == condition.label:
                tried.setdefault(json.dumps(run.tuned), []).append(run)
        scores = {key: _score(own, tune.metric) for key, own in tried.items()}
        out = {key: _why_out(own, list(tried.values())) for key, own in tried.items()}
        left = [key for key in tried if not out[key] and math.isfinite(scores[key])]
        best = min(left, key=lambda key: scores[key]) if left else None
        if best is not None:
            chosen[condition.label] = json.loads(best)
        for key, own in tried.items():
            row = {"condition": condition.label, **own[0].tuned, "seeds": len(own), tune.metric: scores[key]}
            edge = ", ".join(_edges(own[0].tuned, tune)) if key == best else ""
            rows.append({**row, "chosen": key == best, "edge": edge, "why": out[key]})
    return chosen, pd.DataFrame(rows)


def _score(runs: Sequence[Run], metric: str) -> float:
    """The mean over seeds of a metric at the last evaluation; infinite unless all runs finished with a number."""
    values = []
    for run in runs:
        done = run.status == "finished" and run.folder is not None
        values.append(run.folder.rows()[-1].get(metric, math.nan) if done and run.folder else math.nan)
    mean = sum(values) / len(values)
    return mean if math.isfinite(mean) else math.inf


def _why_out(own: Sequence[Run], all_tried: Sequence[Sequence[Run]]) -> str:
    fate = next((run.status for run in own if run.status != "finished"), "")
    if fate:
        return fate
    limit = _unstable_from(own[0].tuned, all_tried)
    return f"above {limit:g}, which diverged" if limit is not None else ""


def _unstable_from(tuned: _Values, all_tried: Sequence[Sequence[Run]]) -> float | None:
    """The smallest learning rate below this one that diverged with all else equal."""
    if RATE not in tuned:
        return None
    others = {key: value for key, value in tuned.items() if key != RATE}
    smaller = [
        float(run.tuned[RATE])
        for runs in all_tried
        for run in runs
        if run.status == "diverged"
        and run.tuned[RATE] < tuned[RATE]
        and {key: value for key, value in run.tuned.items() if key != RATE} == others
    ]
    return min(smaller, default=None)


def _edges(tuned: _Values, tune: Tuning) -> list[str]:
    return [
        axis
        for axis, value in tuned.items()
        if len(tune.axes[axis]) > 1 and value in (tune.axes[axis][0], tune.axes[axis][-1])
    ]
