"""Recurrent networks: structure, weights, and their run over a batch of sequences."""

from bpgen.network.network import Bias, InitName, Network
from bpgen.network.structure import Structure
from bpgen.network.trajectory import Trajectory

__all__ = ["Bias", "InitName", "Network", "Structure", "Trajectory"]
