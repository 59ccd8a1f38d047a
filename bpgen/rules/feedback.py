"""Feedback: how the output error reaches the recurrent neurons, q_t = ē_t B.

    symmetric  B = W_out, the exact transpose: needs weight transport.
    random     B = scale · randn / √N, fixed: feedback alignment (Lillicrap 2016; Murray 2019; Bellec 2020).
    sparse     random, but a fraction of the neurons alone receives any error, at least one of them (the sparse
               feedback of Barretto-Bittar 2026, which `diffusive_eprop` lets spread).
B is [O,N] here, the transpose of the N x O matrix of the papers. In a network with areas, symmetric feedback tells the
areas that the readout sees, and random feedback all of them.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from bpgen.errors import choice, require
from bpgen.network import Network, Trajectory
from bpgen.rules.moment import Moment
from bpgen.streams import generator

FeedbackName = Literal["symmetric", "random", "sparse"]


class Feedback(nn.Module):
    """Carries the output error to the neurons.

    Args:
        kind: symmetric, random or sparse.
        seed: seed of the fixed matrix; None takes the seed given to `bind`.
        scale: standard deviation of an entry is scale/√N.
        density: fraction of neurons that receive any error; for "sparse".

    Attributes:
        weight: the fixed matrix [O,N] (a buffer); None before `bind`, and always for symmetric feedback. A
            tensor assigned before `bind` is kept.
    """

    weight: Tensor | None

    def __init__(
        self,
        kind: FeedbackName = "symmetric",
        seed: int | None = None,
        scale: float = 1.0,
        density: float = 0.1,
    ) -> None:
        super().__init__()
        require(scale > 0, f"the feedback scale must be > 0, got {scale}.")
        require(0 < density <= 1, f"the feedback density must be in (0, 1], got {density}.")
        self.kind, self.seed, self.scale, self.density = choice("feedback", kind, FeedbackName), seed, scale, density
        self.register_buffer("weight", None)

    def bind(self, network: Network, seed: int = 0) -> None:
        """Draw the fixed matrix for a network, once."""
        if self.kind == "symmetric":
            return
        if self.weight is not None:
            expected, found = [network.n_out, network.n_rec], list(self.weight.shape)
            require(found == expected, f"feedback.weight must be [O,N] = {expected}, got {found}.")
            return
        random = generator(seed if self.seed is None else self.seed, "feedback")
        O, N = network.n_out, network.n_rec
        weight = torch.randn(O, N, generator=random, dtype=torch.float64) * (self.scale / math.sqrt(N))
        if self.kind == "sparse":
            place = torch.rand(N, generator=random, dtype=torch.float64)
            weight = weight * ((place < self.density) | (place == place.min()))
        self.weight = weight.to(network.W_out)

    def signal(self, at: Trajectory | Moment, error: Tensor) -> Tensor:
        """q [L,B,N] of an error ē [L,B,O] along a run; q [B,N] of e [B,O] at one moment."""
        B = at.params["W_out"] if self.kind == "symmetric" else self.weight
        assert B is not None, "bind(network) draws the feedback weights first"
        return error @ B
