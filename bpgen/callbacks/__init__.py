"""Callbacks: the evaluation clock, what it measures, and who is told."""

from bpgen.callbacks.alignment import Alignment
from bpgen.callbacks.clock import EvaluationClock
from bpgen.callbacks.generalization_gap import GeneralizationGap
from bpgen.callbacks.measurement import Measurement, Moment
from bpgen.callbacks.sharpness import Sharpness
from bpgen.callbacks.spectrum import Spectrum
from bpgen.callbacks.stability import Stability

__all__ = [
    "Alignment",
    "EvaluationClock",
    "GeneralizationGap",
    "Measurement",
    "Moment",
    "Sharpness",
    "Spectrum",
    "Stability",
]
