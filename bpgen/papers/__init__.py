"""Papers whose claims are checked. Each is one file behind the contract `Paper`, found through `bpgen.papers`."""

from bpgen.papers.base import Claim, Experiment, Paper, Simulation, Size

__all__ = ["Claim", "Experiment", "Paper", "Simulation", "Size"]
