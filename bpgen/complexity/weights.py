"""Measures of the weights alone; entries that cannot act count as zero."""

from __future__ import annotations

from typing import NamedTuple

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
    return entropy_rank(torch.linalg.svdvals(net.change["W_rec"].double()))


def entropy_rank(values: Tensor) -> float:
    """exp of the entropy of singular values as shares of their sum; nan where all are zero."""
    return float(torch.special.entr(values / values.sum()).sum().exp())


class Change(NamedTuple):
    """What training did to a matrix of weights, W - W_0.

    norm: ‖W - W_0‖, of Frobenius. relative: as a part of ‖W_0‖. effective_rank: see there. rank_99: how many singular
    values hold 99 % of ‖W - W_0‖². beyond: the share of ‖W - W_0‖² that its `outputs` largest singular values leave; a
    rule whose learning signal is a fixed projection of O errors to linear neurons leaves nothing (Williams 2026).
    """

    norm: float
    relative: float
    effective_rank: float
    rank_99: int
    beyond: float


def change_of(W: Tensor, W_0: Tensor, outputs: int) -> Change:
    """Norm and rank of a change; ranks are nan or 0 where nothing has changed, or where a run diverged.

    Args:
        W: the weights, masked.
        W_0: those before training, masked.
        outputs: O.
    """
    if not bool(W.isfinite().all()):
        return Change(float("nan"), float("nan"), float("nan"), 0, float("nan"))
    values = torch.linalg.svdvals(W.double() - W_0.double())
    squares = values.square()
    total = float(squares.sum())
    if total == 0:
        return Change(0.0, 0.0, float("nan"), 0, float("nan"))
    held = squares.cumsum(0) / total
    rank = int((held < 0.99).sum()) + 1
    beyond = float(squares[outputs:].sum()) / total
    return Change(total**0.5, total**0.5 / float(W_0.double().norm()), entropy_rank(values), rank, beyond)


def spectral_radius(net: Trained) -> float:
    """The largest |eigenvalue| of W_rec, the gain of a linear network over many steps (Sompolinsky et al. 1988).

    Of neurons with several currents the largest one of their blocks [N,N].
    """
    W: Tensor = net.masked["W_rec"].double()
    return float(torch.linalg.eigvals(W.view(-1, W.shape[1], W.shape[1])).abs().max())
