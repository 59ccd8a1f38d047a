"""Which neurons an eigenvector of a Hessian is about."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bpgen.curvature.block import Block, FreeEntries
from bpgen.network import Network


@dataclass(frozen=True)
class Participation:
    """How an eigenvector spreads over the neurons.

    incoming: share [N] of ‖v‖² in the weights onto each neuron (its rows of W_rec and W_in, its b_rec and state).
    outgoing: share [N] in the weights from each neuron (its columns of W_rec and W_out).
    effective: (number of neurons that carry as much, coming in, going out) 1/Σ p², p normalised to one.
    """

    incoming: Tensor
    outgoing: Tensor
    effective: tuple[float, float]


def participation(network: Network, vector: Tensor, block: Block = "W_rec") -> Participation:
    """The shares of the neurons in an eigenvector [P] of `sharpness(..., block=block)`.

    Args:
        network: the network of that measurement.
        vector: one of its vectors.
        block: its block.
    """
    params = {name: w.double().cpu() for name, w in network.params().items()}
    parts = FreeEntries(network, params, block).directions(vector.unsqueeze(0), params)
    share = {name: part.squeeze(0).square() for name, part in parts.items()}
    N = network.n_rec
    incoming, outgoing = torch.zeros(N, dtype=torch.float64), torch.zeros(N, dtype=torch.float64)
    for name, p in share.items():
        if name in ("W_rec", "W_in", "b_rec"):
            incoming += p.reshape(-1, N, p.shape[1] if p.ndim > 1 else 1).sum((0, 2))
        elif name == "initial_state":
            incoming += p.sum(0)
        elif name in network.neuron.learned:
            incoming += p
        if name in ("W_rec", "W_out"):
            outgoing += p.sum(0)
    total = sum(p.sum() for p in share.values())
    incoming, outgoing = incoming / total, outgoing / total
    return Participation(incoming, outgoing, (_effective(incoming), _effective(outgoing)))


def _effective(p: Tensor) -> float:
    return (p.sum().square() / p.square().sum()).item() if p.any() else 0.0
