"""A learning signal that spreads: the concentration of a modulator on a torus with one neuron on each site.

    (1) m_t = K_t m_{t-1} + B e_t,   m_0 = 0                   concentration at each neuron's own site [B,N]
    (2) K_t = k M                     kernel="box": M the mean over the 3 x 3 sites around (`bpgen.network.torus`, 4)
        K_t = k Pᵀ M P                kernel="permuted": P a fixed random permutation of the neurons
        K_t = k P_tᵀ M P_t            kernel="redrawn": another one at every step
    (3) L_t = m_t where e_t ≠ 0 (in one output at least), else 0
Source: Barretto-Bittar, Levina, Giannakakis and Zeraati 2026, arXiv 2603.08949, and the authors' code.
K is symmetric with eigenvalues in [-k/3, k], which no permutation changes: the controls differ in geometry alone. Every
step leaves k of the total, and a steady source B e fills up to B e / (1-k), so that the same learning rate is a larger
one: compare at matched norms, or with Adam. (3) is the learning window: modulators go on spreading outside, and nobody
learns. Without distances in the network itself (`network.torus`) a fixed permutation is but another placement.
"""

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from bpgen.network.torus import neighbourhood_mean, random_sites
from bpgen.rules import Broadcast, Draws, FeedbackName, Network, choice, require
from bpgen.streams import generator

Kernel = Literal["box", "permuted", "redrawn"]


class Diffusing(Broadcast):
    """A rule whose broadcast error spreads between the neurons before they learn from it.

    Args:
        decay: k, what a step leaves of the modulator, in [0, 1); 0 is no diffusion.
        kernel: where it spreads to: the 3x3 "box" of sites around, the same sites "permuted" once and for all, or
            "redrawn" at every step.
        sites: seed of the neurons' places and of the fixed permutation; by default the network's own places
            (`network.torus`), or places that follow the run's seed.
        feedback: how the output error reaches the neurons directly: sparse random, random, or symmetric (W_out, which
            `network.readout_density` thins out).
        **feedback_options: see `bpgen.rules.Broadcast`; `density` is the fraction of neurons that it reaches.

    Attributes:
        mean: M, or Pᵀ M P [N,N] (a buffer); None before `bind`.
    """

    mean: Tensor | None

    def __init__(
        self,
        decay: float = 0.75,
        kernel: Kernel = "box",
        sites: int | None = None,
        feedback: FeedbackName = "sparse",
        **feedback_options: Any,
    ) -> None:
        super().__init__(feedback, **feedback_options)
        require(0 <= decay < 1, f"rule.decay must be in [0, 1), or the modulator would never decay, got {decay}.")
        self.decay, self.kernel, self.sites = float(decay), choice("kernel", kernel, Kernel), sites
        self.register_buffer("mean", None)
        if kernel == "redrawn":
            self.traits = replace(type(self).traits, stochastic=True)  # type: ignore[misc]

    def bind(self, network: Network, seed: int = 0) -> "Diffusing":
        """Place the neurons, once."""
        super().bind(network, seed)
        if self.mean is None:
            random, N = generator(seed if self.sites is None else self.sites, "sites"), network.n_rec
            drawn, order = random_sites(N, random), torch.randperm(N, generator=random)
            own = network.site if self.sites is None else None
            mean = neighbourhood_mean(drawn if own is None else own.cpu())
            self.mean = (mean[order][:, order] if self.kernel == "permuted" else mean).to(network.W_rec)
        return self

    def draw(self, network: Network, x: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """The permutations P_t [T,N], for kernel="redrawn"."""
        if self.kernel != "redrawn":
            return {}
        order = torch.rand(len(x), network.n_rec, generator=random, dtype=torch.float64).argsort(-1)
        return {"order": order.to(x.device)}

    def spread(self, field: Tensor, order: Tensor | None) -> Tensor:
        """K_t m [B,N], of m [B,N] and P_t [N] or None."""
        assert self.mean is not None, "bind(network) places the neurons first"
        if order is None:
            return self.decay * (field @ self.mean)
        there, back = (o.expand_as(field) for o in (order, order.argsort()))
        return self.decay * (field.gather(-1, there) @ self.mean).gather(-1, back)


def order_at(draws: Draws, t: int) -> Tensor | None:
    """P_t of what `Diffusing.draw` gave; t counts from 0."""
    return draws["order"][t] if "order" in draws else None


def window(error: Tensor) -> Tensor:
    """Equation (3): 1 where there is an error, else 0; [...,1] of e [...,O]."""
    return (error != 0).any(-1, keepdim=True).to(error)
