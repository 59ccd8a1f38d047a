"""The saved networks of a study under perturbations of every size; nothing is trained again.

For every condition and the first one, at the training loss that both reach (`bpgen.analysis.matching`), the networks
on both sides of that loss are put to the same inputs, and what they answer is interpolated as every other measure is.
At each size the gap is the sum of two, as it is during training (`bpgen.callbacks.generalization_gap`):

    robustness       accuracy on training inputs - on perturbed training inputs     what the perturbation costs
    generalization   accuracy on perturbed training - on perturbed test inputs      what is lost to new trials

Perturbations: "noise", the task's own, of any size; "shift", inputs moved sideways by so many places, left or right by
chance (columns of a picture). Size 0 is the clean test. Answers are kept test item by test item, for intervals that
are over items too (`bpgen.analysis.crossed`).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from bpgen.analysis.crossed import crossed_interval
from bpgen.analysis.matching import LOSS, around
from bpgen.analysis.settings import Setting, settings
from bpgen.analysis.statistics import Array, mean_effect
from bpgen.callbacks.performance import share_by_sequence
from bpgen.errors import require
from bpgen.run.folder import RunFolder
from bpgen.run.replay import SavedSteps, evaluations
from bpgen.tasks import Task
from bpgen.training.splits import TaskSplits

MEASURES = ("gap", "robustness", "generalization")
TRAIN_SAMPLES = 5000  # of the training sequences that gaps are measured on, at most


class Size(NamedTuple):
    """A perturbation: "clean", "noise" or "shift", and how large."""

    kind: str
    size: float


CLEAN = Size("clean", 0.0)


class Answers(NamedTuple):
    """Of one network: accuracy on training inputs [sizes], and the share right of every test item [sizes, items]."""

    train: Array
    test: Array


def perturbed(task: Task, at: Size) -> Task:
    """The task with this perturbation in place of its own.

    Raises:
        BpgenError: a shift of inputs that have too few places.
    """
    other = copy.copy(task)
    if at.kind == "noise":
        other.noise_sd = at.size
    elif at.kind == "shift":
        places = int(at.size)
        require(0 < places < task.n_in, f"a shift must be from 1 to {task.n_in - 1} inputs of this task, got {places}.")

        def shifted(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            left = torch.rand(x.shape[1], generator=generator) < 0.5
            empty = torch.zeros_like(x[..., :places])
            moved = torch.cat([x[..., places:], empty], -1), torch.cat([empty, x[..., :-places]], -1)
            return torch.where(left[:, None], *moved)

        other.__dict__["perturb"] = shifted
    return other


def answers(study: Path, run: str, steps: Sequence[int], sizes: Sequence[Size], cache: Path) -> dict[int, Answers]:
    """What the networks of a run answer at some steps; read from `cache` where it was asked before."""
    key = hashlib.sha256(repr((run, sorted(steps), list(sizes))).encode()).hexdigest()[:16]
    file = cache / f"{key}.npz"
    if not file.is_file():
        found = _measured(study, run, sorted(steps), sizes)
        arrays = {f"{name}{step}": value for step, own in found.items() for name, value in own._asdict().items()}
        cache.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npz")
        np.savez_compressed(part, **arrays)
        part.replace(file)
    with np.load(file) as kept:
        return {step: Answers(kept[f"train{step}"], kept[f"test{step}"].astype(float)) for step in steps}


def _measured(study: Path, run: str, steps: Sequence[int], sizes: Sequence[Size]) -> dict[int, Answers]:
    torch.set_num_threads(1)
    folder = RunFolder.existing(study / run)
    task = folder.config().make_task()
    splits: dict[Size, TaskSplits] = {}
    found: dict[int, Answers] = {}
    accurate = task.loss != "mse" or not task.split("train").target.is_floating_point() or task.tolerance is not None
    require(task.has("test") and accurate, f"the task of {run} has no test accuracy to look at.")
    for evaluation in evaluations(SavedSteps(folder, list(steps))):
        train, test = [], []
        for at in sizes:
            own = splits.setdefault(at, TaskSplits(perturbed(task, at), evaluation.module.loss))
            seed, draw = evaluation.module.seed, own.subset if at == CLEAN else own.noisy
            parts = draw("train", TRAIN_SAMPLES, seed), draw("test", None, seed)
            shares = [share_by_sequence(evaluation, part).cpu().numpy() for part in parts if part is not None]
            train.append(shares[0].mean())
            test.append(shares[1].astype(np.float32))
        found[evaluation.step] = Answers(np.array(train), np.stack(test))
    return found


class Place(NamedTuple):
    """Where a run is matched in one comparison: its steps on both sides, and the weight of the later one."""

    setting: str
    pair: tuple[str, str]
    condition: str
    seed: int
    run: str
    steps: tuple[int, int]
    weight: float


def places(table: pd.DataFrame) -> list[Place]:
    """All runs of all comparisons with the first condition of a setting, where they come down to the common loss."""
    return [place for setting in settings(table) for place in _of_setting(setting)]


def _of_setting(setting: Setting) -> Iterator[Place]:
    first, *others = setting.conditions
    for condition in others:
        level = setting.common_loss(condition, first)
        for (own, seed), run in setting.of(condition, first).sort_values("step").groupby(["condition", "seed"]):
            at = around(run[LOSS].to_numpy(float), level)
            if at is not None:
                steps = int(run["step"].iloc[max(0, at[0] - 1)]), int(run["step"].iloc[at[0]])
                name = str(run["run"].iloc[0])
                yield Place(setting.name, (condition, first), str(own), int(seed), name, steps, at[1])


def curves(found: Sequence[tuple[Place, dict[int, Answers]]], sizes: Sequence[Size]) -> pd.DataFrame:
    """A row per comparison, size and measure: the difference in points over seeds, with both intervals.

    Columns: setting, condition, reference, kind, size, measure, n, difference, low, high (over seeds), and of the gap
    low_items, high_items (over seeds and test items).
    """
    rows: list[dict[str, object]] = []
    for setting, pair in dict.fromkeys((place.setting, place.pair) for place, _ in found):
        own = {(p.condition, p.seed): _at(p, a) for p, a in found if (p.setting, p.pair) == (setting, pair)}
        seeds = [s for c, s in own if c == pair[0] and (pair[1], s) in own]
        where = {"setting": setting, "condition": pair[0], "reference": pair[1]}
        for i, at in enumerate(sizes):
            whole = {s: _gaps(own[pair[0], s], i) - _gaps(own[pair[1], s], i) for s in seeds}  # [measures, items]
            for k, measure in enumerate(MEASURES):
                if not (at == CLEAN and k):
                    rows.append({**where, **at._asdict(), "measure": measure, **_difference(whole, k)})
    return pd.DataFrame(rows)


def _at(place: Place, own: dict[int, Answers]) -> Answers:
    """Interpolated between the two evaluations."""
    (a, b), w = place.steps, place.weight
    return Answers(*((1 - w) * before + w * after for before, after in zip(own[a], own[b], strict=True)))


def _gaps(own: Answers, i: int) -> Array:
    """`MEASURES` at a size, [3, items]: what every item adds to each."""
    test, clean, train = own.test[i], own.train[0], own.train[i]
    return np.stack([clean - test, np.full_like(test, clean - train), train - test])


def _difference(whole: dict[int, Array], k: int) -> dict[str, float]:
    means = {seed: float(100 * gaps[k].mean()) for seed, gaps in whole.items()}
    effect = mean_effect(means, len(means))
    low, high = effect.interval()
    row = {"n": effect.n, "difference": effect.estimate, "low": low, "high": high}
    if MEASURES[k] == "gap" and whole:
        items = crossed_interval(100 * np.stack([gaps[k] for gaps in whole.values()]))
        row |= dict(zip(("low_items", "high_items"), items, strict=True))
    return row
