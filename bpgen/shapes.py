"""Whether a batch fits a network and a loss: one check for every public function that takes both."""

from __future__ import annotations

import torch
from torch import Tensor

from bpgen.errors import require
from bpgen.network import Network


def check_shapes(
    network: Network,
    x: Tensor,
    target: Tensor,
    loss: str,
    when: str,
    mask: Tensor | None = None,
    initial_state: Tensor | None = None,
) -> None:
    """Check x [T,B,I], the target, mask [T,B] and initial_state [B,d,N] against each other.

    Raises:
        BpgenError: what does not fit, and what was expected.
    """
    I, O, d, N = network.n_in, network.n_out, network.neuron.n_states, network.n_rec
    require(
        x.ndim == 3 and x.shape[-1] == I and x.shape[0] > 0 and x.shape[1] > 0,
        f"x must be [T,B,I] with I={I} (time first), got {list(x.shape)}.",
    )
    require(x.dtype == network.W_rec.dtype, f"x is {x.dtype}, the network is {network.W_rec.dtype}: convert one.")
    T, B = x.shape[:2]
    expected = ([B] if when == "last" else [T, B]) + ([O] if loss == "mse" else [])
    require(
        list(target.shape) == expected,
        f"target must be {expected} for loss={loss!r}, when={when!r}, got {list(target.shape)}.",
    )
    if loss == "cross_entropy":
        require(
            target.dtype == torch.int64 and bool((target >= 0).all()) and bool((target < O).all()),
            f"target must hold int64 classes 0..{O - 1} for cross-entropy, got {target.dtype}.",
        )
    require(mask is None or list(mask.shape) == [T, B], f"mask must be [T,B] = {[T, B]}.")
    require(
        initial_state is None or list(initial_state.shape) == [B, d, N],
        f"initial_state must be [B,d,N] = {[B, d, N]}.",
    )
