"""Seeds trained at once, against as many trained one after the other: a step of each in the trainer, in one run.

Both hold everything that a step of `bpgen fit` does: fetching batches, the rule, the optimizer, Lightning's hooks; an
evaluation is not in it, since each seed has its own either way. On a GPU the steps are waited for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch

from bpgen.bench import Row
from bpgen.bench.trainer import Noise
from bpgen.losses import Loss
from bpgen.network import Network
from bpgen.neurons import Leaky
from bpgen.rules import load_rule
from bpgen.training.at_once import slower
from bpgen.training.data import TaskData
from bpgen.training.module import RuleTraining
from bpgen.training.options import Optimizer, TrainerOptions
from bpgen.training.seeds import SeedsData, SeedsTraining
from bpgen.training.trainer import quiet_lightning, trainer_for

GOAL = 0.4  # of eight digits networks on one thread of a CPU
CASES = (  # what, rule, T, B, N, I, α
    ("digits", "rflo", 8, 16, 128, 8, 0.5),
    ("digits", "bptt", 8, 16, 128, 8, 0.5),
    ("N = 256", "rflo", 8, 16, 256, 8, 0.5),
    ("B = 64", "rflo", 8, 64, 128, 8, 0.5),
    ("T = 50", "rflo", 50, 16, 128, 8, 0.5),
    ("MNIST as released", "three_factor", 28, 256, 128, 28, 1.0),
    ("MNIST as released", "bptt", 28, 256, 128, 28, 1.0),
)


class _Mean(pl.Callback):
    """The mean time of a step in s, from the end of the first step to that of the last."""

    def __init__(self, steps: int) -> None:
        self.steps, self.seconds = steps, 0.0
        self._began = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Read the clock at both ends."""
        if trainer.global_step in (1, self.steps):
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            self._began, self.seconds = now, (now - self._began) / (self.steps - 1)


def _seconds(module: pl.LightningModule, data: pl.LightningDataModule, steps: int, accelerator: Any) -> float:
    watch = _Mean(steps)
    with quiet_lightning():
        options = TrainerOptions(max_steps=steps, accelerator=accelerator)
        trainer_for(options, [watch], None, None).fit(module, datamodule=data)
    return watch.seconds


def _made(rule: str, sizes: Sequence[int], alpha: float, seeds: int) -> tuple[list[RuleTraining], list[TaskData]]:
    T, B, N, I = sizes
    task, loss = Noise(T, 16 * B, I), Loss()
    modules = [
        RuleTraining(Network(Leaky(alpha), I, N, 10, seed=s), load_rule(rule), loss, Optimizer(lr=1e-4), seed=s)
        for s in range(seeds)
    ]
    return modules, [TaskData(task, loss, B, s) for s in range(seeds)]


def rows(
    seeds: Iterable[int] = (8,), threads: int = 1, rounds: int = 15, accelerator: str = "cpu", steps: int = 20
) -> list[Row]:
    """A row for each number of seeds and case; alone is one seed's step times their number.

    Args:
        seeds: how many at once, S.
        threads: of torch.
        rounds: of so many steps; the shortest counts.
        accelerator: cpu or gpu.
        steps: of a round.
    """
    found, before = [], torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for S in seeds:
            for what, rule, T, B, N, I, alpha in CASES:
                together = alone = float("inf")
                modules, data = _made(rule, (T, B, N, I), alpha, S)
                single, own = _made(rule, (T, B, N, I), alpha, 1)
                all_of_them = SeedsTraining(modules)
                for _ in range(rounds):
                    alone = min(alone, _seconds(single[0], own[0], steps, accelerator))
                    together = min(together, _seconds(all_of_them, SeedsData(data), steps, accelerator))
                ratio = together / (S * alone)
                goal = GOAL if what == "digits" and S >= 8 and accelerator == "cpu" and threads == 1 else None
                thumb = "one after the other" if slower(B * N * N, accelerator) else "at once"
                case = f"{S} seeds, {rule}, {what}: `fit` takes them {thumb}"
                met = None if goal is None else ratio <= goal
                found.append(Row(case, threads, 1e3 * together, "alone", 1e3 * S * alone, ratio, goal, met))
    finally:
        torch.set_num_threads(before)
    return found


def table(found: Sequence[Row]) -> str:
    """One line per row."""
    lines = [f"{'a step of all seeds':72}{'threads':>8}{'at once':>10}{'alone':>10}{'ratio':>8}"]
    for r in found:
        goal = "" if r.goal is None else f"  ({'<=' if r.met else 'not'} {r.goal:.2f})"
        lines.append(f"{r.case:72}{r.threads:8}{r.ms:7.2f} ms{r.peer_ms:7.2f} ms{r.ratio:8.2f}{goal}")
    if not torch.cuda.is_available():
        lines.append("There is no GPU here; where there is one: bpgen bench --seeds 1 8 64 --accelerator gpu")
    return "\n".join(lines)
