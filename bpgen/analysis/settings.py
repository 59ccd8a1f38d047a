"""Settings: a study's table taken apart by all but its rules, and what its rules are at matched training loss."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from bpgen.analysis.matching import (
    ACCURACY,
    LEAST,
    LOSS,
    LOSS_ITSELF,
    LOWEST_COMMON,
    Array,
    Level,
    along_loss,
    at_loss,
    finished,
    on_error,
)

SHARPNESS = "sharpness/lambda_max"
SURROGATE = "sharpness/surrogate/lambda_max"
LOG_SHARPNESS, LOG_LOSS = "log sharpness", "log loss"
REUSES, BLOCK, WHERE = "reuses_training", "sharpness_of", "setting"
PASSES = "forward_passes"  # of the network over the batch, in one update
EDGE = "stability/edge"  # λ_max of all weights over 2/η
CLEAN_GAP, NOISY_GAP = "gap", "gap_noisy"  # on test inputs as they are, and with noise
ROBUSTNESS, GENERALIZATION = "gap_robustness", "gap_generalization"  # what the noisy gap is the sum of
GAPS = (CLEAN_GAP, NOISY_GAP, ROBUSTNESS, GENERALIZATION)


@dataclass(frozen=True)
class Setting:
    """One task at one alpha, and at one value of whatever else was varied beside the rule: comparisons are made inside.

    Attributes:
        name: e.g. "digits, alpha=1".
        table: a row per run and evaluation, of all runs.
        level: where training losses are matched.
    """

    name: str
    table: pd.DataFrame
    level: Level = LOWEST_COMMON

    @cached_property
    def conditions(self) -> list[str]:
        """In the order of the study."""
        return list(dict.fromkeys(self.table["condition"]))

    @cached_property
    def seeds(self) -> list[int]:
        """All that were planned: those of any run that left a trace."""
        return sorted(int(seed) for seed in self.table["seed"].unique())

    @cached_property
    def finished(self) -> pd.DataFrame:
        """Rows of the runs that finished."""
        return finished(self.table)

    @cached_property
    def gap_unit(self) -> str:
        """The gap is in "accuracy" where the task has one, else in "loss"."""
        column = f"{NOISY_GAP}/accuracy"
        return "accuracy" if column in self.finished and self.finished[column].notna().any() else "loss"

    def gap(self, kind: str = NOISY_GAP) -> str:
        """The column of a gap."""
        return f"{kind}/{self.gap_unit}"

    @property
    def reuses_training(self) -> bool:
        """Whether the trials of the test are those of training, so that a gap on clean ones is zero by construction."""
        return REUSES in self.table and bool(self.table[REUSES].astype(bool).any())

    @property
    def sharpness_of(self) -> str:
        """The weights whose curvature was measured: "all" where stability was, too; "a part" where nobody says."""
        if EDGE in self.finished and self.finished[EDGE].notna().any():
            return "all"
        return str(self.table[BLOCK].iloc[0]) if BLOCK in self.table else "a part"

    def all_sharpness(self, rows: pd.DataFrame) -> Array:
        """λ_max in rows of the table: of all weights where it was measured, else of the block that was."""
        if EDGE in rows and rows[EDGE].notna().any():
            return 2 * rows[EDGE].to_numpy(float) / rows["lr"].to_numpy(float)
        return rows[SHARPNESS].to_numpy(float)

    def of(self, *conditions: str) -> pd.DataFrame:
        """Rows of the runs of these conditions that finished; of all where none is named."""
        return self.finished[self.finished["condition"].isin(conditions or self.conditions)]

    def matched(self, *conditions: str) -> pd.DataFrame:
        """A row per planned run of these conditions: what it is at the loss that they have in common, and that loss.

        Runs that did not finish, or never reach that loss, have a row without values.
        """
        level, curve = self.common_loss(*conditions), self.level.curve
        columns = [SHARPNESS, ACCURACY, *(self.gap(kind) for kind in GAPS)]
        return self.planned(with_logs(at_loss(self.of(*conditions), level, columns, curve).assign(level=level)))

    def along(self, *conditions: str) -> pd.DataFrame:
        """A row per planned run of these conditions: its mean log sharpness over the training losses that both pass."""
        level = self.common_loss(*conditions)
        return self.planned(along_loss(self.of(*conditions), level, SHARPNESS, curve=self.level.curve))

    def common_loss(self, *conditions: str) -> float:
        """The training loss at which these conditions are matched."""
        return self.level.of(self.table[self.table["condition"].isin(conditions or self.conditions)])

    def planned(self, values: pd.DataFrame) -> pd.DataFrame:
        """A row per run with one for every planned seed, empty where the run has no value."""
        first = values.groupby("condition", sort=False)[["rule"]].first()
        index = pd.MultiIndex.from_product([first.index, self.seeds], names=["condition", "seed"])
        full = values.set_index(["condition", "seed"]).reindex(index).reset_index()
        reached = full["reached"].fillna(False).astype(bool) if "reached" in full else False
        level = {"level": values["level"].iloc[0]} if "level" in values and len(values) else {}
        return full.assign(rule=full["condition"].map(first["rule"]), reached=reached, **level)

    def last(self, *conditions: str) -> pd.DataFrame:
        """The last row of every run of these conditions."""
        return with_logs(self.of(*conditions).sort_values("step").groupby(["condition", "seed"], sort=False).tail(1))


def settings(table: pd.DataFrame, level: Level = LOWEST_COMMON) -> list[Setting]:
    """The settings of a study's table, in its order."""
    where = table[WHERE].astype(object).fillna("") if WHERE in table else pd.Series("", table.index)
    found = []
    for (task, alpha, rest), part in table.groupby([table["task"], table["alpha"], where], sort=False, dropna=False):
        names = [str(task), *([] if pd.isna(alpha) else [f"alpha={alpha:g}"]), *([rest] if rest else [])]
        found.append(Setting(", ".join(names), on_error(part) if level.on == "error" else part, level))
    return found


def by_rule(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a condition per rule: inside a setting nothing else sets conditions apart."""
    return table.assign(condition=table["rule"])


def with_surrogates(table: pd.DataFrame) -> pd.DataFrame:
    """The table with λ_max of the surrogate network where neurons spike, whose true loss has none; `BLOCK` says so."""
    if SURROGATE not in table:
        return table
    spiking = table[SURROGATE].notna()
    of = table[BLOCK].where(~spiking, table[BLOCK] + " of the surrogate network")
    return table.assign(**{SHARPNESS: table[SHARPNESS].where(~spiking, table[SURROGATE]), BLOCK: of})


def with_logs(values: pd.DataFrame) -> pd.DataFrame:
    """With the logarithms of sharpness and training loss, as far as they are there."""
    logs = {LOG_SHARPNESS: (SHARPNESS, 0.0), LOG_LOSS: (LOSS_ITSELF if LOSS_ITSELF in values else LOSS, LEAST)}
    with np.errstate(invalid="ignore", divide="ignore"):
        return values.assign(**{k: np.log(values[c].clip(lower=low)) for k, (c, low) in logs.items() if c in values})
