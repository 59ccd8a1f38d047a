"""Training: the LightningModule, its data, its optimizer and its trainer.

trainer.fit(RuleTraining(network, "rflo", optimizer=Optimizer(lr=0.05)), datamodule=TaskData(task, Loss()))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bpgen.training.options import Optimizer, Schedule

if TYPE_CHECKING:
    from bpgen.training.data import TaskData
    from bpgen.training.module import RuleTraining
    from bpgen.training.trainer import quiet_lightning

__all__ = ["Optimizer", "RuleTraining", "Schedule", "TaskData", "quiet_lightning"]
_WITH_LIGHTNING = {"RuleTraining": "module", "TaskData": "data", "quiet_lightning": "trainer"}


def __getattr__(name: str) -> Any:
    """What needs Lightning, when it is asked for: the options do not."""
    if name not in _WITH_LIGHTNING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WITH_LIGHTNING[name]}"), name)
