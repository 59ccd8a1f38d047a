"""What a step of `bpgen fit` costs beyond the rule: the same batch, in the trainer and bare, in one run.

After every step the rule's gradient of that step's batch is taken once more by itself. The step is timed from the end
of that to the end of the trainer's next step, so it holds everything: fetching the batch, the rule, handing its
gradient to autograd, the optimizer, Lightning's hooks.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
import torch

from bpgen.bench import Row
from bpgen.callbacks import EvaluationClock
from bpgen.losses import L2, Loss
from bpgen.network import Network
from bpgen.neurons import Leaky
from bpgen.rules import load_rule
from bpgen.run.folder import RunFolder
from bpgen.run.record import Interrupt
from bpgen.streams import generator
from bpgen.tasks import Task
from bpgen.tasks.base import Split, SplitName
from bpgen.training.data import TaskData
from bpgen.training.module import RuleTraining
from bpgen.training.options import Optimizer, TrainerOptions
from bpgen.training.trainer import quiet_lightning, trainer_for


class Noise(Task):
    """Sequences without meaning, of a given shape [T,n,I]."""

    def __init__(self, n_steps: int, n: int, n_in: int) -> None:
        super().__init__()
        self.n_steps, self.n_in, self.n_out, self._n = n_steps, n_in, 10, n

    def load(self) -> dict[SplitName, Split]:
        """Uniform inputs, random classes."""
        draws = generator(0, "data")
        x = torch.rand(self.n_steps, self._n, self.n_in, generator=draws)
        return {"train": Split(x, torch.randint(10, (self._n,), generator=draws))}


class _Stopwatch(pl.Callback):
    """Times each step, and the bare rule on the same batch right after it."""

    def __init__(self) -> None:
        self.step = self.bare = float("inf")
        self._since = float("inf")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Split, *_: Any) -> None:
        """Read the clock, time the rule alone, start the clock again."""
        now = time.perf_counter()
        self.step = min(self.step, now - self._since if self._since < now else float("inf"))
        with torch.no_grad():
            started = time.perf_counter()
            pl_module.rule.gradients(*pl_module.problem(batch, pl_module.loss, "bench"))
            self.bare = min(self.bare, time.perf_counter() - started)
        self._since = time.perf_counter()


def step_times(rule: str, n_steps: int, batch: int, n_in: int, alpha: float, steps: int) -> tuple[float, float]:
    """Shortest time in ms of a step in the trainer, and of the rule alone, over `steps` steps.

    Args:
        rule: its name.
        n_steps: T.
        batch: B.
        n_in: I; N is 128 and O is 10.
        alpha: of the leaky neurons.
        steps: how many steps.
    """
    task = Noise(n_steps, 16 * batch, n_in)
    loss = Loss(regulariser=L2.of(0.01))
    module = RuleTraining(Network(Leaky(alpha), n_in, n_out=10), load_rule(rule), loss, Optimizer(lr=1e-4))
    watch, clock = _Stopwatch(), EvaluationClock(steps)
    with quiet_lightning():
        trainer = trainer_for(TrainerOptions(max_steps=steps), [clock, Interrupt(RunFolder(".")), watch], None, None)
        trainer.fit(module, datamodule=TaskData(task, loss, batch))
    return 1e3 * watch.step, 1e3 * watch.bare


PEER = "bare rule"
_CASES = (  # rule, T, B, I, α, steps per round
    ("bptt", 28, 256, 28, 1.0, 10),
    ("three_factor", 28, 256, 28, 1.0, 20),
    ("rflo", 8, 16, 8, 0.5, 60),
)


def rows(threads: Iterable[int] = (1, 2), rounds: int = 15) -> list[Row]:
    """A row per thread count and case: the released BPTT run and memoryless three-factor run, and the digits.

    At two threads the goal is 1.15 of the bare rule for the released BPTT run, and 0.8 ms above it elsewhere.
    """
    found, before = [], torch.get_num_threads()
    try:
        for n in threads:
            torch.set_num_threads(n)
            for rule, T, B, I, alpha, steps in _CASES:
                ms, bare = step_times(rule, T, B, I, alpha, steps * rounds)
                goal = None if n != 2 else 1.15 if rule == "bptt" else 1 + 0.8 / bare
                case = f"fit step, {rule}, α = {alpha:g}, T = {T}, B = {B}"
                met = None if goal is None else ms / bare <= goal
                found.append(Row(case, n, ms, PEER, bare, ms / bare, goal, met))
    finally:
        torch.set_num_threads(before)
    return found


def table(found: list[Row]) -> str:
    """One line per row."""
    lines = [f"{'a step of `bpgen fit`':48}{'threads':>8}{'ms':>8}{'bare rule':>12}{'above':>10}{'ratio':>8}"]
    for r in found:
        goal = "" if r.goal is None else f"  ({'<=' if r.met else 'not'} {r.goal:.2f})"
        above = f"{r.ms - r.peer_ms:.2f} ms"
        lines.append(f"{r.case:48}{r.threads:8}{r.ms:8.2f}{r.peer_ms:12.2f}{above:>10}{r.ratio:8.2f}{goal}")
    return "\n".join(lines)
