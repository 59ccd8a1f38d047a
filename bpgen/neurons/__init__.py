"""Neurons: the dynamics inside one cell, and its own derivatives."""

from bpgen.neurons.base import Neuron
from bpgen.neurons.leaky import Leaky

__all__ = ["Leaky", "Neuron"]
