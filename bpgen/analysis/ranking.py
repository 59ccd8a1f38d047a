"""Which measure explains a gap: measures ranked by granulated Kendall correlation, with what each comparison is worth.

Of every measure and gap (`bpgen.analysis.granulated`):
    within       τ over pairs of seeds of the same rule at the same training loss: what decides
    across       τ over pairs of rules of the same seed at the same training loss: a description of these few rules,
                 which a single difference between them makes as large as it likes; p over orders of rules
    granulated   the mean of both (Jiang's Ψ)
    worst rule   the smallest `within` of any rule in any setting (Dziugaite's worst environment)
    within step, across step, along
                 the same at equal steps instead of equal losses, and along each run: these mix in the training loss
    partial      rank correlation within rules at matched loss given λ_1, the sharpness
    - sharpness  `within` minus that of λ_1, from the same bootstrap samples; p after Holm, and alone without
A verdict is given within rules only: "explains" if the interval is above 0 and the permutation test, corrected for all
measures and gaps at once by its largest τ (Westfall & Young 1993), is below α; "reversed" for the other side; "between
rules only" if a measure orders the rules and not the runs of a rule; else "undecided". A measure beats sharpness if
`within` is the larger of the two after Holm's correction over all measures and gaps.
Signs are such that a positive τ is what a measure promises: a larger one (a smaller margin) goes with a larger gap.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from bpgen.analysis.granulated import ACROSS, ALONG, WITHIN, Granules, Partial, Tau, View, effect, fisher, resamples
from bpgen.analysis.matching import LOSS, LOWEST_COMMON, at_loss, finished, start_loss
from bpgen.analysis.settings import settings
from bpgen.analysis.statistics import Array, Effect, holm
from bpgen.analysis.verdicts import ALPHA

LEVELS = 4  # matched losses, evenly in log loss from halfway down to the lowest common one
ALL = "all settings"
_KEYS = ("setting", "condition", "seed", "at")


class Tables(NamedTuple):
    """Networks at equal steps, and at equal training losses: rows of setting, condition, seed, at and all columns."""

    by_step: pd.DataFrame
    matched: pd.DataFrame


def levels(table: pd.DataFrame) -> list[float]:
    """The training losses at which the runs of one setting are compared."""
    lowest, start = LOWEST_COMMON.of(table), start_loss(finished(table))
    if not (math.isfinite(lowest) and lowest < start):
        return []
    return [float(v) for v in np.geomspace(math.sqrt(lowest * start), lowest, LEVELS)]


def beside_levels(table: pd.DataFrame) -> list[Hashable]:
    """The rows, by their index, on both sides of where a run first passes one of its setting's levels."""
    found: set[Hashable] = set()
    for setting in settings(table):
        wanted = levels(setting.table)
        for _, own in setting.finished.sort_values("step").groupby(["condition", "seed"]):
            for level in wanted:
                below = np.flatnonzero(own[LOSS].to_numpy(float) <= level)
                if len(below):
                    found |= set(own.index[max(0, below[0] - 1) : below[0] + 1])
    return [row for row in table.index if row in found]


def tables(table: pd.DataFrame, columns: Sequence[str]) -> Tables:
    """A study's networks as they are compared.

    Args:
        table: a row per saved network: task, alpha, condition, rule, seed, step, status, training loss, and columns,
            which are empty where it was not measured.
        columns: measures and gaps.
    """
    steps, matched = [], []
    for setting in settings(table):
        here = setting.finished.assign(setting=setting.name)
        seen = here[here[list(columns)].notna().any(axis=1)]
        steps.append(seen.assign(at=seen["step"])[[*_KEYS, *columns]])
        for number, level in enumerate(levels(here)):
            values = at_loss(seen, level, list(columns))
            place = values["condition"].map(setting.conditions.index)  # the study's order, not that of getting there
            values = values.assign(_p=place).sort_values(["_p", "seed"]).drop(columns="_p")
            matched.append(values.assign(setting=setting.name, at=number, level=level)[[*_KEYS, "level", *columns]])
    empty = pd.DataFrame(columns=[*_KEYS, *columns])
    return Tables(*(pd.concat(parts, ignore_index=True) if parts else empty for parts in (steps, matched)))


def ranking(found: Tables, measures: Mapping[str, int], gaps: Sequence[str], sharpness: str) -> pd.DataFrame:
    """A row per setting (and over all of them), gap and measure; see the module's docstring.

    Args:
        found: the networks.
        measures: by column, and which way each points (1 or -1).
        gaps: columns; larger is worse.
        sharpness: the measure that the others are compared with.
    """
    names = list(dict.fromkeys(found.matched["setting"]))
    parts = []
    for name in [*names, ALL] if len(names) > 1 else names:
        here = [t if name == ALL else t[t["setting"] == name] for t in found]
        signed = [t.assign(**{m: sign * t[m] for m, sign in measures.items()}) for t in here]
        parts.append(_Ranking(Tables(*signed), list(measures), list(gaps), sharpness).table().assign(setting=name))
    whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return whole[["setting", *(c for c in whole if c != "setting")]] if parts else whole


@dataclass(frozen=True)
class _Ranking:
    """One setting, or all of them together."""

    found: Tables
    measures: list[str]
    gaps: list[str]
    sharpness: str

    def table(self) -> pd.DataFrame:
        """Sorted by gap, and by τ within rules."""
        matched, steps = (t.drop(columns="level", errors="ignore") for t in (self.found.matched, self.found.by_step))
        granules = {view: Granules(matched, view) for view in (WITHIN, ACROSS)}
        taus = {(view, m, g): granules[view].tau(m, g) for view in granules for m in self.measures for g in self.gaps}
        rows = [self._row(m, g, granules[WITHIN], taus) for g in self.gaps for m in self.measures]
        table = pd.DataFrame(rows)
        for prefix, view in (("within step", WITHIN), ("across step", ACROSS), ("along", ALONG)):
            equal = Granules(steps, view)
            n = len(equal.seeds)
            effects = [effect(equal.tau(m, g), n) for g in self.gaps for m in self.measures]
            table = table.assign(**_columns(prefix, effects))
        table["within p"] = self._adjusted(granules[WITHIN], taus, WITHIN)
        table["across p"] = self._adjusted(granules[ACROSS], taus, ACROSS)
        table["- sharpness p alone"] = table["- sharpness p"]
        table["- sharpness p"] = holm_of(table["- sharpness p"])
        table["verdict"] = [_verdict(row) for _, row in table.iterrows()]
        table["beats sharpness"] = (table["- sharpness"] > 0) & (table["- sharpness p"] <= ALPHA)
        table["rank"] = table.groupby("gap")["within"].rank(ascending=False, method="min")
        order = table["gap"].map(self.gaps.index)
        return table.assign(_o=order).sort_values(["_o", "rank"], kind="stable").drop(columns="_o")

    def _row(self, m: str, g: str, within: Granules, taus: dict[tuple[View, str, str], Tau]) -> dict[str, object]:
        """All numbers of a measure and a gap at matched loss."""
        n, W, base = len(within.seeds), taus[WITHIN, m, g], taus[WITHIN, self.sharpness, g]
        across, ones = taus[ACROSS, m, g], np.ones((1, len(within.seeds)))
        found = {"within": effect(W, n), "across": effect(across, n)}
        row: dict[str, object] = {"gap": g, "measure": m, "n": found["within"].n, "planned": n}
        for name, value in found.items():
            row |= {k: v[0] for k, v in _columns(name, [value]).items()}
        row["granulated"] = float((W(ones)[0] + across(ones)[0]) / 2)
        row["worst rule"] = self._worst(m, g)
        if m == self.sharpness:
            return row | {"partial": math.nan, "- sharpness": math.nan, "- sharpness p": math.nan}
        partial = Partial(*(within.values(c) for c in (m, g, self.sharpness)))
        row |= {k: v[0] for k, v in _columns("partial", [effect(partial, n)]).items()}
        return row | _difference(W, base, found["within"])

    @cached_property
    def _rules(self) -> list[Granules]:
        """Every rule of every setting by itself."""
        matched = self.found.matched.drop(columns="level", errors="ignore")
        return [Granules(own, WITHIN) for _, own in matched.groupby(["setting", "condition"])]

    def _worst(self, m: str, g: str) -> float:
        """The smallest τ within any rule of any setting."""
        values = [float(rule.tau(m, g)(np.ones((1, len(rule.seeds))))[0]) for rule in self._rules]
        return min((v for v in values if math.isfinite(v)), default=math.nan)

    def _adjusted(self, granules: Granules, taus: dict[tuple[View, str, str], Tau], view: View) -> list[float]:
        """p-values of no relation, by permutation; within rules corrected for all measures and gaps."""
        count = len(granules.seeds)
        if count < 2 or granules.table.empty:
            return [math.nan] * (len(self.gaps) * len(self.measures))
        permuted = np.abs(np.nan_to_num(granules.permuted(self.measures, self.gaps)))
        largest = permuted.max(axis=(1, 2))
        p = []
        for j, g in enumerate(self.gaps):
            for i, m in enumerate(self.measures):
                tau = abs(float(taus[view, m, g](np.ones((1, count)))[0]))
                null = largest if view is WITHIN else permuted[:, i, j]
                p.append(float((null >= tau - 1e-12).mean()) if math.isfinite(tau) else math.nan)
        return p


def _difference(tau: Tau, base: Tau, own: Effect) -> dict[str, object]:
    """τ minus that of sharpness, and its uncorrected two-sided p-value."""
    n = tau.agree.shape[0]
    ones, many = np.ones((1, n)), resamples(n)
    z = float((fisher(tau(ones)) - fisher(base(ones)))[0])
    spread = fisher(tau(many)) - fisher(base(many))
    spread = spread[np.isfinite(spread)]
    se = float(spread.std(ddof=1)) if own.df > 0 and len(spread) > 1 else math.nan
    value = float((tau(ones) - base(ones))[0])
    known = math.isfinite(z) and se > 0
    return {
        "- sharpness": value,
        "- sharpness p": 2 * float(special.stdtr(own.df, -abs(z) / se)) if known else math.nan,
    }


def _columns(name: str, effects: Sequence[Effect]) -> dict[str, list[float]]:
    """Correlations and their intervals, from effects in Fisher's z."""
    limits = [tuple(math.tanh(v) for v in e.interval()) if e.n and math.isfinite(e.estimate) else None for e in effects]
    return {
        name: [math.tanh(e.estimate) for e in effects],
        f"{name} low": [math.nan if v is None else v[0] for v in limits],
        f"{name} high": [math.nan if v is None else v[1] for v in limits],
    }


def holm_of(p: pd.Series) -> Array:
    """Holm's adjusted p-values of those that are known."""
    known = p.notna().to_numpy()
    adjusted = np.full(len(p), np.nan)
    adjusted[known] = holm([float(v) for v in p[known]])
    return adjusted


def _verdict(row: pd.Series) -> str:
    if row["within p"] <= ALPHA and row["within low"] > 0:
        return "explains"
    if row["within p"] <= ALPHA and row["within high"] < 0:
        return "reversed"
    return "between rules only" if row["across low"] > 0 else "undecided"
