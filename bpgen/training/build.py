"""From options to parts: the one place that knows which option belongs to which constructor.

A config is a plain dictionary, as in `config.yaml`:
    task, neuron, rule: {name, options...}; network, loss, optimizer, schedule, trainer, ...: {options...}; seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bpgen.errors import require
from bpgen.losses import L2, Activity, ActivityForm, Loss, LossName, When
from bpgen.network import Network
from bpgen.registry import find
from bpgen.rules import Rule, load_rule
from bpgen.tasks import Task

Config = Mapping[str, Any]


@dataclass(frozen=True)
class TrainerOptions:
    """How long training lasts and what a step is.

    Args:
        max_epochs: passes through the training data; ignored when max_steps is given.
        max_steps: weight updates; wins over max_epochs.
        batch_size: sequences per batch B.
        clip: clip the norm of the rule's whole gradient at this value.
        accumulate: batches whose gradients are averaged into one update.
        chunk: train online: change the weights every so many steps of a sequence, and carry the states of network and
            rule on; none is whole sequences. Offline rules are then truncated to the chunk.
        stream: with a chunk: train on the task's endless stream; an epoch is as long as its training split.
        accelerator: where to train; only cpu runs are bit-reproducible.
    """

    max_epochs: int = 30
    max_steps: int | None = None
    batch_size: int = 16
    clip: float | None = None
    accumulate: int = 1
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"
    chunk: int | None = None
    stream: bool = False

    def __post_init__(self) -> None:
        require(self.max_epochs >= 1, f"trainer.max_epochs must be positive, got {self.max_epochs}.")
        require(
            self.max_steps is None or self.max_steps >= 1, f"trainer.max_steps must be positive, got {self.max_steps}."
        )
        require(self.batch_size >= 1, f"trainer.batch_size must be positive, got {self.batch_size}.")
        require(self.clip is None or self.clip > 0, f"trainer.clip must be > 0, got {self.clip}.")
        require(self.accumulate >= 1, f"trainer.accumulate must be positive, got {self.accumulate}.")
        require(self.chunk is None or self.chunk >= 1, f"trainer.chunk must be a positive number, got {self.chunk}.")
        require(self.chunk is not None or not self.stream, "trainer.stream needs a trainer.chunk, e.g. 1.")


def make_loss(
    kind: LossName | None = None,
    when: When | None = None,
    l2: float | dict[str, float] = 0.0,
    activity: float = 0.0,
    activity_form: ActivityForm = "rate",
    activity_target: float = 0.0,
) -> Loss:
    """The loss that is minimised.

    Args:
        kind: cross_entropy, or mse (half the squared error; classes become one-hot targets); none is the task's.
        when: take the loss at the "last" step, or at "all" steps; none is the task's.
        l2: penalty ½·l2·‖w‖² on W_in, W_rec and W_out, or factors by weight such as {"W_rec": 0.01}. It is part
            of the loss and of its Hessian.
        activity: cost c of the activity, part of the loss and of its Hessian as well.
        activity_form: rate is ½·c·Σ (mean activity in a sequence - target)² over neurons (Bellec 2020), square is
            ½·c times the mean squared activity.
        activity_target: the target of the rate form, activity per step.
    """
    penalty = Activity.of(Activity(activity, activity_form, activity_target))
    return Loss(kind or "cross_entropy", when or "last", None, L2.of(l2), penalty)


def make_task(config: Config) -> Task:
    """The task named in a config; data are not loaded yet."""
    task: Task = find("task", config["task"]["name"]).load()(**_options(config["task"]))
    return task


def make_network(config: Config, task: Task) -> Network:
    """The network of a config, sized for the task, with the initial weights of the run's seed."""
    neuron = find("neuron", config["neuron"]["name"]).load()(**_options(config["neuron"]))
    return Network(neuron, task.n_in, n_out=task.n_out, seed=config["seed"], **config["network"])


def make_rule(config: Config) -> Rule:
    """The rule of a config, not bound to a network yet."""
    return load_rule(config["rule"]["name"], **_options(config["rule"]))


def _options(part: Config) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "name"}
