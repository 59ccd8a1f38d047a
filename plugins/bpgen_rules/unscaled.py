"""Un-scaled rule: a reference rule divided by its ρ, so that its step along the gradient is BPTT's.

    (1) applied = ĝ / max(ρ, floor),   ρ = ⟨ĝ, g⟩ / ‖g‖²      g: BPTT, ĝ: the reference rule on the same batch
It keeps the reference's direction, orthogonal part included, and gives it the bound 2/η of BPTT: if the step length is
what makes the rule's minima sharp, this removes it.
Source: none; the inverse of the matched step of Liu et al. 2022, NeurIPS (equations in `bpgen_rules._control`).
The floor is the guard where the reference hardly follows the gradient (ρ near 0) or climbs it (ρ < 0): such a step
keeps the reference's own sign and is enlarged 1/floor times at most. `aux["floored"]` is 1 where it acted.
Shapes: ρ 0-d, one for all parameters. Cost: N² per step and sample for BPTT, plus the reference's; memory T·N.
Exact: where the reference is parallel to BPTT (W_rec = 0 for a local rule with symmetric feedback). Neurons: those of
the reference.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bpgen.rules import Draws, Limit, Network, Traits, require
from bpgen_rules._control import Control, Mode, Over, Ratio
from bpgen_rules._vectors import Grads, times


class Unscaled(Control):
    """A reference rule divided by its ρ.

    Args:
        reference: name of the reference rule.
        reference_options: its options, by name.
        mode: ρ "per_step", its "running_mean", or "constant".
        value: ρ, with mode="constant".
        decay: of the running mean: a plain mean over the first 1/(1-decay) batches, exponential from there on.
        floor: smallest number divided by.
        over: the parameters that ρ is taken over and that are divided: "all", or "recurrent" (the readout stays exact).
    """

    traits = Traits(
        exact_when=Limit(("by its options",), condition="where the reference is parallel to BPTT"),
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
        floor: float = 0.05,
        over: Over = "all",
    ) -> None:
        super().__init__(reference, reference_options, over)
        require(floor > 0, f"floor must be > 0, got {floor}.")
        self.ratio, self.floor = Ratio(mode, value, decay), floor

    def bind(self, network: Network, seed: int = 0) -> "Unscaled":
        """Bind the reference, and keep the mean as precisely as the weights."""
        super().bind(network, seed)
        self.ratio.to(network.W_out)
        return self

    def combine(self, reference: Grads, exact: Grads, network: Network, draws: Draws) -> tuple[Grads, Grads]:
        """Equation (1)."""
        rho, report = self.ratio(reference, exact)
        divisor = rho.clamp(min=self.floor)
        return times(1 / divisor, reference), {**report, "floored": (rho < self.floor).to(rho)}

    def learn(self, aux: Mapping[str, Tensor]) -> None:
        """Take over the running mean."""
        super().learn(aux)
        self.ratio.learn(aux)
