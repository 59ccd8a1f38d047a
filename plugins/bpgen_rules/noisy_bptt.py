"""Noisy BPTT: the gradient plus noise, to tell a rule's orthogonal part from mere noise.

    (1) isotropic:   applied = g + scale ‖g‖ ξ / √P          ξ ~ N(0, 1) on the P weights that can act
    (2) orthogonal:  applied = g + scale ‖e‖ ξ⊥ / ‖ξ⊥‖       ξ⊥ = ξ - g ⟨ξ, g⟩/‖g‖²,  e = ĝ - ρ g of a reference rule
    (3) remainder:   applied = g + scale e                   the reference's own orthogonal part
For one sample at zero residual the theorem of Liu et al. 2022, NeurIPS, says that a part orthogonal to the gradient
leaves the linear stability of a minimum alone: (2) and (3) should then find minima as flat as BPTT's. (1) takes BPTT's
step along the gradient on average: its ρ is 1 ± scale/√P.
Source: the noise controls of Liu et al. 2022; (1) as `add_noise_to_grads` of Marschall et al. 2020, relative to ‖g‖.
Deviation: the paper's noise levels were not at hand; scale = 1 matches ‖g‖ in (1) and ‖e‖ in (2), (3).
Shapes: ξ as each parameter (regulariser and `over` as in `bpgen_rules._control`).
Cost: N² per step and sample for BPTT, plus the reference's in (2), (3); memory T·N. Exact: scale = 0, and in the mean
for (1) and (2). Neurons: those of the reference; all for (1).
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from bpgen.rules import Draws, Limit, Network, Traits, choice, require
from bpgen_rules._control import Control, Over
from bpgen_rules._vectors import Grads, divide, draw_noise, noise_of, norm, plus, remainder, times

Kind = Literal["isotropic", "orthogonal", "remainder"]


class NoisyBPTT(Control):
    """BPTT plus noise.

    Args:
        kind: "isotropic" noise, "orthogonal" noise as large as the reference's remainder, or that "remainder" itself.
        scale: factor on the noise; its norm relative to ‖g‖ (isotropic) or to the remainder's.
        reference: name of the reference rule; not run for isotropic noise.
        reference_options: its options, by name.
        over: the parameters that get noise: "all", or "recurrent" (the readout stays exact).
    """

    traits = Traits(
        stochastic=True,
        unbiased=True,
        exact_when=Limit(("by its options",), condition="with scale = 0"),
        exact_with={"scale": 0.0},
        exact_readout=False,
    )

    def __init__(
        self,
        kind: Kind = "orthogonal",
        scale: float = 1.0,
        reference: str = "three_factor",
        reference_options: dict[str, Any] | None = None,
        over: Over = "all",
    ) -> None:
        choice("kind of noisy_bptt", kind, Kind)
        require(scale >= 0, f"scale must be >= 0, got {scale}.")
        super().__init__(None if kind == "isotropic" else reference, reference_options, over)
        self.kind, self.scale = kind, scale

    def draw(self, network: Network, x: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """The reference's draws, and ξ."""
        drawn = super().draw(network, x, random)
        return drawn if self.kind == "remainder" else {**drawn, **draw_noise(network, random)}

    def combine(self, reference: Grads, exact: Grads, network: Network, draws: Draws) -> tuple[Grads, Grads]:
        """Equations (1) to (3)."""
        if self.kind == "isotropic":
            masks = network.masks()
            P = sum(float(masks[n].sum()) if n in masks else g.numel() for n, g in exact.items())
            noise = times(norm(exact) / math.sqrt(P), noise_of(exact, draws))
        else:
            noise = e = remainder(reference, exact)
            if self.kind == "orthogonal":
                xi = remainder(noise_of(exact, draws), exact)
                noise = times(divide(norm(e), norm(xi)), xi)
        return plus(exact, times(self.scale, noise)), {}
