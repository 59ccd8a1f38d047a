"""Which charts a section has, setting by setting: gap against sharpness, gap by condition, curves in time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from bpgen.analysis.matching import LOSS
from bpgen.analysis.settings import SHARPNESS, Setting, settings
from bpgen.report.charts import Axis, Chart, Drawing, Line, Point, interval_bar

if TYPE_CHECKING:
    from bpgen.report.rows import Row

_STEPS = "training step"
_CURVES = (
    (SHARPNESS, "Sharpness along training", "λ_max (loss per weight²)", True),
    ("sharpness/surrogate/lambda_max", "Sharpness of the surrogate network", "λ_max (loss per weight²)", True),
    (LOSS, "Training loss", "training loss", True),
    ("test/accuracy", "Test accuracy", "accuracy (%)", False),
    ("alignment/cosine", "Alignment with BPTT", "cosine with the true gradient", False),
)


def charts(table: pd.DataFrame, rows: Sequence[Row]) -> list[tuple[str, list[Drawing]]]:
    """The charts of every setting, those with something to see."""
    by_path = {str(row.entry.path): row for row in rows}
    found = []
    for setting in settings(table) if len(table) else []:
        drawn = [chart.draw() for chart in _of_setting(setting, by_path) if not chart.empty]
        found.append((setting.name, drawn))
    return [(name, drawn) for name, drawn in found if drawn]


def _of_setting(setting: Setting, by_path: dict[str, Row]) -> Iterator[Chart]:
    measured = setting.finished[LOSS].notna() if LOSS in setting.finished else pd.Series(dtype=bool)
    if setting.finished.loc[measured.index[measured], "run"].nunique() > 1:
        yield from _matched(setting, by_path)
    for column, title, label, log in _CURVES:
        if column in setting.table and setting.table[column].notna().any():
            yield _curves(setting, by_path, (column, title, label, log))


def _matched(setting: Setting, by_path: dict[str, Row]) -> Iterator[Chart]:
    """Gap and sharpness of every finished run at the training loss that the conditions share."""
    values, gap = setting.matched(), setting.gap()
    accurate = setting.gap_unit == "accuracy"
    scale, unit = (100, "points of accuracy") if accurate else (1, "loss")
    paths = setting.finished.groupby(["condition", "seed"])["run"].first()
    at, missing = f"at training loss {values['level'].iloc[0]:.3g}", int((~values["reached"]).sum())
    note = at + (f"; {missing} runs never got there" if missing else "")
    scatter = Chart("Gap against sharpness", Axis("λ_max (loss per weight²)", log=True), Axis(f"gap, noisy ({unit})"))
    row_of = {row.facts["condition"]: row for row in by_path.values()}
    names = [row_of[condition].label for condition in setting.conditions]
    by_rule = Chart("Gap by condition", Axis("", names=names), Axis(f"gap, noisy ({unit})"))
    scatter.note, by_rule.note = note, f"{note}; bars: mean and 95 % interval"
    there = values[values["reached"]]
    for place, condition in enumerate(setting.conditions):
        own = there[there["condition"] == condition]
        gaps = [scale * float(v) for v in own[gap]] if gap in own else []
        style = row_of[condition].style
        for i, (record, y) in enumerate(zip(own.to_dict("records"), gaps, strict=False)):
            row = by_path[paths[condition, record["seed"]]]
            sharp = float(record[SHARPNESS])
            text = f"{row.name}: gap {y:+.3g}, λ_max {sharp:.3g} {at}"
            scatter.points.append(Point(row.number, style, sharp, y, text))
            beside = place - 0.12 + 0.24 * (i + 0.5) / max(1, len(gaps))
            by_rule.points.append(Point(row.number, style, beside, y, text))
        bar = interval_bar(style, place + 0.25, gaps)
        by_rule.bars += [] if bar is None else [bar]
    yield scatter
    yield by_rule


def _curves(setting: Setting, by_path: dict[str, Row], of: tuple[str, str, str, bool]) -> Chart:
    """One measure of every run along training; runs that have not finished are dashed."""
    column, title, label, log = of
    scale = 100 if column.endswith("accuracy") else 1
    chart = Chart(title, Axis(_STEPS), Axis(label, log=log))
    for path, own in setting.table.dropna(subset=[column]).groupby("run", sort=False):
        row = by_path[str(path)]
        own = own.sort_values("step")
        ys = (scale * own[column]).tolist()
        text = f"{row.name}: {_shown(ys[-1])} at step {int(own['step'].iloc[-1])}, {row.entry.status}"
        unfinished = row.entry.status != "finished"
        chart.lines.append(Line(row.number, row.style, own["step"].tolist(), ys, text, unfinished))
    n = setting.table.groupby("condition")["seed"].nunique()
    low, high = int(n.min()), int(n.max())
    chart.note = f"{low if low == high else f'{low} to {high}'} run{'s' * (high > 1)} a condition, a line each"
    return chart


def _shown(value: Any) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "nan"
