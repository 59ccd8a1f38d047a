"""E-prop+: e-prop whose synapses stop listening some time after a spike, and whose neurons know their running rate.

    (1) ε_t = A_t ε_{t-1} + C_t ∂I_t/∂w                 eligibility vector of `eprop_online`; LIF: the filtered spikes z̄
    (2) m_t = 1 in the Δ steps from the arrival of a presynaptic spike on, else 0             Δ = cutoff, NEST's Δt_c
    (3) ē_t = κ ē_{t-1} + (1-κ) m_t D_t ε_t             eligibility trace, filtered as the readout filters
    (4) f_t = κ_r f_{t-1} + (1-κ_r) h_t,   f_0 = 0      running rate of a neuron [activity per step]; κ_r = rate_decay
    (5) ē'_t = κ_r ē'_{t-1} + (1-κ_r) m_t D_t ε_t       eligibility trace, filtered as the rate
    (6) ∂L/∂w ≈ Σ_t m_t (q_t ē_t + c/B (f_t - f*) ē'_t),   q_t = e_t B           c = rate_cost, f* = rate_target
Source: Korcsak-Gorzo, Espinoza Valverde, Stapmanns, Plesser, Dahmen, Bolten, van Albada and Diesmann 2025, arXiv
2511.21674, as in the NEST simulator (github nest/nest-simulator): `compute_gradient` of models/eprop_iaf.cpp for (2),
(3), (5), (6), which from spike to spike adds up steps until the cutoff and from there on lets traces decay; (4) is
write_firing_rate_reg_to_history of nestkernel/eprop_archiving_node_recurrent_impl.h. Their manual has ē in (6) for ē'.
Without cutoff the second term of (6) is e-prop's gradient of E = c/(2B) Σ_t Σ_j (f_t - f*)². That is a sum over steps,
not a mean as in loss.activity, since how many will come is not known; the loss that is reported is without it.
A spike is any activity other than zero: a bias is never cut, nor are graded inputs and rate neurons that never rest.
Left out: archives and weight changes at every spike, which make events fast (--trainer.chunk 1 changes weights at every
step), and delays, which the networks here do not have: a spike arrives after one step, an output error at once. NEST
delays both and matches L and ē in its archive, so that sums at fixed weights are without the error's delay. Surrogates
are those of the neuron (NEST also has exponential and arctan).
Deviation: NEST hears the step before an arrival, too (its cutoff counts from there), cuts readout synapses as well, has
traces without 1-κ as its readout has none, and after a cutoff lets the adaptation's ε decay without ψ; here W_out has
its exact gradient and ε is (1) throughout. In chunks, padding behind a sequence has a rate, too.
Shapes: m [B,X], ε [B,d,N,X], ē, ē' [B,N,X], f, q [B,N], X = K(N+I+1).
Cost: N² per step and sample; memory N², flat in T; without cutoff many steps at once, as `eprop_online`.
Exact: W_rec = 0 without cutoff and rate cost, NEST's defaults, at which it is `eprop_online`. Neurons: all.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from bpgen.rules import (
    Increments,
    Limit,
    Moment,
    Network,
    State,
    Steps,
    block_gradients,
    filtered,
    filtered_back,
    propagate,
    require,
    trace_met,
    trace_step,
)
from bpgen_rules.eprop_online import EPropOnline


class EPropPlus(EPropOnline):
    """E-prop+ (Korcsak-Gorzo et al. 2025): e-prop with a cutoff of traces and a cost of each neuron's running rate.

    Args:
        cutoff: Δ, for how many steps from a presynaptic spike on a synapse learns; null is until the next one.
        rate_cost: c, the cost of rates off their target, summed over steps; 0 is none.
        rate_target: f*, activity per step (spikes per step for spiking neurons); 0.01 is 10 Hz in steps of 1 ms.
        rate_decay: κ_r, what is left of a running rate after a step, in [0, 1).
        **feedback: see `bpgen.rules.Broadcast`.

    Raises:
        BpgenError: an option out of its range.
    """

    def __init__(
        self,
        cutoff: int | None = None,
        rate_cost: float = 0.0,
        rate_target: float = 0.01,
        rate_decay: float = 0.97,
        **feedback: Any,
    ) -> None:
        super().__init__(**feedback)
        fits = cutoff is None or cutoff >= 1
        require(fits, f"rule.cutoff must be at least 1 step, or null for none, got {cutoff}.")
        require(0 <= rate_cost < 1e30, f"rule.rate_cost must be a number >= 0, got {rate_cost}.")
        require(0 <= rate_target < 1e30, f"rule.rate_target must be activity per step, >= 0, got {rate_target}.")
        require(0 <= rate_decay < 1, f"rule.rate_decay must be in [0, 1), got {rate_decay}.")
        self.cutoff, self.rate_cost, self.rate_target, self.rate_decay = cutoff, rate_cost, rate_target, rate_decay
        self.at_once = cutoff is None
        if cutoff is not None or rate_cost:
            limit = Limit(("W_rec = 0",), condition="without cutoff and rate cost")
            exact = {"cutoff": None, "rate_cost": 0.0}
            self.traits = replace(type(self).traits, exact_when=limit, exact_with=exact)  # type: ignore[misc]

    def looks_back(self, network: Network) -> bool:
        """Also where rates have a cost, which `block` filters back."""
        return self.rate_cost > 0 or super().looks_back(network)

    def start(self, network: Network, params: Mapping[str, Tensor], batch: int) -> State:
        """No trace, no spike so far, and rates of zero."""
        state, W = super().start(network, params, batch), params["W_rec"]
        if self.cutoff is not None:
            sources = network.n_rec + network.n_in + ("b_rec" in params)
            state["since"] = W.new_full((batch, sources), self.cutoff)
        if self.rate_cost:
            state["rate"] = W.new_zeros(batch, network.n_rec)
            state["rate_trace"] = torch.zeros_like(state["vector"][:, 0]).expand(-1, network.n_rec, -1)
        return state

    def step(self, state: State, moment: Moment) -> tuple[State, Increments]:
        """Equations (1) to (6)."""
        kept, q = self.heard(state, moment)
        after = {"vector": trace_step(state["vector"], moment), **kept}
        e, own = moment.read(after["vector"]), None
        m = self.window(state, moment, after, e.shape[-1])
        e = e if m is None else e * m
        if moment.kappa:
            after["trace"] = moment.kappa * state["trace"] + (1 - moment.kappa) * e
        if q is not None:
            own = torch.einsum("bn,bnx->bnx", q, after.get("trace", e))
        if self.rate_cost:
            keep = self.rate_decay
            after["rate"] = keep * state["rate"] + (1 - keep) * moment.h
            after["rate_trace"] = keep * state["rate_trace"] + (1 - keep) * e
            rated = self.off_target(after["rate"], moment.there).unsqueeze(-1) * after["rate_trace"]
            own = rated if own is None else own + rated
        if own is None:
            return after, {}
        return after, moment.gradient((own if m is None else own * m).sum(0))

    def window(self, state: State, moment: Moment, after: State, X: int) -> Tensor | None:
        """m_t of equation (2) [B,1,X], None without a cutoff; `after` is told the steps since the last spikes [B,Q]."""
        if self.cutoff is None:
            return None
        since = after["since"] = torch.where(moment.pre != 0, 0.0, state["since"] + 1)
        m = (since < self.cutoff).to(since.dtype).repeat(1, moment.network.neuron.n_currents)
        return pad(m, (0, X - m.shape[-1]), value=1.0).unsqueeze(1)  # what is no synapse hears no spikes

    def off_target(self, rate: Tensor, there: Tensor | None) -> Tensor:
        """c/B (f_t - f*) of rates [...,B,N], zero behind the end of a sequence."""
        off = self.rate_cost / rate.shape[-2] * (rate - self.rate_target)
        return off if there is None else off * there.unsqueeze(-1)

    def block(self, state: State, steps: Steps) -> tuple[State, Increments]:
        """The same without a cutoff over many steps: both learning signals filtered back, then as `eprop_online`."""
        if not self.rate_cost:
            return super().block(state, steps)
        run, T = steps.run, steps.run.n_steps
        off = self.off_target(filtered(run.h[1:], self.rate_decay), steps.there)
        q = self.feedback.signal(run, steps.error_back)
        q = torch.cat([q.new_zeros(T - len(q), *q.shape[1:]), q]) + filtered_back(off, self.rate_decay, T)
        credit = propagate(run, q)
        met = None if credit.initial is None else trace_met(credit.initial, state["vector"])
        return state, block_gradients(run, credit, met)
