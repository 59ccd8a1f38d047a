"""Verdicts as rows of verdicts.csv, and those of several studies side by side, from these files alone.

One table in short, of the checks that a paper puts first (`Paper.headlines`), and one of all checks. A setting whose
file has fewer columns is of version 0.1, and marked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from scipy import special

from bpgen.analysis.markdown import markdown_table
from bpgen.analysis.synthesis import FEWEST, Synthesis, random_effects
from bpgen.analysis.verdicts import Verdict
from bpgen.columns import written
from bpgen.errors import BpgenError
from bpgen.papers.base import Paper

FILE = "verdicts.csv"
OLD, NORMAL = "†", "‡"  # behind settings of version 0.1, and verdicts of so few seeds that they assume normality
_SINCE = "family"  # a column that came with the present ones
_WORDS = {"supported": "**yes**", "not supported": "**no**", "undecided": "**?**", "n/a": "not defined"}
_NAMES = {"seqmnist": "MNIST", "alpha": "α", "_": " "}
_NOTES = {
    OLD: f"{OLD} Version 0.1, whose table of runs was not kept: matched and tested as then, by Student's tests alone. "
    "Only what can never be a verdict was taken back (n/a, described, not testable); ratios are judged at × 1.1.",
    NORMAL: f"{NORMAL} assumes normality: with so few seeds flips of signs could not agree.",
}
_SYNTHESIS = """\
Random-effects means over settings (restricted maximum likelihood, intervals of Hartung and Knapp), the interval in \
which the effect of one more setting is expected, and I², the share of the variation between settings that is not \
error. Settings of one task share seeds and test items, and count as independent here."""


def write_verdicts(verdicts: Sequence[Verdict], folder: Path, elsewhere: Mapping[int, str]) -> None:
    """verdicts.csv: a row per check.

    Args:
        verdicts: in the order of the checks.
        folder: where.
        elsewhere: by place, at how many other matched losses the verdict is the same.
    """
    rows = [{**_row(v), "same_elsewhere": elsewhere.get(i, "")} for i, v in enumerate(verdicts)]
    pd.DataFrame(rows).to_csv(folder / FILE, index=False)


def overview(paper: Paper, folders: Sequence[Path]) -> str:
    """The claims in short, and all of them, in all settings of some studies.

    Raises:
        BpgenError: a folder without verdicts.
    """
    columns = [column for folder in folders for column in _settings(folder)]
    parts = ["# All claims, all settings", ""]
    if paper.headlines:
        parts += [in_short(paper, columns), ""]
    whole = "\n".join([*parts, _all(columns), "", *_together(columns)])
    notes = [note for mark, note in _NOTES.items() if mark in whole]
    return "\n\n".join([whole.rstrip("\n"), *notes]) + "\n"


_Column = tuple[str, pd.DataFrame]  # heading, and the rows of verdicts.csv by statement


def _settings(folder: Path) -> list[_Column]:
    file = folder / FILE
    try:
        rows = pd.read_csv(file, keep_default_na=False, na_values=[""])  # "n/a" is a verdict
    except (OSError, ValueError) as error:
        raise BpgenError(f"cannot read {file}: {error}. Name folders that `bpgen reproduce` wrote.") from None
    rows["check"] = rows["statement"].str.split(", at training loss").str[0]
    old = "" if _SINCE in rows else f" {OLD}"
    parts = rows.groupby("setting", sort=False)
    return [(f"{setting}, n = {part['planned'].max()}{old}", part.set_index("check")) for setting, part in parts]


def in_short(paper: Paper, columns: Sequence[_Column]) -> str:
    """A row per headline; a cell holds the verdict, the effect and in brackets the seeds analysed, of each check."""
    header = ["claim", *(_heading(heading) for heading, _ in columns)]
    rows = [
        [text, *(_cell(part, statements) for _, part in columns)]
        for text, statements in paper.headlines.items()
        if any(s in part.index for _, part in columns for s in statements)
    ]
    return markdown_table(header, rows)


def _heading(setting: str) -> str:
    for name, shown in _NAMES.items():
        setting = setting.replace(name, shown)
    return setting.replace("α=", "α = ")


def _cell(part: pd.DataFrame, statements: Sequence[str]) -> str:
    if not any(s in part.index for s in statements):
        return "not run"
    return "; ".join(_briefly(part.loc[s]) if s in part.index else "not run" for s in statements)


def _briefly(row: pd.Series) -> str:
    said = _WORDS.get(row["verdict"], row["verdict"])
    if row["verdict"] == "n/a":
        return said
    e, unit = float(row["effect"]), row["unit"]
    if not math.isfinite(e):
        return f"{said} ({row['n']})"
    e = 0.0 if unit == "points" and abs(e) < 0.05 else e  # and not a minus without a number
    text = {"points": f"{e:+.1f} points", "ratio": f"× {_two_digits(e)}", "r": f"r = {e:.2f}"}
    shown = text.get(unit, f"{unit} {e:+.2g}").replace("-", "−")
    assumed = NORMAL if row.get("remark") == "assumes normality" else ""
    return f"{said}{assumed} {shown} ({row['n']})"


def _two_digits(e: float) -> str:
    return f"{e:.2f}" if 0.95 <= e < 1.995 else f"{e:#.2g}" if e < 9.95 else f"{e:.0f}"


def _all(columns: Sequence[_Column]) -> str:
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for i, (_, part) in enumerate(columns):
        for check, row in part.iterrows():
            rows.setdefault((f"({row['claim']})", str(check)), {})[i] = _whole(row)
    by_claim = sorted(rows.items(), key=lambda item: item[0][0])
    cells = [(*key, *(row.get(i, "") for i in range(len(columns)))) for key, row in by_claim]
    return markdown_table(("claim", "statement", *(heading for heading, _ in columns)), cells)


def _whole(row: pd.Series) -> str:
    if row["verdict"] == "n/a":
        return "n/a"
    n = f"{row['n']}" if row["n"] == row["planned"] else f"{row['n']} of {row['planned']}"
    assumed = NORMAL if row.get("remark") == "assumes normality" else ""
    return f"{row['verdict']}{assumed}: {number(str(row['unit']), float(row['effect']))}, n = {n}"


def _together(columns: Sequence[_Column]) -> list[str]:
    """The random-effects mean of every check that was judged in three settings or more, in one unit."""
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for _, part in columns:
        for check, row in part[part["kind"] != "description"].iterrows():
            effect = _on_its_scale(row)
            if effect is not None:
                found.setdefault((f"({row['claim']})", str(check), str(row["unit"])), []).append(effect)
    rows = []
    for (claim, check, unit), effects in sorted(found.items(), key=lambda item: item[0][0]):
        if len(effects) >= FEWEST:
            s = random_effects([e for e, _ in effects], [se for _, se in effects])
            mean, low, high, below, above = (number(unit, _shown(unit, v), named) for v, named in _ends(s))
            cells = (mean, f"{low} to {high}", f"{below} to {above}", f"{s.i2:.0%}", str(s.k))
            rows.append((claim, check, *cells))
    header = ("claim", "statement", "mean", "95 % interval", "of one more setting", "I²", "settings")
    return ["## Over settings", "", markdown_table(header, rows), "", _SYNTHESIS] if rows else []


def _ends(s: Synthesis) -> list[tuple[float, bool]]:
    return [(s.mean, True), (s.low, False), (s.high, False), (s.next_low, False), (s.next_high, False)]


def _on_its_scale(row: pd.Series) -> tuple[float, float] | None:
    """Effect and standard error as they were estimated, from Student's interval; None where there is none."""
    values = [float(row[c]) for c in ("effect", "low", "high")]
    if row["n"] < 2 or not all(math.isfinite(v) for v in values):
        return None
    if row["unit"] == "ratio":
        if min(values) <= 0:
            return None
        values = [math.log(v) for v in values]
    elif row["unit"] == "r":
        values = [math.atanh(min(max(v, -0.999999), 0.999999)) for v in values]
    se = (values[2] - values[1]) / 2 / float(special.stdtrit(row["n"] - 1, 0.975))
    return (values[0], se) if se > 0 else None


def _shown(unit: str, value: float) -> float:
    if unit == "ratio":
        return math.exp(value) if value < 700 else math.inf
    return math.tanh(value) if unit == "r" else value


def number(unit: str, shown: float, named: bool = True) -> str:
    """An effect in its unit, with the unit's name or without."""
    if math.isnan(shown):
        return "?"
    text = written("{:+.2f}" if unit in ("points", "r") else "{:.3g}", shown)
    if not named:
        return text
    words = {"points": f"{text} points", "ratio": f"x {text}", "r": f"r = {text}"}
    return words.get(unit, f"{text} {unit}")


def _row(v: Verdict) -> dict[str, object]:
    c, e = v.check, v.check.effect
    low, high = e.interval()
    bca = e.bca or (math.nan, math.nan)
    return {
        **{"claim": c.claim, "setting": c.setting, "statement": c.text, "verdict": v.decision, "unit": c.unit},
        **{"effect": c.shown(e.estimate), "low": c.shown(low), "high": c.shown(high)},
        **{"low_of_verdict": c.shown(v.bounds[0]), "high_of_verdict": c.shown(v.bounds[1])},
        **{"trimmed_mean": c.shown(e.trimmed_mean), "family": v.family, "remark": v.remark or c.untestable},
        **{"bca_low": c.shown(bca[0]), "bca_high": c.shown(bca[1]), "n": e.n, "planned": e.planned},
        **{"kind": c.kind, "smallest_of_interest": c.shown(c.smallest)},
        **{"p_support_holm": v.p_support, "p_refute_holm": v.p_refute},
        **{"p_permutation": e.p_permutation, "p_wilcoxon": e.p_wilcoxon},
        **{"power": v.power, "more_seeds": v.more_seeds, "note": e.note, "figure": c.figure},
    }
