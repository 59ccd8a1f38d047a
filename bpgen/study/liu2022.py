"""The claims of Liu et al. (NeurIPS 2022, arXiv 2206.00823) as falsifiable checks on a study's table.

    (a) local rules end with a larger generalization gap than BPTT     (b) and with a more variable one
    (c) the gap grows with sharpness                                   (d) local rules approach higher curvature
    (e) theorem: λ_max stays at 2/(ηρ) or below; BPTT scaled by ρ reaches the rule's curvature; a part orthogonal to
        the gradient changes nothing                                   (f) remedies lower gap and sharpness

Every check compares at matched training loss unless it says otherwise, by task and alpha separately: alpha = 1 is the
released setting, in which the three-factor rule is the outer product of the last step. What counts as the smallest
effect of interest is stated here, once, and printed with every verdict.

The bounds are those of plain gradient descent and of all weights; sharpness of W_rec is a lower bound of theirs, so a
sharpness above its bound is a violation, and one below is only compatible with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bpgen.study import matched
from bpgen.study import statistics as st
from bpgen.study.correlation import correlation
from bpgen.study.matched import Level
from bpgen.study.statistics import Effect
from bpgen.study.verdicts import Check, Kind

REFERENCE = "bptt"
MATCHED = Level()
LOCAL = ("three_factor", "rflo")
REMEDIES = ("three_factor, early lr", "mdgl", "modprop")
SHARPNESS = "sharpness/lambda_max"
GAP_POINTS = 0.01  # smallest gap difference of interest: one point of accuracy
GAP_LOSS = 0.05  # where a task has no accuracy: of the matched training loss
SPREAD = math.log(1.5)  # half as variable again
CURVATURE = math.log(1.1)  # a tenth sharper
SAME_CURVATURE = math.log(1.25)  # two curvatures are the same within a factor of 1.25
CORRELATION = math.atanh(0.3)
CLAIMS = {
    "a": "larger generalization gap for local rules",
    "b": "more variable gap for local rules",
    "c": "the gap grows with sharpness",
    "d": "local rules approach higher curvature along training",
    "e": "theorem: λ_max against 2/η and 2/(ηρ), scaled BPTT, orthogonal noise",
    "f": "remedies: larger early learning rate, richer rules",
}


def checks(table: pd.DataFrame, level: Level = MATCHED) -> list[Check]:
    """All checks that the study's conditions allow, setting by setting, with losses matched at a level."""
    result: list[Check] = []
    for (task, alpha), part in table.groupby(["task", "alpha"], sort=False, dropna=False):
        setting = task if pd.isna(alpha) else f"{task}, alpha={alpha:g}"
        result += Setting(setting, part.assign(condition=part["rule"]), level).checks()
    return result


class Setting:
    """One task at one alpha: its table with one condition per rule, and the values at matched loss."""

    def __init__(self, name: str, table: pd.DataFrame, level: Level = MATCHED) -> None:
        self.name, self.table, self.level = name, matched.finished(table), level
        self.planned = {c: part["seed"].nunique() for c, part in table.groupby("condition")}
        self.rules = list(dict.fromkeys(table["condition"]))
        accurate = "gap_noisy/accuracy" in table and table["gap_noisy/accuracy"].notna().any()
        self.measure = "accuracy" if accurate else "loss"
        self.local = [rule for rule in LOCAL if rule in self.rules]

    def checks(self) -> list[Check]:
        """In the order of the claims."""
        if REFERENCE not in self.rules or self.table.empty:
            return []
        return [
            *self.gaps(),
            *self.spreads(),
            *self.correlations(),
            *self.curvature(),
            *self.theorem(),
            *self.remedies(),
        ]

    def matched(self, *rules: str) -> pd.DataFrame:
        """Values of these rules at matched loss."""
        part = self.table[self.table["condition"].isin(rules)]
        columns = [SHARPNESS, *(f"{gap}/{self.measure}" for gap in ("gap", "gap_noisy"))]
        level = self.level.of(part)
        return matched.at_loss(part, level, columns).assign(level=level)

    def _check(
        self, claim: str, text: str, effect: Effect, kind: Kind, smallest: float, unit: str, figure: str
    ) -> Check:
        return Check(claim, self.name, text, effect, kind, smallest, unit, figure)

    def _gap(self, claim: str, text: str, more: str, less: str, gap: str, figure: str) -> Check:
        values = self.matched(more, less)
        effect = st.paired(values, f"{gap}/{self.measure}", more, less)
        at = float(values["level"].iloc[0]) if len(values) else math.nan
        accuracy = self.measure == "accuracy"
        smallest, unit = (GAP_POINTS, "points") if accuracy else (GAP_LOSS * at, "loss")
        return self._check(claim, f"{text}, at training loss {at:.3g}", effect, "larger", smallest, unit, figure)

    def _sharper(self, claim: str, text: str, more: str, less: str, figure: str) -> Check:
        values = self.matched(more, less)
        at = float(values["level"].iloc[0]) if len(values) else math.nan
        effect = st.paired(values, SHARPNESS, more, less, log=True)
        return self._check(claim, f"{text}, at training loss {at:.3g}", effect, "larger", CURVATURE, "ratio", figure)

    def gaps(self) -> list[Check]:
        """(a), with and without noise on the test inputs."""
        return [
            self._gap(
                "a", f"{rule} has a larger gap than bptt ({inputs} test inputs)", rule, REFERENCE, gap, "gap_by_rule"
            )
            for rule in self.local
            for gap, inputs in (("gap_noisy", "noisy"), ("gap", "clean"))
        ]

    def spreads(self) -> list[Check]:
        """(b)"""
        return [
            self._check(
                "b",
                f"the gap of {rule} varies more over seeds than that of bptt (noisy test inputs)",
                st.spread(self.matched(rule, REFERENCE), f"gap_noisy/{self.measure}", rule, REFERENCE),
                "larger",
                SPREAD,
                "ratio",
                "gap_by_rule",
            )
            for rule in self.local
        ]

    def correlations(self) -> list[Check]:
        """(c): pooled over rules, within rules, and at the end of training given the loss."""
        rules = [REFERENCE, *self.local]
        gap = f"gap_noisy/{self.measure}"
        at_loss = _with_logs(self.matched(*rules))
        last = (
            self.table[self.table["condition"].isin(rules)].sort_values("step").groupby(["condition", "seed"]).tail(1)
        )
        last = _with_logs(last)
        kinds = (
            ("pooled over rules, at matched training loss", at_loss, False, None),
            ("within rules, at matched training loss", at_loss, True, None),
            ("within rules, at the end of training, given the training loss", last, True, "log loss"),
        )
        return [
            self._check(
                "c",
                f"gap and log sharpness correlate {how}",
                correlation(values, "log sharpness", gap, within, given),
                "larger",
                CORRELATION,
                "r",
                "gap_against_sharpness",
            )
            for how, values, within, given in kinds
        ]

    def curvature(self) -> list[Check]:
        """(d): on the way, and where both rules have the lowest common loss."""
        result = []
        for rule in self.local:
            part = self.table[self.table["condition"].isin([rule, REFERENCE])]
            along = matched.along_loss(part, self.level.of(part), SHARPNESS)
            effect = st.paired(along, SHARPNESS, rule, REFERENCE)
            text = f"{rule} is sharper than bptt on average over the training losses that both pass"
            result.append(self._check("d", text, effect, "larger", CURVATURE, "ratio", "sharpness_against_loss"))
            result.append(self._sharper("d", f"{rule} is sharper than bptt", rule, REFERENCE, "sharpness_against_loss"))
        return result

    def theorem(self) -> list[Check]:
        """(e)"""
        result = []
        for rule in [REFERENCE, *self.local]:
            bound = "2/η" if rule == REFERENCE else "2/(ηρ)"
            excess = self._excess(rule)
            text = f"{rule} settles no sharper than {bound} (λ_max as measured; median of the second half of training)"
            result.append(self._check("e", text, excess, "at most", CURVATURE, "ratio", "sharpness_against_steps"))
        if "scaled_bptt" in self.rules:
            text = "scaled_bptt is sharper than bptt"
            result.append(self._sharper("e", text, "scaled_bptt", REFERENCE, "sharpness_against_loss"))
            if "three_factor" in self.rules:
                result.append(self._as_sharp("scaled_bptt", "three_factor"))
        if "noisy_bptt" in self.rules:
            result.append(self._as_sharp("noisy_bptt", REFERENCE))
        return result

    def _as_sharp(self, rule: str, other: str) -> Check:
        effect = st.paired(self.matched(rule, other), SHARPNESS, rule, other, log=True)
        text = f"{rule} is as sharp as {other} at matched training loss"
        return self._check("e", text, effect, "same", SAME_CURVATURE, "ratio", "sharpness_against_loss")

    def _excess(self, rule: str) -> Effect:
        """log(λ_max / bound), median over the evaluations of the second half of training, mean over seeds."""
        by_seed: dict[int, float] = {}
        for seed, run in self.table[self.table["condition"] == rule].groupby("seed"):
            late = run[run["step"] >= run["step"].max() / 2]
            rho = np.ones(len(late)) if rule == REFERENCE else late["alignment/rho"].to_numpy(float)
            index = late[SHARPNESS].to_numpy(float) * late["lr"].to_numpy(float) * rho / 2
            index = index[np.isfinite(index) & (index > 0)]
            if len(index):
                by_seed[int(seed)] = float(np.log(np.median(index)))
        return st.from_values(by_seed, self.planned[rule])

    def remedies(self) -> list[Check]:
        """(f)"""
        result: list[Check] = []
        if "three_factor" not in self.rules:
            return result
        for remedy in [rule for rule in REMEDIES if rule in self.rules]:
            text = f"{remedy} has a smaller gap than three_factor (noisy test inputs)"
            result.append(self._gap("f", text, "three_factor", remedy, "gap_noisy", "remedies"))
            result.append(
                self._sharper("f", f"{remedy} is less sharp than three_factor", "three_factor", remedy, "remedies")
            )
        return result


def _with_logs(values: pd.DataFrame) -> pd.DataFrame:
    with np.errstate(invalid="ignore", divide="ignore"):
        result = values.assign(**{"log sharpness": np.log(values[SHARPNESS])})
        return result.assign(**{"log loss": np.log(result[matched.LOSS])}) if matched.LOSS in result else result


def correlations(table: pd.DataFrame, conditions: Sequence[str] | None = None) -> pd.DataFrame:
    """Gap against log sharpness in every way: Pearson and Spearman; pooled, within; matched, final, given the loss."""
    rows = []
    for (task, alpha), part in table.groupby(["task", "alpha"], sort=False, dropna=False):
        setting = Setting(task if pd.isna(alpha) else f"{task}, alpha={alpha:g}", part.assign(condition=part["rule"]))
        if setting.table.empty:
            continue
        gap = f"gap_noisy/{setting.measure}"
        rules = list(conditions or setting.rules)
        last = setting.table.sort_values("step").groupby(["condition", "seed"]).tail(1)
        for where, values, given in (
            ("matched loss", _with_logs(setting.matched(*rules)), None),
            ("end of training", _with_logs(last), None),
            ("end of training, given log loss", _with_logs(last), "log loss"),
        ):
            for within in (False, True):
                row: dict[str, object] = {
                    "setting": setting.name,
                    "at": where,
                    "runs": "within" if within else "pooled",
                }
                for rank, name in ((False, "Pearson"), (True, "Spearman")):
                    effect = correlation(values, "log sharpness", gap, within, given, rank)
                    low, high = effect.interval()
                    row |= {f"{name} r": math.tanh(effect.estimate), f"{name} low": math.tanh(low)}
                    row |= {f"{name} high": math.tanh(high), "n seeds": effect.n, f"{name} p": effect.p_permutation}
                rows.append(row)
    return pd.DataFrame(rows)
