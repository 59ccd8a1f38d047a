"""A picture of a task: what goes in and what is asked, for a few trials."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from bpgen.streams import generator
from bpgen.tasks.base import Split, Task

# Okabe and Ito's colours, told apart by colour-blind readers
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def picture(task: Task, title: str, trials: int = 3) -> Figure:
    """The first training trials, one a column: inputs, the same inputs with the test noise, and what is asked.

    Steps at which the answer counts are shaded.
    """
    whole = task.split("train")
    trials = min(trials, whole.size)
    noisy = task.perturb(whole.x[:, :trials], generator(0, "picture"))
    figure = Figure(figsize=(3.6 * trials + 1, 6.5), layout="constrained", dpi=130)
    axes: Any = figure.subplots(3, trials, squeeze=False, sharex=True, sharey="row", height_ratios=(2, 2, 1.2))
    for b, (clean, perturbed, asked) in enumerate(axes.T):
        _inputs(clean, whole.x[:, b], f"trial {b + 1} (of {whole.size} for training)")
        _inputs(perturbed, noisy[:, b], f"the same with test noise, sd {task.noise_sd:g}")
        _asked(asked, whole.take(torch.tensor([b])), task)
        asked.set_xlabel("time step")
    few, continuous = task.n_in <= len(_COLOURS), whole.target.is_floating_point()
    for ax in axes[:2, 0]:
        ax.set_ylabel("input (input units)" if few else "input number (dark: large)")
    axes[2, 0].set_ylabel("target (output units)" if continuous else "target (class)")
    if few:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False)
    figure.suptitle(title, fontsize="medium")
    return figure


def _inputs(ax: Axes, x: Tensor, title: str) -> None:
    """Inputs [T,I]: lines where they can be told apart, else an image."""
    T, n_in = x.shape
    if n_in <= len(_COLOURS):
        for i, colour in enumerate(_COLOURS[:n_in]):
            ax.plot(range(1, T + 1), x[:, i], color=colour, lw=1, marker="." if T <= 40 else "", label=f"input {i}")
        ax.spines[["top", "right"]].set_visible(False)
    else:
        ax.imshow(
            x.T.numpy(), aspect="auto", cmap="Greys", extent=(0.5, T + 0.5, n_in - 0.5, -0.5), interpolation="nearest"
        )
    ax.set_title(title, fontsize="small")


def _asked(ax: Axes, trial: Split, task: Task) -> None:
    """The target of one trial: a line over time, or a point at the last step."""
    T, timed = trial.x.shape[0], task.when == "all"
    target = trial.target[:, 0] if timed else trial.target[:1]
    steps, continuous = range(1, T + 1) if timed else [T], target.is_floating_point()
    values = target.reshape(len(target), -1)
    if trial.mask is not None and not bool((trial.mask > 0).all()):
        counted = torch.nonzero(trial.mask[:, 0]).flatten()
        ax.axvspan(float(counted[0]) + 0.5, float(counted[-1]) + 1.5, color="0.88", lw=0, zorder=0)
        values = values.float().masked_fill(trial.mask[:, :1] == 0, float("nan"))
    for o in range(values.shape[1]):
        ax.plot(steps, values[:, o], color=_COLOURS[o % len(_COLOURS)], marker="." if T <= 40 or not timed else "")
    if not continuous:
        ax.set(ylim=(-0.5, task.n_out - 0.5), yticks=range(0, task.n_out, max(1, task.n_out // 4)))
    ax.set_xlim(0.5, T + 0.5)
    ax.spines[["top", "right"]].set_visible(False)
