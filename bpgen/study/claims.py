"""Verdicts on the claims in words and numbers: a study's table of claims, and one of several studies side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bpgen.study import liu2022, matched
from bpgen.study.markdown import markdown
from bpgen.study.sensitivity import ELSEWHERE, elsewhere
from bpgen.study.study import Done
from bpgen.study.verdicts import Check, Verdict, judge


def claims_section(done: Done) -> list[str]:
    """Judge the claims of Liu et al. 2022: lines of the report; verdicts.csv is written into the study's folder."""
    verdicts = judge(liu2022.checks(done.table))
    pd.DataFrame([_verdict_row(v) for v in verdicts]).to_csv(done.folder / "verdicts.csv", index=False)
    return _verdicts(verdicts, done) + _elsewhere(verdicts, done)


def overview(done: Sequence[Done], file: Path) -> str:
    """Every claim in every setting of several studies, side by side: written to a file, and returned."""
    verdicts = [v for one in done if not matched.finished(one.table).empty for v in judge(liu2022.checks(one.table))]
    settings = list(dict.fromkeys(v.check.setting for v in verdicts))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for v in sorted(verdicts, key=lambda v: v.check.claim):
        row = cells.setdefault((f"({v.check.claim})", _statement(v.check)), {})
        row[v.check.setting] = _in_short(v)
    rows = [(*statement, *(row.get(s, "") for s in settings)) for statement, row in cells.items()]
    text = "\n".join(["# All claims, all settings", "", markdown(("claim", "statement", *settings), rows), ""])
    file.write_text(text, encoding="utf-8")
    return f"{text}\noverview  {file}"


def _verdicts(verdicts: Sequence[Verdict], done: Done) -> list[str]:
    header = (
        "claim",
        "setting",
        "statement",
        "verdict",
        "effect",
        "95 % interval",
        "n",
        "of interest",
        "p for, against",
    )
    rows = []
    for v in verdicts:
        c, e = v.check, v.check.effect
        outcome = v.outcome + (f" (about {v.more_seeds} more seeds)" if v.more_seeds else "")
        low, high = e.interval()
        shown = (_number(c, e.estimate), f"{_number(c, low, False)} to {_number(c, high, False)}")
        p = f"{v.p_support:.2g}, {v.p_refute:.2g}"
        text = c.text + (f" [{e.note}]" if e.note else "")
        rows.append((f"({c.claim})", c.setting, text, outcome, *shown, _n(v), _interest(c), p))
    return [
        "## Claims",
        "",
        markdown(header, rows),
        "",
        "Supported: the data exclude the statement's negation; not supported: they exclude the statement, given the "
        "smallest effect of interest; undecided: neither. One-sided tests over seeds at 2.5 %, after Holm over the "
        "checks of a claim in a setting (`bpgen.study.verdicts`). Ratios are of curvatures or spreads. More seeds: how "
        "many would decide with 80 % probability if the present estimate were the truth; a rough guide.",
        "",
        f"{_curvature_of(done)} The bounds 2/η and 2/(ηρ) are those of plain gradient descent and of all weights; the "
        "curvature of a block such as W_rec is at most that of all weights: above its bound it is a violation, "
        "below it is only compatible with the theorem.",
        "",
    ]


def _curvature_of(done: Done) -> str:
    """Of which weights, on how many samples."""
    settings = {(str(r.config["sharpness"]["block"]), str(r.config["sharpness"]["samples"])) for r in done.runs}
    of = " or ".join(f"{block.replace('all', 'all weights')} on {n} training samples" for block, n in sorted(settings))
    return f"λ_max is the largest eigenvalue of the Hessian of the true loss for {of}."


def _elsewhere(verdicts: Sequence[Verdict], done: Done) -> list[str]:
    rows = []
    for one, *others in elsewhere(verdicts, done.table):
        c = one.check
        rows.append((f"({c.claim})", c.setting, _statement(c), one.outcome, *map(_in_short, others)))
    if not rows:
        return []
    return [
        "## Would the verdicts be others, had the rules been matched at another loss?",
        "",
        markdown(("claim", "setting", "statement", "verdict", *ELSEWHERE), rows),
        "",
        "Above, losses are matched at the lowest that 80 % of the runs of each rule reach. Half way there: in log "
        "loss, from the start of training. Where all get: the lowest that every run of each rule reaches.",
        "",
    ]


def _statement(check: Check) -> str:
    """Without the loss at which it was looked at."""
    return check.text.split(", at training loss")[0]


def _in_short(v: Verdict) -> str:
    return f"{v.outcome}: {_number(v.check, v.check.effect.estimate)}, n = {_n(v)}"


def _n(v: Verdict) -> str:
    effect = v.check.effect
    return f"{effect.n}" if effect.n == effect.planned else f"{effect.n} of {effect.planned}"


def _number(check: Check, value: float, unit: bool = True) -> str:
    if not math.isfinite(value):
        return "?"
    shown = check.shown(value)
    text = f"{shown:+.2f}" if check.unit in ("points", "r") else f"{shown:.3g}"
    if not unit:
        return text
    return {"points": f"{text} points", "ratio": f"x {text}", "r": f"r = {text}"}.get(
        check.unit, f"{text} {check.unit}"
    )


def _interest(check: Check) -> str:
    sign = {"larger": "≥", "at most": "<", "same": "within"}[check.kind]
    return f"{sign} {_number(check, check.smallest)}"


def _verdict_row(v: Verdict) -> dict[str, object]:
    c, e = v.check, v.check.effect
    low, high = e.interval()
    bca = e.bca or (math.nan, math.nan)
    return {
        **{"claim": c.claim, "setting": c.setting, "statement": c.text, "verdict": v.outcome, "unit": c.unit},
        **{"effect": c.shown(e.estimate), "low": c.shown(low), "high": c.shown(high)},
        **{"bca_low": c.shown(bca[0]), "bca_high": c.shown(bca[1]), "n": e.n, "planned": e.planned},
        **{"kind": c.kind, "smallest_of_interest": c.shown(c.smallest)},
        **{"p_support_holm": v.p_support, "p_refute_holm": v.p_refute},
        **{"p_permutation": e.p_permutation, "p_wilcoxon": e.p_wilcoxon},
        **{"more_seeds": v.more_seeds, "note": e.note, "figure": c.figure},
    }
