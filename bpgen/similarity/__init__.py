"""How alike the activity of two networks is, or that of a network and of recorded neurons.

Activities are arrays of conditions x time x neurons; conditions and steps are shared, neurons are not. No neuron of one
is paired with a neuron of the other. The measures, and how they are normalised by what another sample of the same
neurons would give, are those of Liu, Yang and Cueva (ICML 2025, arXiv 2506.06904).
"""

from bpgen.similarity.between import along, recorded
from bpgen.similarity.distances import DISTANCES, cca, cka, procrustes
from bpgen.similarity.recordings import Recording, read_recording
from bpgen.similarity.split_half import Sampled, sampled

__all__ = [
    "DISTANCES",
    "Recording",
    "Sampled",
    "along",
    "cca",
    "cka",
    "procrustes",
    "read_recording",
    "recorded",
    "sampled",
]
