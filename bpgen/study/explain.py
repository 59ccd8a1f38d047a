"""What explains the gap: the measured networks of a study ranked, mediated and put into words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bpgen.analysis.markdown import markdown_table
from bpgen.analysis.mediation import mediations
from bpgen.analysis.ranking import ALL, ranking, tables
from bpgen.analysis.settings import REUSES, by_rule
from bpgen.complexity import MEASURES, SHARPNESS
from bpgen.errors import require
from bpgen.study.networks import GAPS, defined_gaps

MEDIATORS = ("lambda_rec", "lambda_all", "trace")
LABELS = {m.name: m.label for m in MEASURES}
NOTE = """\
τ: Kendall's, over pairs of seeds of the same rule at the same training loss; 95 % interval over seeds. A plus is what
the measure promises (more of it, or less of margin, and a larger gap); * explains: p <= 0.05 by permutation, corrected
for all measures and gaps; > beats sharpness (Holm). In ranking.csv also across rules, at equal steps, along training,
partial given λ₁, and every setting by itself."""
MEDIATION_NOTE = """\
Indirect: product of the paths rule -> log λ₁ -> gap, per seed against the reference, at matched loss; 95 % percentile
interval of a bootstrap over seeds. Read as cause it assumes that nothing else that varies between seeds moves both, one
slope for both rules, and that runs which never reached the loss left at random."""


@dataclass(frozen=True)
class Explained:
    """ranking, mediation: the tables. gaps: what they are of. n: seeds that within-rule pairs had, at most."""

    ranking: pd.DataFrame
    mediation: pd.DataFrame
    gaps: list[str]

    @property
    def setting(self) -> str:
        """All settings together, where there are several."""
        names = list(dict.fromkeys(self.ranking["setting"]))
        return ALL if ALL in names else names[0]

    @property
    def whole(self) -> pd.DataFrame:
        """The ranking of that setting."""
        return self.ranking[self.ranking["setting"] == self.setting]


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """With a condition per rule, so that rules are the same in every setting, where nothing else tells runs apart."""
    merged = by_rule(table)
    return table if merged.duplicated(["task", "alpha", "condition", "seed", "step"]).any() else merged


def explain(table: pd.DataFrame, reference: str | None = None) -> Explained:
    """Rank and mediate.

    Args:
        table: a row per saved network, as `bpgen.study.networks.joined` gives it.
        reference: the rule that mediation compares with; the first one by default.

    Raises:
        BpgenError: there is nothing to compare.
    """
    reuses = REUSES in table and bool(table[REUSES].astype(bool).any())
    gaps = defined_gaps(table, reuses)
    require(bool(gaps), "no gap could be measured: the study has no finished run with test sequences.")
    measures = {m.name: m.sign for m in MEASURES if table[m.name].notna().any()}
    found = tables(table, [*measures, *gaps])
    require(not found.matched.empty, "the training losses of the rules do not overlap: there is nothing to match.")
    ranked = ranking(found, measures, gaps, SHARPNESS)
    mediated = mediations(found.matched, MEDIATORS, gaps, reference)
    return Explained(ranked, mediated, gaps)


def write(found: Explained, folder: Path) -> None:
    """ranking.csv and mediation.csv."""
    found.ranking.to_csv(folder / "ranking.csv", index=False, float_format="%.5g")
    found.mediation.to_csv(folder / "mediation.csv", index=False, float_format="%.5g")


def report(found: Explained) -> str:
    """The table, the sentence and mediation, in Markdown."""
    whole = found.whole
    n, planned = int(whole["n"].max()), int(whole["planned"].max())
    where = f"{found.setting}, n = {n} of {planned} seeds"
    title = f"## What explains the gap, within rules at matched training loss ({where})"
    rows = [[LABELS[m], *(_cell(whole, m, g) for g in found.gaps)] for m in by_mean(whole)]
    table = markdown_table(["measure", *(GAPS[g] for g in found.gaps)], rows)
    parts = [title, "", table, "", NOTE, "", sentence(found), ""]
    return "\n".join([*parts, *_mediation(found.mediation)])


def by_mean(whole: pd.DataFrame) -> list[str]:
    """Measures by their mean τ within rules over all gaps, the largest first."""
    return list(whole.groupby("measure")["within"].mean().sort_values(ascending=False).index)


def sentence(found: Explained) -> str:
    """Which measure beats sharpness, for every gap."""
    said = [f"{GAPS[gap]}: {_beaten(found.whole[found.whole['gap'] == gap])}" for gap in found.gaps]
    return f"Beats sharpness (λ₁ of W_rec) within rules at matched training loss: {'; '.join(said)}."


def _beaten(ranked: pd.DataFrame) -> str:
    own, better = ranked[ranked["measure"] == SHARPNESS].iloc[0], ranked[ranked["beats sharpness"]]
    if not math.isfinite(own["within"]):
        return "too few seeds to say"
    place = f"λ₁ {own['within']:+.2f}, number {own['rank']:.0f} of {len(ranked)}"
    if len(better):
        return f"{', '.join(_named(row) for _, row in better.iterrows())} ({place})"
    first = ranked.iloc[0]
    if first["measure"] == SHARPNESS:
        return f"nothing ({place})"
    return f"nothing for certain (first is {_named(first)}; {place})"


def _named(row: pd.Series) -> str:
    return f"{LABELS[row['measure']]} {row['within']:+.2f}, p {row['- sharpness p']:.2g}"


def _cell(whole: pd.DataFrame, measure: str, gap: str) -> str:
    row = whole[(whole["measure"] == measure) & (whole["gap"] == gap)].iloc[0]
    if not math.isfinite(row["within"]):
        return ""
    mark = ("*" if row["verdict"] in ("explains", "reversed") else "") + (">" if row["beats sharpness"] else "")
    return f"{row['within']:+.2f} ({row['within low']:+.2f} to {row['within high']:+.2f}){mark}"


def _mediation(table: pd.DataFrame) -> Sequence[str]:
    """Mediation through λ_1 of W_rec, for every rule, setting and gap."""
    own = table[(table["mediator"] == MEDIATORS[0]) & table["indirect"].notna()] if len(table) else table
    if own.empty:
        return ["Mediation: fewer than 6 seeds have both rules at the matched loss."]
    rows = [
        [
            *(str(r[c]) for c in ("setting", "rule")),
            GAPS[r["gap"]],
            *(_interval(r, path) for path in ("total", "indirect", "direct")),
            str(r["n"]),
        ]
        for _, r in own.iterrows()
    ]
    through, reference = LABELS[MEDIATORS[0]], own["reference"].iloc[0]
    title = f"## Does the effect of a rule on the gap, against {reference}, pass through {through}?"
    header = ("setting", "rule", "gap", "total effect", "indirect, by λ₁", "direct", "n")
    return [title, "", markdown_table(header, rows), "", MEDIATION_NOTE]


def _interval(row: pd.Series, path: str) -> str:
    accurate = row["gap"].endswith("accuracy")
    scale, form = (100, "+.2f") if accurate else (1, "+.3f")
    values = (scale * row[f"{path}{end}"] for end in ("", " low", " high"))
    return "{} ({} to {}){}".format(*(f"{v:{form}}" for v in values), " points" if accurate else "")
