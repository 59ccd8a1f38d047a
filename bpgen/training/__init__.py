"""Training: the LightningModule, its data, its optimizer and its trainer.

trainer.fit(RuleTraining(network, "rflo", optimizer=Optimizer(lr=0.05)), datamodule=TaskData(task, Loss()))
"""

from bpgen.training.data import TaskData
from bpgen.training.module import RuleTraining
from bpgen.training.options import Optimizer, Schedule
from bpgen.training.trainer import quiet_lightning

__all__ = ["Optimizer", "RuleTraining", "Schedule", "TaskData", "quiet_lightning"]
