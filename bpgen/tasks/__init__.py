"""Tasks: sequences a recurrent network learns, each with a held-out and a perturbed test set."""

from bpgen.tasks.base import Split, Task

__all__ = ["Split", "Task"]
