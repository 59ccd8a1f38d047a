"""Williams et al. 2026: in data-aligned linear networks modes learn alone, under RFLO by the sign of its feedback.

    (a) the modes of networks in training follow a flow of three equations, under BPTT, RFLO and tBPTT(1)
    (b) a solution attracts under RFLO where feedback and readout have one sign in a mode, and repels where not
    (c) under RFLO with fixed feedback, W - W_0 and B - B_0 have at most as many directions as there are outputs
The equations, and the networks, are in `bpgen.papers.linear_theory`. (c) needs no alignment of modes: it is of random
networks. What it says of neurons that saturate is not in the paper, and described.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from bpgen.analysis.matching import LOWEST_COMMON, Level
from bpgen.analysis.statistics import Effect, mean_effect
from bpgen.analysis.verdicts import Check, Kind
from bpgen.complexity.weights import change_of
from bpgen.figures.style import BLACK, BLUE, GREEN, VERMILION, sheet
from bpgen.losses import Loss
from bpgen.network import Network
from bpgen.neurons import Leaky
from bpgen.neurons.leaky import ActivationName
from bpgen.papers.base import Claim, Paper, Simulation, Size
from bpgen.papers.linear_theory import Aligned, Modes, RuleName, Training, flow, rule_of
from bpgen.problem import Problem
from bpgen.rules import load_rule
from bpgen.streams import generator

ALPHA, MODES = 0.4, 3  # v = 0.6
ERROR = 0.05  # of the way that the modes went: less is as the flow says
MOVED = float(np.log(2))  # of a distance: half or twice as far
SAME_GROWTH = 0.2  # of the logarithm of a distance
NEAR = 0.1
BEYOND = 1e-6, 1e-3  # of the squared change: no direction more; some
NAMES: dict[RuleName, str] = {"bptt": "BPTT", "rflo": "RFLO", "tbptt": "tBPTT(1)"}
SIGNS = {"same": 1.0, "opposite": -1.0}
Row = dict[str, Any]


def of_seed(seed: int, steps: int) -> pd.DataFrame:
    """All simulations of one seed, one row each; modes along training have a row for each look."""
    rows = [*_learning(seed, steps), *_near_the_solution(seed), *_ranks(seed)]
    return pd.DataFrame({"seed": seed, **row} for row in rows)


def _drawn(seed: int) -> tuple[Aligned, Modes, Modes, Modes]:
    """Aligned networks, a start, a teacher and feedback."""
    rng = np.random.default_rng([seed, 2026])
    M = MODES
    teacher = np.stack([rng.uniform(0.8, 1.2, M), rng.uniform(0.8, 1.2, M), rng.uniform(0.3, 0.7, M)])
    start = np.stack([rng.uniform(0.3, 0.6, M), rng.uniform(0.3, 0.6, M), rng.uniform(0.0, 0.2, M)])
    return Aligned.drawn(M, ALPHA, seed), start, teacher, rng.uniform(0.6, 1.0, M)


def _learning(seed: int, steps: int) -> list[Row]:
    """(a): modes of trained networks and of the flow, at every look."""
    aligned, start, teacher, f = _drawn(seed)
    training, rows = Training(steps), []
    for name, label in NAMES.items():
        rule = rule_of(name, aligned.feedback(f) if name == "rflo" else None)
        trained, between = training.run(aligned, rule, start, teacher, seed)
        theory = flow(name, start, teacher, training.looks * training.rate, f, 1 - ALPHA)
        error = float(np.linalg.norm(trained - theory) / np.linalg.norm(theory - theory[0]))
        for step, got, said in zip(training.looks, trained, theory, strict=True):
            modes = {
                f"{prefix}{letter}{i}": float(values[k, i])
                for prefix, values in (("", got), ("flow_", said))
                for k, letter in enumerate("abw")
                for i in range(MODES)
            }
            rows.append({"part": "learning", "condition": label, "step": int(step), "error": error, **modes})
        rows[-1]["between"] = between
    return rows


def _near_the_solution(seed: int, steps: int = 200, rate: float = 0.01) -> list[Row]:
    """(b): how far a small disturbance of the solution has come, in logarithms, under both signs of the feedback.

    At the last look before the flow is as far as `NEAR`: further away it is no disturbance.
    """
    aligned, _, teacher, f = _drawn(seed)
    rng = np.random.default_rng([seed, 7])
    start = teacher + 1e-3 * rng.choice([-1.0, 1.0], size=teacher.shape)
    training, rows = Training(steps, rate, every=10), []
    for label, sign in SIGNS.items():
        rule = rule_of("rflo", aligned.feedback(sign * f))
        trained, _ = training.run(aligned, rule, start, teacher, seed)
        theory = flow("rflo", start, teacher, training.looks * training.rate, sign * f, 1 - ALPHA)
        said, got = (np.array([_distance(at, teacher) for at in modes]) for modes in (theory, trained))
        near = said < NEAR  # not where it is no number
        last = len(near) - 1 if near.all() else int(near.argmin()) - 1
        moved, flow_moved = (float(np.log(d[last] / d[0])) for d in (got, said))
        step = int(training.looks[last])
        rows.append({"part": "solution", "condition": label, "step": step, "moved": moved, "flow_moved": flow_moved})
    return rows


def _distance(at: Modes, teacher: Modes) -> float:
    """From the solutions, in ab - AB and w - W, which alone make the loss."""
    return float(np.hypot(at[0] * at[1] - teacher[0] * teacher[1], at[2] - teacher[2]).sum())


def _ranks(seed: int, steps: int = 120, rate: float = 0.05, T: int = 30, batch: int = 16) -> list[Row]:
    """(c): what the O largest directions leave of the change of W and of B, in random networks with a teacher."""
    rows, mean = [], torch.full((T, batch), 1 / T, dtype=torch.float64)
    kinds: list[tuple[str, RuleName, ActivationName]] = [
        ("RFLO", "rflo", "linear"),
        ("BPTT", "bptt", "linear"),
        ("RFLO, tanh", "rflo", "tanh"),
    ]
    for label, name, phi in kinds:
        options: Any = {"autapses": True, "bias": "none", "init": "glorot2010", "dtype": torch.float64}
        student, other = (Network(Leaky(ALPHA, phi), 6, 32, 3, seed=s, **options) for s in (seed, seed + 10_000))
        start, teacher = ({**n.params(), "W_rec": 0.5 * n.params()["W_rec"]} for n in (student, other))  # stable
        rule, params = load_rule(name).bind(student, seed), start
        for step in range(steps):
            x = torch.randn(T, batch, 6, generator=generator(seed, "noise", step), dtype=torch.float64)
            with torch.no_grad():
                target = other.run(teacher, x, when="all").outputs.clone()
                grads = rule.gradients(Problem(student, params, x, target, Loss.of("mse", "all", mean))).grads
            params = {n: w - rate * grads[n] for n, w in params.items()}
        W, B = (change_of(params[n], start[n], student.n_out).beyond for n in ("W_rec", "W_in"))
        rows.append({"part": "rank", "condition": label, "step": steps, "beyond_W": W, "beyond_B": B})
    return rows


def _effect(table: pd.DataFrame, part: str, condition: str, column: str, sign: float = 1.0) -> Effect:
    """The mean over seeds of a column at the last row of a condition."""
    rows = table[(table["part"] == part) & (table["condition"] == condition)].groupby("seed").last()
    return mean_effect({int(seed): sign * float(v) for seed, v in rows[column].items()}, table["seed"].nunique())


def along_training(table: pd.DataFrame) -> Figure:
    """Modes of networks in training, and of the flow, of the first seed."""
    seed = table["seed"].min()
    figure, axes = sheet(3, f"Data-aligned linear networks, seed {seed}: training (dots) and flow (lines)", 3)
    first = table[(table["seed"] == seed) & (table["part"] == "learning")]
    for ax, (condition, rows) in zip(axes, first.groupby("condition", sort=False), strict=True):
        for name, color in (("a", VERMILION), ("b", GREEN), ("w", BLUE)):
            for i in range(MODES):
                ax.plot(rows["step"], rows[f"flow_{name}{i}"], color=color, lw=1)
                shown = rows.iloc[::2]
                ax.plot(shown["step"], shown[f"{name}{i}"], ".", color=color, ms=4, label=name if i == 0 else None)
        ax.set(xlabel="training step", ylabel="modes", title=str(condition))
    axes[0].legend(frameon=False)
    return figure


def around_the_solution(table: pd.DataFrame) -> Figure:
    """How far a disturbance came, trained against flow, for both signs of the feedback."""
    figure, (ax,) = sheet(1, "RFLO near a solution")
    rows = table[table["part"] == "solution"]
    for (condition, own), color in zip(rows.groupby("condition", sort=False), (BLUE, VERMILION), strict=True):
        ax.plot(own["flow_moved"], own["moved"], "o", color=color, ms=4, label=f"feedback of the {condition} sign")
    ends = [rows["flow_moved"].min(), rows["flow_moved"].max()]
    ax.plot(ends, ends, color=BLACK, lw=1, ls=(0, (1, 3)))
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.set(xlabel="log of the distance moved, flow", ylabel="log of the distance moved, training")
    ax.set_title(f"Away (> 0) or back (< 0), n = {rows['seed'].nunique()} seeds")
    ax.legend(frameon=False)
    return figure


_FIGURES = {"along_training": along_training, "around_the_solution": around_the_solution}


def _size(seeds: int, steps: int, time: str) -> Size:
    return Size([], time, Simulation(partial(of_seed, steps=steps), seeds, _FIGURES))


class Williams2026(Paper):
    """Williams, Payeur and Lajoie: the dynamics of learning with local rules in linear recurrent networks."""

    title = "Learning dynamics of RFLO in data-aligned linear recurrent networks"
    citation = "Williams, Payeur and Lajoie, ICML 2026, arXiv 2606.00243"
    sizes: ClassVar = {
        "quick": _size(5, 240, "5 seeds: about 2 minutes on 2 cores"),
        "default": _size(10, 400, "10 seeds: about 6 minutes on 2 cores"),
        "full": _size(20, 800, "20 seeds: about 25 minutes on 2 cores"),
    }
    claims: ClassVar = {
        "a": Claim("each mode follows its own flow of three equations", "derived for long sequences"),
        "b": Claim("feedback of the readout's sign makes solutions attract, of the opposite sign repel", "derived"),
        "c": Claim("RFLO moves W and B along at most as many directions as there are outputs", "derived"),
    }
    remark = (
        f"Networks of {MODES} modes with α = {ALPHA:g}, so that RFLO's trace keeps {1 - ALPHA:g}; white noise, fresh "
        "in every batch. Errors are of modes along training, relative to the way they went; distances are of what "
        "makes the loss, ab - AB and w - W. What three directions leave is of random networks of 32 neurons, 3 outputs."
    )

    def checks(self, table: pd.DataFrame, level: Level = LOWEST_COMMON) -> Iterable[Check]:
        """Claim by claim; nothing is matched."""
        effect = partial(_effect, table)
        for label in NAMES.values():
            text, figure = f"the modes of networks under {label} are where the flow says", "along_training"
            off = effect("learning", label, "error")
            yield Check("a", "aligned networks", text, off, "at most", ERROR, "of the way", figure)
        setting, figure = "RFLO near a solution", "around_the_solution"
        both = table.assign(off=table["moved"] - table["flow_moved"])
        for label, sign, where in (("same", -1.0, "comes back"), ("opposite", 1.0, "leaves")):
            text = f"with feedback of the {label} sign a disturbed network {where}"
            yield Check("b", setting, text, effect("solution", label, "moved", sign), "larger", MOVED, "log", figure)
            text, off = f"... as far as the flow says ({label} sign)", _effect(both, "solution", label, "off")
            yield Check("b", setting, text, off, "same", SAME_GROWTH, "log", figure)
        kinds: list[tuple[str, Kind, float]] = [
            ("RFLO", "at most", BEYOND[0]),
            ("BPTT", "larger", BEYOND[1]),
            ("RFLO, tanh", "description", BEYOND[1]),
        ]
        for label, kind, smallest in kinds:
            for weights in ("W", "B"):
                text = f"{label} moves {weights} along {'' if kind == 'larger' else 'no '}more directions than outputs"
                found = effect("rank", label, f"beyond_{weights}")
                yield Check("c", "random networks", text, found, kind, smallest, "share", "")
