"""Similarity of a run's saved networks to another run, or to recorded data, along training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from bpgen.errors import choice, require
from bpgen.network import Network
from bpgen.run.files import load_file
from bpgen.run.replay import load_run, saved_steps
from bpgen.similarity.distances import cca, cka, procrustes
from bpgen.similarity.recordings import Recording, read_recording
from bpgen.similarity.split_half import DRAWS, NEURONS, sampled
from bpgen.tasks import Task
from bpgen.tasks.split import SplitName

Array = NDArray[np.float64]
SAMPLES = 200
COLUMNS = ("step", "loss", "procrustes", "cka", "cca", "normalised", "baseline")


def along(
    run: str | os.PathLike[str],
    other: str | os.PathLike[str],
    step: str = "all",
    split: SplitName = "test",
    samples: int = SAMPLES,
    neurons: int = NEURONS,
    draws: int = DRAWS,
) -> pd.DataFrame:
    """A row for every saved network of a run: how alike it is to the last one of another run, or to data.

    All of them see the same inputs, without noise: those of the data where the file has them, else the first sequences
    of the run's split, one for each condition of the data. Padding counts as any other step.

    Args:
        run: a run's folder, or a file of its weights/.
        other: another run's folder, or an .npz file as `read_recording` takes it.
        step: of the run: a number, "last", "best" or "all".
        split: train, val or test.
        samples: sequences to compare two runs on, at most.
        neurons: of every sample behind "normalised" and "baseline" (`sampled`); 0 leaves both out.
        draws: how many samples.

    Returns: columns step, loss (of training), procrustes (radians), cka, cca, normalised, baseline.

    Raises:
        BpgenError: no such run, file or step, or the two do not fit each other.
    """
    saved = saved_steps(run, step)
    loaded = load_run(saved.folder.path, saved.steps[-1])
    network, task = loaded.network, loaded.task
    data, x = _compared(other, network, task, choice("split", split, SplitName), samples)
    losses = {int(row["step"]): row.get("train/loss", float("nan")) for row in saved.folder.rows() if "step" in row}
    files, rows = saved.folder.weights(), []
    for at in saved.steps:
        state = load_file(files[at], "name another run", "network")["network"]
        own = recorded(network, {name: state[name] for name in network.params()}, x)
        row = {"step": at, "loss": losses.get(at, float("nan"))}
        rows.append(row if not np.isfinite(own).all() else {**row, **_alike(data.activity, own, neurons, draws)})
    return pd.DataFrame(rows, columns=COLUMNS)


def recorded(network: Network, params: Mapping[str, Tensor], x: Array) -> Array:
    """A network's activity [C,T,N] on inputs [C,T,I], without noise."""
    inputs = torch.from_numpy(np.ascontiguousarray(x.swapaxes(0, 1))).to(params["W_in"])
    with torch.no_grad():
        h = network.run(params, inputs, in_place=False).h[1:]
    return h.transpose(0, 1).double().cpu().numpy()


def _alike(data: Array, own: Array, neurons: int, draws: int) -> dict[str, float]:
    row = {"procrustes": procrustes(own, data), "cka": cka(own, data), "cca": cca(own, data)}
    if neurons:
        found = sampled(data, own, neurons=neurons, draws=draws)
        row |= {"normalised": found.normalised, "baseline": found.baseline}
    return row


def _compared(
    other: str | os.PathLike[str], network: Network, task: Task, split: SplitName, samples: int
) -> tuple[Recording, Array]:
    """What a network is compared with, and the inputs [C,T,I] that it is to see."""
    require(samples >= 2, f"two sequences are the fewest to compare networks on, got {samples}.")
    if Path(other).suffix == ".npz":
        data = read_recording(other)
        C, T, _ = data.activity.shape
        x = _inputs(task, split, C) if data.x is None else data.x
        where = f"x in {other}" if data.x is not None else f"the run's {split} split"
        cure = "Give the inputs of the conditions as the array x [conditions, time, inputs]."
        require(len(x) == C, f"{other} has {C} conditions, and {where} {len(x)} sequences. {cure}")
        require(x.shape[1] == T, f"{other} has {T} time steps, and {where} {x.shape[1]}: resample the data. {cure}")
        fits = x.shape[-1] == network.n_in
        require(fits, f"{where} has {x.shape[-1]} inputs, and the network {network.n_in}.")
        return data, x
    its, x = load_run(other), _inputs(task, split, samples)
    n_in = its.network.n_in
    require(
        n_in == network.n_in,
        f"the networks must see the same inputs, and have {network.n_in} and {n_in} ({other}): compare runs of a task.",
    )
    return Recording(str(other), recorded(its.network, its.network.params(), x)), x


def _inputs(task: Task, split: SplitName, most: int) -> Array:
    """The first inputs of a split [C,T,I]."""
    require(task.has(split), f"the run's task has no {split} split.")
    x: Any = task.split(split).x[:, :most]
    inputs: Array = x.transpose(0, 1).double().numpy()
    return inputs
