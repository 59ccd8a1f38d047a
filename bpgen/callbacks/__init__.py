"""Measurements as Lightning callbacks, and the evaluation clock that they share.

trainer = Trainer(callbacks=[Sharpness(), GeneralizationGap()])
trainer.fit(RuleTraining(network, "rflo"), datamodule)
"""

from bpgen.callbacks.alignment import Alignment
from bpgen.callbacks.best import EarlyStopping
from bpgen.callbacks.clock import EvaluationClock
from bpgen.callbacks.evaluation import Evaluation
from bpgen.callbacks.generalization_gap import GeneralizationGap
from bpgen.callbacks.measurement import Measurement
from bpgen.callbacks.preconditioned import Preconditioned
from bpgen.callbacks.sharpness import Sharpness
from bpgen.callbacks.spectrum import Spectrum
from bpgen.callbacks.stability import Stability
from bpgen.columns import Column

__all__ = [
    "Alignment",
    "Column",
    "EarlyStopping",
    "Evaluation",
    "EvaluationClock",
    "GeneralizationGap",
    "Measurement",
    "Preconditioned",
    "Sharpness",
    "Spectrum",
    "Stability",
]
