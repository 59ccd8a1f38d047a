"""Complexity measures and gaps of the networks that the runs of a study saved; nothing is trained again.

What has been measured stands in a file and is not measured a second time, so that the same call continues a stopped
one. Gaps of the same frozen weights, larger is worse (train: without noise):
    clean        train against clean test inputs: generalization
    robustness   train against noisy inputs of the same training sequences: what noise costs, and nothing else
    noisy        train against noisy test inputs, the gap of Liu et al. 2022: about the sum of both
each in accuracy (train - other) and in loss (other - train), without regularisers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bpgen.callbacks import Evaluation
from bpgen.callbacks.performance import Performance, performance
from bpgen.complexity import MEASURES, Trained, measured
from bpgen.errors import BpgenError
from bpgen.run.build import make_network
from bpgen.run.folder import RunFolder
from bpgen.run.replay import SavedSteps, evaluations

GAPS = {
    "clean/accuracy": "clean gap, accuracy",
    "clean/loss": "clean gap, loss",
    "robustness/accuracy": "robustness, accuracy",
    "robustness/loss": "robustness, loss",
    "noisy/accuracy": "noisy gap, accuracy",
    "noisy/loss": "noisy gap, loss",
}
TRAIN_SAMPLES = 5000  # of the training sequences that gaps are measured on, at most
_KEYS = ["run", "step", "samples"]

Row = dict[str, float | int | str]


def measure_networks(study: Path, asked: pd.DataFrame, samples: int, file: Path, jobs: int = 1) -> Iterator[int]:
    """Measure what the file does not hold yet, and add it there run by run; yields how many runs are left.

    Args:
        study: its folder.
        asked: which networks: columns run (relative to the study) and step.
        samples: training sequences that measures are taken on.
        file: a CSV with a row per network.
        jobs: runs at once, one thread each.
    """
    from joblib import Parallel, delayed

    known = read_networks(file)
    done = set(zip(known["run"], known["step"], known["samples"], strict=True))
    todo: dict[str, list[int]] = {}
    for run, step in zip(asked["run"], asked["step"], strict=True):
        if (run, step, samples) not in done:
            todo.setdefault(str(run), []).append(int(step))
    yield len(todo)
    work = (delayed(measure_run)(study, run, steps, samples) for run, steps in todo.items())
    for left, rows in enumerate(Parallel(n_jobs=jobs, return_as="generator")(work), 1 - len(todo)):
        pd.DataFrame(rows).to_csv(file, mode="a", index=False, header=not file.is_file())
        yield -left


def read_networks(file: Path) -> pd.DataFrame:
    """What was measured so far.

    Raises:
        BpgenError: the file is of other measures.
    """
    columns = [*_KEYS, *(m.name for m in MEASURES), *GAPS]
    if not file.is_file():
        return pd.DataFrame(columns=columns)
    table = pd.read_csv(file)
    if list(table.columns) != columns:
        raise BpgenError(f"{file} holds other measures than this bpgen takes: remove it, or choose another --out.")
    return table


def measure_run(study: Path, run: str, steps: Sequence[int], samples: int) -> list[Row]:
    """All measures and gaps of the networks that one run saved at some steps."""
    torch.set_num_threads(1)
    folder = RunFolder.existing(study / run)
    config = folder.config()
    start = make_network(config, config.task.make()).params()
    rows: list[Row] = []
    for evaluation in evaluations(SavedSteps(folder, sorted(steps))):
        problem = evaluation.problem(evaluation.training(samples), regulariser=False)
        net = Trained(problem, start, evaluation.block("all"), evaluation.module.seed)
        where: Row = {"run": run, "step": evaluation.step, "samples": samples}
        rows.append({**where, **measured(net), **gaps(evaluation)})
    return rows


def gaps(evaluation: Evaluation) -> dict[str, float]:
    """The gaps of a network by their columns; nan where there is no such split, noise or accuracy."""
    here = performance(evaluation, evaluation.training(TRAIN_SAMPLES))
    others: dict[str, Performance] = {
        "clean": performance(evaluation, evaluation.subset("test", None)),
        "robustness": performance(evaluation, evaluation.noisy("train", TRAIN_SAMPLES)),
        "noisy": performance(evaluation, evaluation.noisy("test", None)),
    }
    found: dict[str, float] = {}
    for name, other in others.items():
        found |= {f"{name}/accuracy": here.accuracy - other.accuracy, f"{name}/loss": other.loss - here.loss}
    return {name: found[name] for name in GAPS}


def joined(table: pd.DataFrame, networks: pd.DataFrame, samples: int) -> pd.DataFrame:
    """A study's table with measures and gaps where a network was measured; logarithms of measures that have them."""
    own = networks[networks["samples"] == samples].drop(columns="samples")
    whole = table.drop(columns=[c for c in own if c in table and c not in _KEYS]).merge(own, how="left", on=_KEYS[:2])
    for m in MEASURES:
        if m.log:
            whole[m.name] = np.log(whole[m.name].where(whole[m.name] > 0))
    return whole


def defined_gaps(table: pd.DataFrame, reuses_training: bool) -> list[str]:
    """The gaps that vary: not those that nobody measured, nor the clean ones of a task whose test is its training."""
    kept = [g for g in GAPS if g in table and table[g].nunique() > 1 and not math.isnan(table[g].max())]
    return [g for g in kept if not (reuses_training and g.startswith("clean"))]
