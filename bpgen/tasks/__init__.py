"""Tasks: sequences a recurrent network learns, each with a held-out and a perturbed test set."""

from bpgen.tasks.base import Split, Task
from bpgen.tasks.trials import TrialTask, at_steps

__all__ = ["Split", "Task", "TrialTask", "at_steps"]
