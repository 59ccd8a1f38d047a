"""Measures of the weights alone; entries that cannot act count as zero."""

from __future__ import annotations

import torch
from torch import Tensor

from bpgen.complexity.trained import Trained


def distance(net: Trained) -> float:
    """‖θ - θ_0‖ from the weights before training (Nagarajan & Kolter 2019)."""
    return float(sum(change.double().square().sum() for change in net.change.values()) ** 0.5)


def effective_rank(net: Trained) -> float:
    """exp of the entropy of the singular values of W_rec - W_rec,0 as shares of their sum (Roy & Vetterli 2007).

    Between 1 and N; nan where nothing has changed.
    """
    values = torch.linalg.svdvals(net.change["W_rec"].double())
    share = values / values.sum()
    return float(torch.special.entr(share).sum().exp())


def spectral_radius(net: Trained) -> float:
    """The largest |eigenvalue| of W_rec, the gain of a linear network over many steps (Sompolinsky et al. 1988).

    Of neurons with several currents the largest one of their blocks [N,N].
    """
    W: Tensor = net.masked["W_rec"].double()
    return float(torch.linalg.eigvals(W.view(-1, W.shape[1], W.shape[1])).abs().max())
