"""Many run folders as one typed table, in seconds: `load` for pandas, `write_table` for every other program.

    import bpgen.study
    table = bpgen.study.load("studies/leak")              a row per run and evaluation
    runs = bpgen.study.load("studies", "runs", per="run")  a row per run, with its last evaluation

Columns, in this order: study, condition, rule, task, alpha, seed, reuses_training, status, run (its folder); of the
whole run (`per="run"`) reason, seconds, config_hash, bpgen (the version) as well; every option of the config as
`group.option` (`optimizer.lr`, `network.n_rec`); then the columns of metrics.csv (`step`, `train/loss`,
`sharpness/lambda_max`, ...), all numbers. What a run does not have is missing. Statistics and figures
(`bpgen.analysis.settings`, `bpgen.figures.study`) take this table.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from bpgen.errors import BpgenError, choice
from bpgen.study.catalogue import RunEntry, entries

Per = Literal["evaluation", "run"]
_NO_OPTIONS = (
    "format",
    "seed",
    "name",
    "out",
    "wandb",
    "tracking",
)  # of a config: those that are said elsewhere, or nowhere


def load(*folders: str | os.PathLike[str], per: Per = "evaluation", tuning: bool = False) -> pd.DataFrame:
    """One table of all runs in and below some folders, whole and partial ones; see the module's docstring.

    Args:
        folders: of runs, of studies, or that hold some.
        per: a row for every "evaluation", or for every "run" with what it measured last.
        tuning: also the runs in which studies tuned their nuisance parameters.

    Raises:
        BpgenError: no such folder, or none holds a run.
    """
    choice("per", per, Per)
    found = [run for run in entries(folders) if tuning or not run.stage]
    if not found:
        raise BpgenError(f"there is no run in {' or '.join(map(str, folders)) or 'no folder'}.")
    return table_of(found, per)


def table_of(runs: Sequence[RunEntry], per: Per = "evaluation") -> pd.DataFrame:
    """The table of runs that were found before."""
    facts = _typed({i: _facts(run, per) for i, run in enumerate(runs)})
    options = _typed({i: _options(run.config) for i, run in enumerate(runs)})
    known = pd.concat([facts, options.drop(columns=[c for c in options if c in facts])], axis=1)
    rows = _metrics(runs)
    if per == "run":
        last = rows.groupby("_run").tail(1).set_index("_run")
        return known.join(last).reset_index(drop=True)
    at = rows.pop("_run").to_numpy(int)
    return pd.concat([known.iloc[at].reset_index(drop=True), rows.reset_index(drop=True)], axis=1)


def write_table(table: pd.DataFrame, file: str | os.PathLike[str]) -> None:
    """Write a table as its name says: `.csv`, or `.parquet`, which keeps the types.

    Raises:
        BpgenError: another ending, no parquet library, or the file cannot be written.
    """
    path = Path(file).expanduser()
    if path.suffix not in (".csv", ".parquet"):
        raise BpgenError(f"a table is written as .csv or .parquet, got {file}.")
    try:
        if path.suffix == ".csv":
            table.to_csv(path, index=False)
        else:
            table.to_parquet(path, index=False)
    except ImportError:
        raise BpgenError("parquet needs pyarrow: pip install 'bpgen[parquet]', or write a .csv.") from None
    except OSError as error:
        raise BpgenError(f"cannot write {file}: {error.strerror or error}.") from None


def _facts(run: RunEntry, per: Per) -> dict[str, Any]:
    facts = {**run.facts, "status": run.status, "run": str(run.path)}
    if per == "evaluation":
        return facts
    seconds, versions = run.summary.get("seconds"), run.summary.get("versions")
    return {
        **facts,
        "stage": run.stage,
        "reason": run.reason,
        "seconds": seconds.get("total") if isinstance(seconds, Mapping) else None,
        "config_hash": run.summary.get("config_hash"),
        "bpgen": versions.get("bpgen") if isinstance(versions, Mapping) else None,
    }


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every option under its dotted name; a list or a mapping as JSON."""
    flat: dict[str, Any] = {}
    for group, options in config.items():
        if group in _NO_OPTIONS:
            continue
        inner = {f"{group}.{k}": v for k, v in options.items()} if isinstance(options, Mapping) else {group: options}
        flat |= {k: json.dumps(v, default=str) if isinstance(v, (list, dict)) else v for k, v in inner.items()}
    return flat


def _typed(rows: Mapping[int, Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as columns of one type each: whole numbers, numbers, truth values or texts; a mixture becomes texts."""
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return pd.DataFrame({name: _column([row.get(name) for row in rows.values()]) for name in names})


def _column(values: list[Any]) -> pd.Series:
    kinds = {type(value) for value in values if value is not None}
    missing = None in values
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean" if missing else bool)
    if kinds == {int}:
        return pd.Series(values, dtype="Int64" if missing else "int64")
    if not kinds or kinds <= {int, float}:
        return pd.Series(values, dtype="float64")
    texts = [v if v is None or isinstance(v, str) else json.dumps(v, default=str) for v in values]
    return pd.Series(texts)


def _metrics(runs: Iterable[RunEntry]) -> pd.DataFrame:
    """All rows of all metrics.csv, with the number of the run in `_run`; files with one header are parsed together."""
    texts: dict[str, list[str]] = {}
    for i, run in enumerate(runs):
        head, body = run.metrics_text()
        if body:
            texts.setdefault(head, []).append("".join(f"{i},{line}" for line in body.splitlines(keepends=True)))
    whole = {head: io.StringIO(f"_run,{head}\n{''.join(own)}") for head, own in texts.items()}
    parts = [pd.read_csv(text) for text in whole.values()]
    if not parts:
        return pd.DataFrame({"_run": pd.Series([], dtype="int64")})
    return pd.concat([part.dropna(axis=1, how="all") for part in parts]).sort_values("_run", kind="stable")
