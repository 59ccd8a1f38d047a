"""What a study found, for the terminal and as summary.md in its folder: commands, seeds, verdicts, spread, failures."""

from __future__ import annotations

import math
from collections import Counter

import pandas as pd

from bpgen import __version__
from bpgen.study import liu2022, matched
from bpgen.study import statistics as st
from bpgen.study.claims import claims_section
from bpgen.study.figures import study_figures
from bpgen.study.markdown import markdown
from bpgen.study.runs import ENDED
from bpgen.study.study import Done


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
        parts += claims_section(done) if claims else []
        parts += _rules(done.table) + _differences(done.table) + _edges(done.table) + _correlations(done)
        parts += _draw(done)
    parts += _tuned(done) + _unfinished(done)
    text = "\n".join(parts)
    (done.folder / "summary.md").write_text(text + "\n", encoding="utf-8")
    return text + f"\n\ntable     {done.folder / 'table.csv'}\nsummary   {done.folder / 'summary.md'}"


def _fate(done: Done) -> str:
    count = Counter(run.status for run in done.runs)
    skipped = sum(run.skipped for run in done.runs)
    parts = [f"{count[s]} {s}" for s in (*ENDED, "interrupted", "failed") if count[s]]
    return f"{len(done.runs)} runs: {', '.join(parts)}; {skipped} of them done by an earlier call."


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
            cells += [f"x {math.exp(ratio.estimate):.3g} ({low:.3g} to {high:.3g})" if ratio.n else "not measured"]
            p = [f"{difference.p_permutation:.2g}, {ratio.p_permutation:.2g}"]
            n = f"{difference.n} of {difference.planned}"
            rows.append((f"{condition} - {conditions[0]}", *cells, *p, n, difference.note))
    header = ("comparison", "loss", "gap, noisy test inputs", "λ_max", "permutation p (gap, λ)", "n", "note")
    title = "## At matched training loss, paired by seed (mean, 95 % interval over seeds)"
    return [title, "", markdown(header, rows), ""] if rows else []


_EDGES = {  # curvature over the bound where it may settle
    "λ_max ÷ 2/η": lambda t: t["stability/edge"],
    "λ_max ÷ 2/(ηρ)": lambda t: t["stability/edge"] * t["stability/rho"],
    "λ_max ÷ 2/(ηρ_1)": lambda t: t["stability/edge_rho"],
    "size of μ_1 ÷ 2/η": lambda t: t["stability/mu_abs"] * t["lr"] / 2,
}


def _edges(table: pd.DataFrame) -> list[str]:
    """Where stability was measured: the curvature of all weights as a multiple of every bound."""
    table = matched.finished(table)
    if "stability/edge" not in table or table["stability/edge"].isna().all():
        return []
    rows = []
    for condition, part in table.groupby("condition", sort=False):
        late = part[part["step"] >= part.groupby("seed")["step"].transform("max") / 2]
        cells = []
        for ratio in _EDGES.values():
            medians = ratio(late).groupby(late["seed"]).median()
            effect = st.from_values({int(seed): math.log(v) for seed, v in medians.items() if v > 0}, len(medians))
            low, high = (math.exp(min(v, 50)) for v in effect.interval())
            fewer = "" if effect.n == effect.planned else f", {effect.n} seeds"  # the others' is not positive
            cells.append(f"{math.exp(effect.estimate):.3g} ({low:.3g} to {high:.3g}{fewer})")
        rows.append((str(condition), str(part["seed"].nunique()), *cells))
    return [
        "## Edge of stability: curvature of all weights over its bounds, second half of training",
        "",
        markdown(("condition", "n", *_EDGES), rows),
        "",
        "Medians over evaluations; geometric means and 95 % intervals over seeds; 1 is where the bound stands. ρ_1 is "
        "that of the top eigenvector; μ_1 the leading eigenvalue of the rule's own Jacobian (`bpgen.stability`).",
        "",
    ]


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
