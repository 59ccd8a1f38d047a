"""What the controls share: two gradients on one batch, a reference rule's ĝ and BPTT's g.

    (1) ρ = ⟨ĝ, g⟩ / ‖g‖²,   ĝ = ρ g + e,  ⟨e, g⟩ = 0        as the callback `alignment` reports them
    (2) applied = control(ĝ, g)
Source: the theorem of Liu et al. 2022, NeurIPS, which bounds the curvature of stable minima by 2/(η ρ).
ĝ and g are taken together over all parameters, and without a regulariser of the weights, which no rule sees (a cost of
the activity is credited by each rule in its own way, and is part of both). over="recurrent" takes (1) over all
parameters but W_out and b_out, which then keep their exact gradient, as they do under most references; over="all" mixes
that exact part into ρ and scales the readout along.
The reference is bound with the control's own seed and handed the same draws, so it is the very rule a run of its own
with that seed would train with. Where g = 0, ρ is 0 and no control divides by it.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bpgen.rules import BpgenError, Draws, Network, Problem, Rule, RuleGradients, choice, load_rule
from bpgen_rules._running_mean import RunningMean
from bpgen_rules._vectors import Grads, divide, dot

Over = Literal["all", "recurrent"]
Mode = Literal["per_step", "running_mean", "constant"]
READOUT = ("W_out", "b_out")
PREFIX = "reference/"  # before the names of what the reference draws and reports


class Control(Rule):
    """A rule that is a function of ĝ and g; subclasses say which, in `combine`.

    Args:
        reference: name of the reference rule, or None where ĝ is not used.
        reference_options: its options.
        over: the parameters that ĝ and g are taken over: "all", or the "recurrent" ones, all but the readout's.
    """

    conformance_exceptions: ClassVar[Mapping[str, str]] = {
        "split batches add up": "ρ and norms are taken over the whole batch"
    }

    def __init__(self, reference: str | None, reference_options: Mapping[str, Any] | None, over: Over) -> None:
        super().__init__()
        self.over, self.exact = choice("over", over, Over), load_rule("bptt")
        self.reference = None if reference is None else load_rule(reference, **(reference_options or {}))
        if self.reference is not None and self.reference.traits.update != "gradient":
            raise BpgenError(f"rule {reference!r} changes weights by finished steps: it has no gradient to compare.")

    @property
    def forward_passes(self) -> int:
        """That of BPTT and those of the reference."""
        return 1 + (0 if self.reference is None else self.reference.forward_passes)

    def bind(self, network: Network, seed: int = 0) -> "Control":
        """Bind the reference as it would be bound alone."""
        super().bind(network, seed)
        if self.reference is not None:
            self.reference.bind(network, seed)
        return self

    def draw(self, network: Network, x: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """What the reference draws; first, so that it draws what it would draw alone."""
        drawn = {} if self.reference is None else self.reference.draw(network, x, random)
        return {PREFIX + name: value for name, value in drawn.items()}

    def combine(self, reference: Grads, exact: Grads, network: Network, draws: Draws) -> tuple[Grads, Grads]:
        """The control's gradient and what it reports, from ĝ (empty without a reference) and g."""
        raise NotImplementedError

    def estimate(self, problem: Problem, draws: Draws) -> RuleGradients:
        """Equation (2)."""
        exact = self.exact.gradients(problem)
        estimate, aux = {}, {}
        if self.reference is not None:
            own = {name.removeprefix(PREFIX): value for name, value in draws.items() if name.startswith(PREFIX)}
            result = self.reference.gradients(problem, own)
            estimate, aux = result.grads, {PREFIX + name: value for name, value in result.aux.items()}
        kept = READOUT if self.over == "recurrent" else ()
        g_hat, g = ({n: v for n, v in grads.items() if n not in kept} for grads in (estimate, exact.grads))
        grads, report = self.combine(g_hat, g, problem.network, draws)
        return RuleGradients(exact.loss, exact.outputs, {**exact.grads, **grads}, {**aux, **report})

    def learn(self, aux: Mapping[str, Tensor]) -> None:
        """Let the reference learn what it would learn alone."""
        if self.reference is not None:
            own = {name.removeprefix(PREFIX): value for name, value in aux.items() if name.startswith(PREFIX)}
            self.reference.learn(own)


class Ratio(nn.Module):
    """The ρ that a control applies: of this batch, averaged along training, or given.

    Args:
        mode: "per_step"; "running_mean", this batch included; or "constant".
        value: the constant.
        decay: of the running mean.
    """

    def __init__(self, mode: Mode, value: float, decay: float) -> None:
        super().__init__()
        self.mode, self.value, self.average = choice("mode", mode, Mode), value, RunningMean(decay)

    def forward(self, g_hat: Grads, g: Grads) -> tuple[Tensor, Grads]:
        """ρ as it is applied, 0-d, and what to report and to learn; a batch without a gradient is not averaged in."""
        size = dot(g, g)
        if self.mode == "constant":
            return torch.full_like(size, self.value), {}
        rho = divide(dot(g_hat, g), size)
        if self.mode == "per_step":
            return rho, {"rho": rho}
        averaged = self.average.with_value(rho, (size > 0).to(size))
        return averaged["mean"], {"rho": rho, **averaged}

    def learn(self, aux: Mapping[str, Tensor]) -> None:
        """Take over the running mean."""
        if self.mode == "running_mean":
            self.average.learn(aux)
