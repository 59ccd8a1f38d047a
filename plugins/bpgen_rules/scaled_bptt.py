"""Matched step: BPTT times the ρ of a reference rule, the control of the theorem of Liu et al. 2022.

    (1) applied = ρ g,   ρ = ⟨ĝ, g⟩ / ‖g‖²      g: BPTT, ĝ: the reference rule on the same batch
It takes the reference's step along the gradient and leaves its orthogonal part out. The theorem gives both the same
bound on the curvature of stable minima, 0 < λ₁ < 2/(η ρ).
Source: the matched step length of Liu et al. 2022, NeurIPS (equations in `bpgen_rules._control`).
Deviation: ρ of each batch, of a running mean, or a constant; the paper's text was not at hand to say which it used.
Shapes: ρ 0-d, one for all parameters. Cost: N² per step and sample for BPTT, plus the reference's; memory T·N.
Exact: ρ = 1. Neurons: those of the reference.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bpgen.rules import Draws, Limit, Network, Traits
from bpgen_rules._control import Control, Mode, Over, Ratio
from bpgen_rules._vectors import Grads, times


class ScaledBPTT(Control):
    """BPTT times ρ of a reference rule.

    Args:
        reference: name of the reference rule; it is not run with mode="constant".
        reference_options: its options, by name.
        mode: ρ "per_step", its "running_mean", or "constant".
        value: ρ, with mode="constant".
        decay: of the running mean: a plain mean over the first 1/(1-decay) batches, exponential from there on.
        over: the parameters that ρ is taken over and applied to: "all", or "recurrent" (the readout stays exact).
    """

    traits = Traits(
        exact_when=Limit(("by its options",), condition="with ρ = 1"),
        exact_with={"reference": "bptt"},
        exact_readout=False,
    )

    def __init__(
        self,
        reference: str = "three_factor",
        reference_options: dict[str, Any] | None = None,
        mode: Mode = "per_step",
        value: float = 1.0,
        decay: float = 0.99,
        over: Over = "all",
    ) -> None:
        super().__init__(None if mode == "constant" else reference, reference_options, over)
        self.ratio = Ratio(mode, value, decay)

    def bind(self, network: Network, seed: int = 0) -> "ScaledBPTT":
        """Bind the reference, and keep the mean as precisely as the weights."""
        super().bind(network, seed)
        self.ratio.to(network.W_out)
        return self

    def combine(self, reference: Grads, exact: Grads, network: Network, draws: Draws) -> tuple[Grads, Grads]:
        """Equation (1)."""
        rho, report = self.ratio(reference, exact)
        return times(rho, exact), report

    def learn(self, aux: Mapping[str, Tensor]) -> None:
        """Take over the running mean."""
        super().learn(aux)
        self.ratio.learn(aux)
