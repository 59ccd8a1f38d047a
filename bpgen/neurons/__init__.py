"""Neurons: the dynamics inside one cell, and its own derivatives."""

from bpgen.neurons.base import Neuron
from bpgen.neurons.leaky import Leaky
from bpgen.neurons.lif import ALIF, LIF

__all__ = ["ALIF", "LIF", "Leaky", "Neuron"]
