"""Norm-matched BPTT: the gradient's direction with the length of a reference rule's step.

    (1) applied = g ‖ĝ‖ / ‖g‖      g: BPTT, ĝ: the reference rule on the same batch
Not the matched step `scaled_bptt`: ‖ĝ‖/‖g‖ = ρ / cos(ĝ, g) counts the orthogonal part of ĝ as step along g, so it is
larger than ρ unless the two are parallel.
Source: none; a control that is easily confused with the matched step of Liu et al. 2022, NeurIPS.
Shapes: one number for all parameters (regulariser and `over` as in `bpgen_rules._control`).
Cost: N² per step and sample for BPTT, plus the reference's; memory T·N. Exact: ‖ĝ‖ = ‖g‖. Neurons: the reference's.
"""

from typing import Any

from bpgen.rules import Draws, Limit, Network, Traits
from bpgen_rules._control import Control, Over
from bpgen_rules._vectors import Grads, divide, norm, times


class NormMatched(Control):
    """BPTT with the norm of a reference rule.

    Args:
        reference: name of the reference rule.
        reference_options: its options, by name.
        over: the parameters the norms are taken over: "all", or "recurrent" (the readout stays exact).
    """

    traits = Traits(
        exact_when=Limit(("by its options",), condition="with ‖ĝ‖ = ‖g‖"),
        exact_with={"reference": "bptt"},
        exact_readout=False,
    )

    def __init__(
        self, reference: str = "three_factor", reference_options: dict[str, Any] | None = None, over: Over = "all"
    ) -> None:
        super().__init__(reference, reference_options, over)

    def combine(self, reference: Grads, exact: Grads, network: Network, draws: Draws) -> tuple[Grads, Grads]:
        """Equation (1)."""
        factor = divide(norm(reference), norm(exact))
        return times(factor, exact), {"factor": factor}
