"""A checkpoint that goes on with another learning rate or schedule, as if they had been so all along."""

from __future__ import annotations

from typing import Any

import torch

from bpgen.training.options import Schedule

DECIDING = ("optimizer", "schedule", "trainer")  # groups of a config that decide the learning rate of a step


def reschedule(checkpoint: dict[str, Any], fresh: torch.optim.Optimizer, schedule: Schedule, n_steps: float) -> None:
    """Change a checkpoint's learning rates and the state of its scheduler to those of now; momenta stay.

    Args:
        checkpoint: as Lightning loaded it, before it restores the optimizer.
        fresh: the optimizer as it would be at step 0.
        schedule: of the learning rate.
        n_steps: how many steps the whole run has now.
    """
    step, rates = checkpoint["global_step"], [group["lr"] for group in fresh.param_groups]
    moving = schedule != Schedule()
    now = [rate * schedule.factor(step, n_steps) if moving else rate for rate in rates]
    for group, first, present in zip(checkpoint["optimizer_states"][0]["param_groups"], rates, now, strict=True):
        group.pop("initial_lr", None)
        group |= {"lr": present, "initial_lr": first} if moving else {"lr": present}
    state = {"base_lrs": rates, "last_epoch": step, "_last_lr": now, "_step_count": step + 1}
    before = (checkpoint["lr_schedulers"] or [{"lr_lambdas": [None] * len(rates)}])[0]
    checkpoint["lr_schedulers"] = [{**before, **state}] if moving else []
