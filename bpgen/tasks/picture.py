"""A picture of a task: what goes in and what is asked, for a few trials."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from bpgen.streams import generator
from bpgen.tasks.base import Split, Task

# Okabe and Ito's colours, told apart by colour-blind readers
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

_FEW = 3  # values of an input that jumps between them


def picture(task: Task, title: str, trials: int = 3) -> Figure:
    """The first training trials, one a column: inputs, the same inputs with the test noise, and what is asked.

    Steps at which the answer counts are shaded.
    """
    whole = task.split("train")
    trials = min(trials, whole.size)
    noisy = task.perturb(whole.x[:, :trials], generator(0, "picture"))
    figure = Figure(figsize=(3.6 * trials + 1, 6.5), layout="constrained", dpi=130)
    axes: Any = figure.subplots(3, trials, squeeze=False, sharex=True, sharey="row", height_ratios=(2, 2, 1.2))
    inputs = _Inputs.of(task, whole.x)
    for b, (clean, perturbed, asked) in enumerate(axes.T):
        inputs.draw(clean, whole.x[:, b], f"trial {b + 1} (of {whole.size} for training)")
        inputs.draw(perturbed, noisy[:, b], f"the same with test noise (noise_sd {task.noise_sd:g})")
        _asked(asked, whole.take(torch.tensor([b])), task)
        asked.set_xlabel("time step")
        asked.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    continuous = whole.target.is_floating_point()
    for ax in axes[:2, 0]:
        ax.set_ylabel("input (input units)" if inputs.as_lines else "input number (dark: large)")
        if not inputs.as_lines and inputs.names:
            ax.set_yticks(range(len(inputs.names)), inputs.names, fontsize="small")
            ax.set_ylabel("input (dark: large)")
    axes[2, 0].set_ylabel("target (output units)" if continuous else "target (class)")
    if inputs.as_lines:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False)
    figure.suptitle(title, fontsize="medium")
    return figure


class _Inputs(NamedTuple):
    """How the inputs of a task are drawn: as lines where they can be told apart, else as an image.

    as_lines: not where there are many, nor where all are counts, as symbols and spikes are.
    names: of the inputs; none where there are many.
    steps: whether an input has few values, and jumps between them.
    greys: what is white and what is black in an image, of all its trials, with and without noise.
    """

    as_lines: bool
    names: list[str]
    steps: list[bool]
    greys: tuple[float, float]

    @classmethod
    def of(cls, task: Task, x: Tensor) -> _Inputs:
        """From all training inputs [T,n,I]."""
        few = task.n_in <= len(_COLOURS)
        names = list(task.input_names) or ([f"input {i}" for i in range(task.n_in)] if few else [])
        symbols = bool(((x >= 0) & (x == x.round())).all())
        steps = [len(torch.unique(x[..., i])) <= _FEW for i in range(task.n_in)] if few else []
        known = names if few or len(names) == task.n_in else []
        return cls(few and not symbols, known, steps, (float(x.min()), float(x.max())))

    def draw(self, ax: Axes, x: Tensor, title: str) -> None:
        """Inputs [T,I] of one trial."""
        T, n_in = x.shape
        if self.as_lines:
            for i, colour in enumerate(_COLOURS[:n_in]):
                jumps = {"drawstyle": "steps-mid"}
                style: dict[str, Any] = jumps if self.steps[i] else {"marker": "." if T <= 40 else ""}
                ax.plot(range(1, T + 1), x[:, i], color=colour, lw=1, label=self.names[i], **style)
            ax.spines[["top", "right"]].set_visible(False)
        else:
            extent = (0.5, T + 0.5, n_in - 0.5, -0.5)
            shown = ax.imshow(x.T.numpy(), aspect="auto", cmap="Greys", extent=extent, interpolation="nearest")
            shown.set_clim(*self.greys)
        ax.set_title(title, fontsize="small")


def _asked(ax: Axes, trial: Split, task: Task) -> None:
    """The target of one trial: a line over time, a point at the last step, or a mark for every class."""
    T, timed = trial.x.shape[0], task.when == "all"
    target = trial.target[:, 0] if timed else trial.target[:1]
    steps, continuous = range(1, T + 1) if timed else [T], target.is_floating_point()
    values = target.reshape(len(target), -1)
    if trial.mask is not None and not bool((trial.mask > 0).all()):
        counted = torch.nonzero(trial.mask[:, 0]).flatten()
        ax.axvspan(float(counted[0]) + 0.5, float(counted[-1]) + 1.5, color="0.88", lw=0, zorder=0)
        values = values.float().masked_fill(trial.mask[:, :1] == 0, float("nan"))
    if continuous:
        jumps = len(torch.unique(values[values.isfinite()])) <= _FEW and timed
        style: dict[str, Any] = {"drawstyle": "steps-mid"} if jumps else {"marker": "." if T <= 40 or not timed else ""}
    else:
        style = {"ls": "", "marker": "s", "ms": 4 if T <= 40 else 2.5}  # classes have no values between them
    for o in range(values.shape[1]):
        ax.plot(steps, values[:, o], color=_COLOURS[o % len(_COLOURS)], **style)
    if not continuous:
        ax.set(ylim=(-0.5, task.n_out - 0.5), yticks=range(0, task.n_out, max(1, task.n_out // 4)))
    ax.set_xlim(0.5, T + 0.5)
    ax.spines[["top", "right"]].set_visible(False)
