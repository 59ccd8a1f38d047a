"""Neurons: the dynamics inside one cell, and its own derivatives."""

from bpgen.neurons.base import Neuron
from bpgen.neurons.gated import GRU, LSTM
from bpgen.neurons.leaky import Leaky

__all__ = ["GRU", "LSTM", "Leaky", "Neuron"]
