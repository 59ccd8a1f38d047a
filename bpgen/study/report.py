"""What a study found, for the terminal and as summary.md in its folder: commands, seeds, verdicts, spread, failures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from bpgen import __version__
from bpgen.study import liu2022, matched
from bpgen.study import statistics as st
from bpgen.study.figures import study_figures
from bpgen.study.runs import ENDED
from bpgen.study.sensitivity import ELSEWHERE, elsewhere
from bpgen.study.study import Done
from bpgen.study.verdicts import Check, Verdict, judge

Rows = Sequence[Sequence[str]]


def report_study(done: Done, command: str, claims: bool = False) -> str:
    """Draw the figures, write summary.md, and return the text that says what was found.

    Args:
        done: the study with its runs.
        command: as the user typed it.
        claims: judge the claims of Liu et al. 2022.
    """
    parts = [f"# {done.plan.name}", "", *([done.plan.question, ""] if done.plan.question else [])]
    parts += [f"`{command}` (bpgen {__version__}), seeds {', '.join(map(str, done.plan.seeds))}", "", _fate(done), ""]
    if not matched.finished(done.table).empty:
        verdicts = judge(liu2022.checks(done.table)) if claims else []
        if claims:
            parts += _verdicts(verdicts, done)
            pd.DataFrame([_verdict_row(v) for v in verdicts]).to_csv(done.folder / "verdicts.csv", index=False)
            parts += _elsewhere(verdicts, done)
        parts += _rules(done.table) + _differences(done.table) + _correlations(done)
        parts += _draw(done)
    parts += _tuned(done) + _unfinished(done)
    text = "\n".join(parts)
    (done.folder / "summary.md").write_text(text + "\n", encoding="utf-8")
    return text + f"\n\ntable     {done.folder / 'table.csv'}\nsummary   {done.folder / 'summary.md'}"


def markdown(header: Sequence[str], rows: Rows) -> str:
    """A table in Markdown with aligned columns, readable as it is."""
    cells = [list(header), *[[str(c).replace("|", "/") for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def _fate(done: Done) -> str:
    count = Counter(run.status for run in done.runs)
    skipped = sum(run.skipped for run in done.runs)
    parts = [f"{count[s]} {s}" for s in (*ENDED, "interrupted", "failed") if count[s]]
    return f"{len(done.runs)} runs: {', '.join(parts)}; {skipped} of them done by an earlier call."


def _curvature_of(done: Done) -> str:
    """Of which weights, on how many samples."""
    settings = {(str(r.config["sharpness"]["block"]), str(r.config["sharpness"]["samples"])) for r in done.runs}
    of = " or ".join(f"{block.replace('all', 'all weights')} on {n} training samples" for block, n in sorted(settings))
    return f"λ_max is the largest eigenvalue of the Hessian of the true loss for {of}."


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
        n = f"{e.n}" if e.n == e.planned else f"{e.n} of {e.planned}"
        p = f"{v.p_support:.2g}, {v.p_refute:.2g}"
        text = c.text + (f" [{e.note}]" if e.note else "")
        rows.append((f"({c.claim})", c.setting, text, outcome, *shown, n, _interest(c), p))
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


def _elsewhere(verdicts: Sequence[Verdict], done: Done) -> list[str]:
    rows = []
    for one, *others in elsewhere(verdicts, done.table):
        c = one.check
        cells = [f"{v.outcome}: {_number(v.check, v.check.effect.estimate)}, n = {v.check.effect.n}" for v in others]
        text = c.text.split(", at training loss")[0]
        rows.append((f"({c.claim})", c.setting, text, one.outcome, *cells))
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


_SHOWN = (
    ("training loss", matched.LOSS, "{:.3g}", 1),
    ("λ_max", "sharpness/lambda_max", "{:.3g}", 1),
    ("gap, noisy (points)", "gap_noisy/accuracy", "{:.1f}", 100),
    ("gap, clean (points)", "gap/accuracy", "{:.1f}", 100),
    ("noisy test - train loss", "gap_noisy/loss", "{:.3g}", 1),
    ("cosine", "alignment/cosine", "{:.2f}", 1),
    ("ρ", "alignment/rho", "{:.2f}", 1),
)


def _rules(table: pd.DataFrame) -> list[str]:
    """Means and standard deviations over seeds, at the end of training."""
    last = matched.finished(table).sort_values("step").groupby(["condition", "seed"], sort=False).tail(1)
    shown = [s for s in _SHOWN if s[1] in last and last[s[1]].notna().any()]
    rows = []
    for condition in dict.fromkeys(table["condition"]):
        own = last[last["condition"] == condition]
        cells = [
            f"{form.format(scale * own[c].mean())} ± {form.format(scale * own[c].std())}" for _, c, form, scale in shown
        ]
        rows.append((condition, str(own["seed"].nunique()), *cells))
    header = ("condition", "n", *(s[0] for s in shown))
    return ["## At the end of training (mean ± standard deviation over seeds)", "", markdown(header, rows), ""]


def _differences(table: pd.DataFrame) -> list[str]:
    """Every rule against the first of its setting, at the lowest training loss both reach."""
    rows = []
    for _, part in table.groupby(["task", "alpha"], sort=False, dropna=False):
        part = matched.finished(part)
        conditions = list(dict.fromkeys(part["condition"]))
        accurate = bool(conditions) and part["gap_noisy/accuracy"].notna().any()
        gap, scale, unit = ("gap_noisy/accuracy", 100, "points") if accurate else ("gap_noisy/loss", 1, "loss")
        for condition in conditions[1:]:
            pair = part[part["condition"].isin([conditions[0], condition])]
            level = matched.Level().of(pair)
            values = matched.at_loss(pair, level, [gap, "sharpness/lambda_max"])
            difference = st.paired(values, gap, condition, conditions[0])
            ratio = st.paired(values, "sharpness/lambda_max", condition, conditions[0], log=True)
            low, high = (scale * v for v in difference.interval())
            form = "{:+.2f} ({:+.2f} to {:+.2f}) " if accurate else "{:+.3g} ({:+.3g} to {:+.3g}) "
            cells = [f"{level:.3g}", form.format(scale * difference.estimate, low, high) + unit]
            low, high = (math.exp(min(v, 50)) for v in ratio.interval())
            cells += [f"x {math.exp(ratio.estimate):.3g} ({low:.3g} to {high:.3g})"]
            p = [f"{difference.p_permutation:.2g}, {ratio.p_permutation:.2g}"]
            n = f"{difference.n} of {difference.planned}"
            rows.append((f"{condition} - {conditions[0]}", *cells, *p, n, difference.note))
    header = ("comparison", "loss", "gap, noisy test inputs", "λ_max", "permutation p (gap, λ)", "n", "note")
    title = "## At matched training loss, paired by seed (mean, 95 % interval over seeds)"
    return [title, "", markdown(header, rows), ""] if rows else []


def _correlations(done: Done) -> list[str]:
    table = liu2022.correlations(done.table)
    if table.empty or table["n seeds"].max() < 4:
        return []
    table.to_csv(done.folder / "correlations.csv", index=False)
    rows = [
        (
            str(r["setting"]),
            str(r["at"]),
            str(r["runs"]),
            *(f"{r[f'{k} r']:.2f} ({r[f'{k} low']:.2f} to {r[f'{k} high']:.2f})" for k in ("Pearson", "Spearman")),
            str(r["n seeds"]),
        )
        for _, r in table.iterrows()
    ]
    header = ("setting", "at", "runs", "Pearson r", "Spearman r", "n seeds")
    return ["## Gap (noisy test inputs) against log sharpness", "", markdown(header, rows), ""]


def _draw(done: Done) -> list[str]:
    folder = done.folder / "figures"
    folder.mkdir(exist_ok=True)
    lines = ["## Figures", ""]
    for name, figure in study_figures(done.table).items():
        figure.savefig(folder / f"{name}.png")
        lines.append(f"![{name.replace('_', ' ')}](figures/{name}.png)")
    return [*lines, ""]


def _tuned(done: Done) -> list[str]:
    if not done.tuning:
        return []
    chosen = {run.condition.label: run.tuned for run in done.runs if run.tuned}
    lines = [f"- {label}: {', '.join(f'{k} {v}' for k, v in values.items())}" for label, values in chosen.items()]
    return ["## Tuned on validation data (all candidates: tuning.csv)", "", *lines, ""]


def _unfinished(done: Done) -> list[str]:
    unfinished = [run for run in (*done.tuning, *done.runs) if run.status != "finished"]
    lines = [f"- {r.name}: {r.status}: {r.message.removeprefix(f'{r.status}: ')}" for r in unfinished]
    return ["## Runs that did not finish", "", *lines, ""] if lines else []
