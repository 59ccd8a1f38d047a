"""Random gradient: a random direction with the length of the true gradient, the null every rule should beat.

    (1) applied = ‖g‖ ξ / ‖ξ‖      ξ ~ N(0, 1) on the weights that can act, anew for every batch; g: BPTT
Source: the random null of Marschall, Cho and Savin 2020, JMLR 21:135 (their code's N(bias, s) has a fixed length).
Deviation: the length follows the gradient's, so that the null takes steps as long as BPTT's.
Shapes: ξ as each parameter (regulariser and `over` as in `bpgen_rules._control`).
Cost: N² per step and sample for BPTT's norm; memory T·N. Exact: never; its mean cosine with BPTT is 0. Neurons: all.
"""

import torch
from torch import Tensor

from bpgen.rules import Draws, Network, Traits
from bpgen_rules._control import Control, Over
from bpgen_rules._vectors import Grads, divide, draw_noise, noise_of, norm, times


class RandomGradient(Control):
    """A random direction with the norm of BPTT's gradient.

    Args:
        over: the parameters with a random gradient: "all", or "recurrent" (the readout's stays exact).
    """

    traits = Traits(signal_origin="none", signal_scope="none", stochastic=True, exact_readout=False)

    def __init__(self, over: Over = "all") -> None:
        super().__init__(None, None, over)

    def draw(self, network: Network, x: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """ξ."""
        return draw_noise(network, random)

    def combine(self, reference: Grads, exact: Grads, network: Network, draws: Draws) -> tuple[Grads, Grads]:
        """Equation (1)."""
        xi = noise_of(exact, draws)
        return times(divide(norm(exact), norm(xi)), xi), {}
