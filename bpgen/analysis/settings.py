"""Settings: a study's table taken apart by task and alpha, and what its rules are at matched training loss."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from bpgen.analysis.matching import LEAST, LOSS, LOWEST_COMMON, Level, at_loss, finished

SHARPNESS = "sharpness/lambda_max"
LOG_SHARPNESS, LOG_LOSS = "log sharpness", "log loss"
REUSES = "reuses_training"
CLEAN_GAP, NOISY_GAP = "gap", "gap_noisy"  # on test inputs as they are, and with noise


@dataclass(frozen=True)
class Setting:
    """One task at one alpha: comparisons are made inside a setting, never across.

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
    def planned(self) -> dict[str, int]:
        """Seeds of every condition, finished or not."""
        return {condition: part["seed"].nunique() for condition, part in self.table.groupby("condition")}

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

    def of(self, *conditions: str) -> pd.DataFrame:
        """Rows of the runs of these conditions that finished; of all where none is named."""
        return self.finished[self.finished["condition"].isin(conditions or self.conditions)]

    def matched(self, *conditions: str) -> pd.DataFrame:
        """A row per run of these conditions: sharpness and gaps at their lowest common training loss, and that loss."""
        part = self.of(*conditions)
        level = self.level.of(part)
        columns = [SHARPNESS, self.gap(CLEAN_GAP), self.gap(NOISY_GAP)]
        return with_logs(at_loss(part, level, columns).assign(level=level))

    def last(self, *conditions: str) -> pd.DataFrame:
        """The last row of every run of these conditions."""
        return with_logs(self.of(*conditions).sort_values("step").groupby(["condition", "seed"], sort=False).tail(1))


def settings(table: pd.DataFrame, level: Level = LOWEST_COMMON) -> list[Setting]:
    """The settings of a study's table, in its order."""
    return [
        Setting(str(task) if pd.isna(alpha) else f"{task}, alpha={alpha:g}", part, level)
        for (task, alpha), part in table.groupby(["task", "alpha"], sort=False, dropna=False)
    ]


def by_rule(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a condition per rule: inside a setting nothing else sets conditions apart."""
    return table.assign(condition=table["rule"])


def with_logs(values: pd.DataFrame) -> pd.DataFrame:
    """With the logarithms of sharpness and training loss, as far as they are there."""
    logs = {LOG_SHARPNESS: (SHARPNESS, 0.0), LOG_LOSS: (LOSS, LEAST)}
    with np.errstate(invalid="ignore", divide="ignore"):
        return values.assign(**{k: np.log(values[c].clip(lower=low)) for k, (c, low) in logs.items() if c in values})
