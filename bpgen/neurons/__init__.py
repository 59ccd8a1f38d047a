"""Neurons: the dynamics inside one cell, and its own derivatives."""

from bpgen.neurons.base import Neuron
from bpgen.neurons.gated import GRU, LSTM
from bpgen.neurons.heterogeneous import Heterogeneous
from bpgen.neurons.leaky import Leaky
from bpgen.neurons.lif import ALIF, LIF

__all__ = ["ALIF", "GRU", "LIF", "LSTM", "Heterogeneous", "Leaky", "Neuron"]
