"""Causal credit over time: any rule's credit, weighed by how much the outcome hangs on a stretch of the input.

    (1) S = log p(outcome), S_s the same with segment s of the input masked      `segments` further forward runs
    (2) drop_s = S - S_s,   raw_t = 0.2 + drop_{s(t)}                            signed: what misleads weighs least
    (3) I_t = 0.5 + 0.5 (raw_t - min raw) / (max raw - min raw),  0.5 where all are the same
    (4) w_t = w_min + (boost - w_min) I_t,  divided by its mean over time
    (5) c_t <- w_t c_t       the host's credit at time t, sequence by sequence: ∂L/∂W_rec ≈ Σ_t w_t c_t h_{t-1}ᵀ
form="clipped" has, for (3) and (4), w_t = 1 + κ max(drop_{s(t)}, 0) divided by its mean, which is ours.
Controls: control="inverted" has max I + min I - I_t for I_t, "random" U(0, 1) for every step and sequence.
Source: Khandoga, Yuan and Sankarapu 2026, arXiv 2602.09331, and the lab's code, for spans of tokens in a language model
(w_min 0.5, boost 2); ported here: a span is a stretch of time, and what is masked is the input (`baseline`).
S is minus the loss of a sequence, its log-likelihood up to a constant, which (2) does not see. Segments are of a
sequence's own steps, up to its last error.
Deviation: no larger weight (1.5 there) at the steps of the answer; the readout has its exact gradient, a learned start
that of the host; a cost of the activity is weighed with the rest.
Shapes: S_s [segments,B], w [T,B], c [T,B,K,N]. Cost: N² per step and sample, times the segments, beside the host's;
memory T·N times the segments.
Exact: at boost = w_min (or κ = 0) it is its host, whatever that is exact for. Hosts: rules of credit (bptt, rflo, ...).
Neurons: the host's.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from bpgen.rules import (
    BpgenError,
    Credit,
    Draws,
    Limit,
    Network,
    OfflineRule,
    Problem,
    RuleGradients,
    Traits,
    Trajectory,
    choice,
    load_rule,
    require,
    weight_gradients,
)
from bpgen_rules._segments import Baseline, drops, importance, of_mean_one, own_steps, segment_of

Form = Literal["signed", "clipped"]
Control = Literal["none", "inverted", "random"]


class CausalCredit(OfflineRule):
    """A host rule's credit, weighed in time by what masking a segment of the input costs (Khandoga et al. 2026).

    Args:
        host: name of the rule whose credit is weighed.
        host_options: its options, by name.
        segments: stretches of equal length that a sequence is cut into; each costs a forward run.
        form: "signed" as published, or "clipped".
        w_min: weight of the least important step, before the mean is taken out; "signed" only.
        boost: weight of the most important step; "signed" only.
        kappa: κ, weight per unit of log-likelihood; "clipped" only.
        control: "none", "inverted" or "random" importance.
        baseline: what a masked input is: "zero", or the sequence's own "mean" over time.
    """

    traits = Traits(
        exact_when=Limit(("by its options",), condition="with boost = w_min and host bptt"),
        exact_with={"host": "bptt", "boost": 0.5},
    )

    def __init__(
        self,
        host: str = "three_factor",
        host_options: dict[str, Any] | None = None,
        segments: int = 5,
        form: Form = "signed",
        w_min: float = 0.5,
        boost: float = 2.0,
        kappa: float = 1.0,
        control: Control = "none",
        baseline: Baseline = "zero",
    ) -> None:
        super().__init__()
        rule = load_rule(host, **(host_options or {}))
        if not isinstance(rule, OfflineRule) or type(rule).estimate is not OfflineRule.estimate:
            raise BpgenError(f"causal_credit weighs the credit of rules such as bptt, eprop or rflo, not of {host}.")
        self.host = rule
        require(segments >= 1, f"rule.segments must be a positive number, got {segments}.")
        require(0 < w_min <= boost, f"rule.w_min must be > 0 and at most rule.boost, got {w_min} and {boost}.")
        require(kappa >= 0, f"rule.kappa must be >= 0, got {kappa}.")
        self.segments, self.w_min, self.boost, self.kappa = segments, float(w_min), float(boost), float(kappa)
        self.form, self.control = choice("form", form, Form), choice("control", control, Control)
        self.baseline = choice("baseline", baseline, Baseline)
        require(
            control == "none" or form == "signed", "rule.control is of the importance I_t, which form='signed' has."
        )
        self.traits = replace(  # type: ignore[misc]
            type(self).traits, stochastic=control == "random" or self.host.traits.stochastic
        )

    @property
    def forward_passes(self) -> int:
        """The host's run, and one for every segment (of at least as many steps); random importance masks none."""
        return 1 if self.control == "random" else 1 + self.segments

    def bind(self, network: Network, seed: int = 0) -> "CausalCredit":
        """Bind the host as it would be bound alone."""
        super().bind(network, seed)
        self.host.bind(network, seed)
        return self

    def draw(self, network: Network, x: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """What the host draws, and the importance of every step [T,B] where that is random."""
        drawn = self.host.draw(network, x, random)
        if self.control == "random":
            drawn["importance"] = torch.rand(*x.shape[:2], generator=random, dtype=torch.float64).to(x)
        return drawn

    def estimate(self, problem: Problem, draws: Draws) -> RuleGradients:
        """Equation (5)."""
        run = problem.run()
        value, error = problem.value_and_error(run)
        credit: Any = self.host.credit(run, self.host.told(run, error, draws))
        credit = credit if isinstance(credit, Credit) else Credit(credit)
        w = self.weights(problem, run, draws)
        own = credit._replace(currents=credit.currents * w[-len(credit.currents) :].unsqueeze(-1).unsqueeze(-1))
        aux = {"last_state": run.states[-1], "w": w, **credit.aux}
        return RuleGradients(value, run.outputs, weight_gradients(run, own, error), aux)

    def learn(self, aux: Mapping[str, Tensor]) -> None:
        """Let the host learn what it would learn alone."""
        self.host.learn(aux)

    def weights(self, problem: Problem, run: Trajectory, draws: Draws) -> Tensor:
        """Equations (2) to (4): w [T,B]."""
        of = segment_of(problem.n_steps, own_steps(problem), self.segments)
        if self.control == "random":
            I = draws["importance"]
        else:
            drop = drops(problem, run, of, self.segments, self.baseline)
            if self.form == "clipped":
                return of_mean_one(1 + self.kappa * drop.clamp_min(0), of)
            I = importance(drop, of, self.control == "inverted")
        return of_mean_one(self.w_min + (self.boost - self.w_min) * I, of)
