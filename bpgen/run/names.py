"""Names of a config's groups and of the parts that are chosen; standard library only, to be checked at once."""

from __future__ import annotations

from bpgen.registry import KindName

CHOSEN: dict[KindName, str] = {"rule": "rflo", "task": "digits", "neuron": "leaky"}  # by name; the defaults
GROUPS = ("network", "loss", "optimizer", "schedule", "trainer", "evaluation", "tracking")  # always there
RUN = ("seed", "out", "wandb", "threads")  # options of the run itself
