"""Sections of a study's report, each a function of its tidy table that returns lines of Markdown."""

from __future__ import annotations

import math

import pandas as pd

from bpgen.analysis.correlation import correlation
from bpgen.analysis.markdown import markdown_table
from bpgen.analysis.matching import ACCURACY, LOSS, finished, roughness
from bpgen.analysis.settings import LOG_LOSS, LOG_SHARPNESS, SHARPNESS, Setting, by_rule, settings
from bpgen.analysis.statistics import mean_effect, paired
from bpgen.columns import written
from bpgen.study.conclusions import few_pairs

_SHOWN = (
    ("training loss", LOSS, "{:.3g}", 1),
    ("λ_max", SHARPNESS, "{:.3g}", 1),
    ("gap, noisy (points)", "gap_noisy/accuracy", "{:.1f}", 100),
    ("gap, clean (points)", "gap/accuracy", "{:.1f}", 100),
    ("noisy test - train loss", "gap_noisy/loss", "{:.3g}", 1),
    ("cosine", "alignment/cosine", "{:.2f}", 1),
    ("cosine, W_rec", "alignment/cosine/W_rec", "{:.2f}", 1),
    ("ρ", "alignment/rho", "{:.2f}", 1),
    ("ρ, W_rec", "alignment/rho/W_rec", "{:.2f}", 1),
)
_BOUNDS = {  # curvature over the bound where it may settle
    "λ_max ÷ 2/η": lambda t: t["stability/edge"],
    "λ_max ÷ 2/(ηρ)": lambda t: t["stability/edge"] * t["stability/rho"],
    "λ_max ÷ 2/(ηρ_1)": lambda t: t["stability/edge_rho"],
    "size of μ_1 ÷ 2/η": lambda t: t["stability/mu_abs"] * t["lr"] / 2,
}
_ROUGHNESS = """\
Runs are matched on the monotone curve closest to their log loss. Root mean square distance from it over the \
evaluations of a run, mean over runs: {}."""
_STABILITY = """\
Medians over evaluations; geometric means and 95 % intervals over seeds; 1 is where the bound stands. ρ_1 is that of \
the top eigenvector; μ_1 the leading eigenvalue of the rule's own Jacobian (`bpgen.stability`)."""


def at_the_end(table: pd.DataFrame) -> list[str]:
    """Means and standard deviations over seeds, at the end of training."""
    last = finished(table).sort_values("step").groupby(["condition", "seed"], sort=False).tail(1)
    shown = [s for s in _SHOWN if s[1] in last and last[s[1]].notna().any()]
    rows = []
    for condition in dict.fromkeys(table["condition"]):
        own = last[last["condition"] == condition]
        cells = [
            f"{written(form, scale * own[c].mean())} ± {written(form, scale * own[c].std())}"
            for _, c, form, scale in shown
        ]
        rows.append((condition, str(own["seed"].nunique()), *cells))
    header = ("condition", "n", *(s[0] for s in shown))
    title = "## At the end of training (mean ± standard deviation over seeds)"
    return [title, "", markdown_table(header, rows), ""]


def how_rough(table: pd.DataFrame) -> list[str]:
    """A sentence on how far from monotone the training losses are that runs are matched by; none without runs."""
    rough = roughness(table).groupby("condition", sort=False).mean()
    found = ", ".join(f"{condition} {value:.2g}" for condition, value in rough.items())
    return [_ROUGHNESS.format(found), ""] if found else []


def paired_differences(table: pd.DataFrame) -> list[str]:
    """Every condition against the first of its setting that finished, at the lowest training loss both reach."""
    rows = []
    for setting in settings(table):
        conditions = list(dict.fromkeys(setting.finished["condition"]))
        rows += [_difference(setting, condition, conditions[0]) for condition in conditions[1:]]
    where = ("loss", "at steps", "training accuracy")
    header = ("comparison", *where, "gap, noisy test inputs", "λ_max", "permutation p (gap, λ)", "n", "note")
    title = "## At matched training loss, paired by seed (mean, 95 % interval over seeds)"
    note = "Steps and training accuracy are medians over the runs that get to the loss, of either condition."
    return [title, "", markdown_table(header, rows), "", note, ""] if rows else []


def _difference(setting: Setting, condition: str, reference: str) -> tuple[str, ...]:
    values = setting.matched(reference, condition)
    gap = paired(values, setting.gap(), condition, reference)
    ratio = paired(values, SHARPNESS, condition, reference, log=True)
    accurate = setting.gap_unit == "accuracy"
    scale, unit, form = (100, "points", "{:+.2f}") if accurate else (1, "loss", "{:+.3g}")
    low, high = (scale * v for v in gap.interval())
    difference = f"{written(form, scale * gap.estimate)} ({written(form, low)} to {written(form, high)}) {unit}"
    low, high = (math.exp(min(v, 50)) for v in ratio.interval())
    sharper = f"x {math.exp(ratio.estimate):.3g} ({low:.3g} to {high:.3g})" if ratio.n else "not measured"
    p, n = f"{gap.p_permutation:.2g}, {ratio.p_permutation:.2g}", f"{gap.n} of {gap.planned}"
    level = f"{values['level'].iloc[0]:.3g}"
    middle = values.groupby("condition")[["step", ACCURACY]].median().reindex([condition, reference])
    steps, accuracies = (
        ", ".join(written(form, scale * v) for v in middle[column])
        for form, scale, column in (("{:.0f}", 1, "step"), ("{:.1f} %", 100, ACCURACY))
    )
    return (
        f"{condition} - {reference}",
        level,
        steps,
        accuracies if accurate else "none",
        difference,
        sharper,
        p,
        n,
        "; ".join(filter(None, (gap.note, few_pairs(gap.n)))),
    )


def over_bounds(table: pd.DataFrame) -> list[str]:
    """Where stability was measured: the curvature of all weights as a multiple of every bound."""
    table = finished(table)
    if "stability/edge" not in table or table["stability/edge"].isna().all():
        return []
    rows = []
    for condition, part in table.groupby("condition", sort=False):
        late = part[part["step"] >= part.groupby("seed")["step"].transform("max") / 2]
        cells = []
        for ratio in _BOUNDS.values():
            medians = ratio(late).groupby(late["seed"]).median()
            logs = {int(str(seed)): math.log(v) for seed, v in medians.items() if v > 0}
            effect = mean_effect(logs, len(medians))
            low, high = (math.exp(min(v, 50)) for v in effect.interval())
            fewer = "" if effect.n == effect.planned else f", {effect.n} seeds"  # the others' is not positive
            cells.append(f"{math.exp(effect.estimate):.3g} ({low:.3g} to {high:.3g}{fewer})")
        rows.append((str(condition), str(part["seed"].nunique()), *cells))
    title = "## Edge of stability: curvature of all weights over its bounds, second half of training"
    return [title, "", markdown_table(("condition", "n", *_BOUNDS), rows), "", _STABILITY, ""]


def correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Gap against log sharpness in every way: Pearson and Spearman; pooled, within; matched, final, given the loss."""
    rows = []
    for setting in settings(by_rule(table)):
        if setting.finished.empty:
            continue
        for at, values, given in (
            ("matched loss", setting.matched(), None),
            ("end of training", setting.last(), None),
            ("end of training, given log loss", setting.last(), LOG_LOSS),
        ):
            for within in (False, True):
                row: dict[str, object] = {"setting": setting.name, "at": at, "runs": "within" if within else "pooled"}
                for rank, name in ((False, "Pearson"), (True, "Spearman")):
                    effect = correlation(values, LOG_SHARPNESS, setting.gap(), within, given, rank)
                    low, high = (math.tanh(v) for v in effect.interval())
                    row |= {f"{name} r": math.tanh(effect.estimate), f"{name} low": low, f"{name} high": high}
                    row |= {"n seeds": effect.n, f"{name} p": effect.p_permutation}
                rows.append(row)
    return pd.DataFrame(rows)


def correlation_section(table: pd.DataFrame) -> list[str]:
    """What `correlations` found, from its table; nothing where there are too few seeds."""
    if table.empty or table["n seeds"].max() < 4:
        return []
    rows = []
    for _, r in table.iterrows():
        cells = [f"{r[f'{k} r']:.2f} ({r[f'{k} low']:.2f} to {r[f'{k} high']:.2f})" for k in ("Pearson", "Spearman")]
        rows.append((str(r["setting"]), str(r["at"]), str(r["runs"]), *cells, str(r["n seeds"])))
    header = ("setting", "at", "runs", "Pearson r", "Spearman r", "n seeds")
    return ["## Gap (noisy test inputs) against log sharpness", "", markdown_table(header, rows), ""]
