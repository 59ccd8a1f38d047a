"""Tasks of neurogym: cognitive tasks of the field as trials with inputs and right answers at every step.

Source: M. Molano-Mazón et al., NeuroGym: an open resource for developing and sharing neuroscience tasks (2022),
https://neurogym.github.io. Trials are drawn by the environment's `new_trial`; its observations are the inputs and its
ground truth the targets. Trials differ in length: shorter ones are padded, and padded steps have no weight.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from bpgen.errors import BpgenError, require
from bpgen.tasks import Split, TrialTask
from bpgen.tasks.trials import clean_gap_of

_LOOKED_AT = 200  # trials that tell how long they are, and whether they repeat themselves


class NeuroGym(TrialTask):
    """A task of neurogym (Molano-Mazón 2022), learned from its right answers at every step.

    Classes where actions are discrete, values (squared error) where they are not. The loss is a mean over the steps of
    the longest trial; steps after a trial's end have no weight.

    Args:
        env: name of the environment, e.g. PerceptualDecisionMaking-v0.
        env_options: its options by name, e.g. {dt: 50}.
        n_steps: of a sequence; trials that are longer are drawn again. null is the longest of 200.
        decision_only: whether only steps count at which the right answer is not 0 (fixation); needs classes.
        tolerance: of values: an output counts as right within this distance; null leaves accuracy out.
        **trials: see `TrialTask`.
    """

    when = "all"

    def __init__(
        self,
        env: str = "PerceptualDecisionMaking-v0",
        env_options: dict[str, Any] | None = None,
        n_steps: int | None = None,
        decision_only: bool = False,
        tolerance: float | None = None,
        **trials: Any,
    ) -> None:
        super().__init__(**trials)
        self.env, self.env_options, self.decision_only = env, env_options or {}, decision_only
        made = self._made(0)
        first = [_trial(made) for _ in range(_LOOKED_AT)]
        inputs, answers = first[0]
        self.n_in, classes = inputs.shape[1], answers.ndim == 1
        require(classes or not decision_only, f"task.decision_only needs classes, {env} asks for values.")
        self.loss = "cross_entropy" if classes else "mse"  # type: ignore[misc]
        self.n_out = int(made.action_space.n) if classes else answers.shape[1]
        self.tolerance = tolerance
        twice = _LOOKED_AT - len({x.tobytes() for x, _ in first})
        if twice:  # so many of a finite number of different trials: the birthday problem
            self.reuses_training = True
            self.clean_gap = clean_gap_of(max(1, _LOOKED_AT * (_LOOKED_AT - 1) // (2 * twice)), self.sizes["train"])
        lengths = [len(x) for x, _ in first]
        self.n_steps = max(lengths) if n_steps is None else n_steps
        require(
            self.n_steps >= min(lengths), f"task.n_steps must be at least {min(lengths)}, the shortest trial of {env}."
        )

    def trials(self, n: int, random: torch.Generator) -> Split:
        """x [T,n,I], target int64 [T,n] or float [T,n,O], mask [T,n]."""
        env = self._made(int(torch.randint(2**31, (), generator=random)))
        x, mask = torch.zeros(self.n_steps, n, self.n_in), torch.zeros(self.n_steps, n)
        classes = self.loss == "cross_entropy"
        target = torch.zeros((self.n_steps, n) if classes else (self.n_steps, n, self.n_out))
        weight = 1 / self.n_steps if classes else 1.0
        for i in range(n):
            inputs, answers = self._fitting(env)
            steps = len(inputs)
            x[:steps, i], target[:steps, i] = torch.from_numpy(inputs), torch.from_numpy(answers)
            counts = target[:steps, i] != 0 if self.decision_only else torch.ones(steps)
            mask[:steps, i] = weight * counts
        return Split(x, target.long() if classes else target, mask)

    def _fitting(self, env: Any) -> tuple[np.ndarray, np.ndarray]:
        """The next trial that is not too long."""
        for _ in range(1000):
            found = _trial(env)
            if len(found[0]) <= self.n_steps and (not self.decision_only or found[1].any()):
                return found
        raise BpgenError(f"1,000 trials of {self.env} are longer than task.n_steps = {self.n_steps}: give more steps.")

    def _made(self, seed: int) -> Any:
        """The environment, at the beginning of its own random stream."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import neurogym

            try:
                env = neurogym.make(self.env, **self.env_options).unwrapped
            except Exception as error:  # whatever gymnasium says of a name or an option
                raise BpgenError(f"neurogym cannot make {self.env!r} with {self.env_options}: {error}") from None
            env.seed(seed)
            env.reset(seed=seed)
        require(
            hasattr(env, "new_trial") and hasattr(env, "gt") and env.gt is not None,
            f"{self.env} has no right answers (`gt`) to learn from: it is a task for reinforcement learning.",
        )
        return env


def _trial(env: Any) -> tuple[np.ndarray, np.ndarray]:
    """Inputs float32 [T,I] and answers [T] or [T,O] of a new trial."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env.new_trial()
    return np.asarray(env.ob, np.float32), np.asarray(env.gt, np.float32)
