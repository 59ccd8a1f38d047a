"""pp-prop (ES-D-RTRL): an eligibility trace as one number per presynaptic times a few per postsynaptic neuron.

    (1) x̄_t = α x̄_{t-1} + (h_{t-1}, x_t)                 of each source
    (2) f_t = α A_t f_{t-1} + (1-α) C_t                  of each current of a neuron, along its own path
    (3) ε_t = f_t x̄_tᵀ / (1-α^t)                         in place of ε_t = A_t ε_{t-1} + C_t (h_{t-1}, x_t)ᵀ of `d_rtrl`
    (4) ∂L/∂w ≈ Σ_t q_t D_t ε_t,   q_t = e_t B           of the instantaneous error; B = W_out by default
1-α^t makes up for the start of (2) from nothing, as a running mean does; (1) is a sum and has no such factor. A bias
has no source: its ε_t is f_t / (1-α^t), without x̄.
Source: Wang et al. 2026, Nat. Commun. (bioRxiv 2024.09.24.614728): ES-D-RTRL; in all of this the published code
(github chaobrain/braintrace, `pp_prop`), whose integer rank r is the decay α = (r-1)/(r+1). A_t is the neuron's own
recurrence there, too: the path through its weight onto itself is left out. On leaky neurons both agree to rounding. On
an LSTM that code (0.2.6) tells c_t again what it has told h_t, which c_t makes in the same step: already at T = 1 its
gradients of the gates i, f and g are twice those of the loss. Here they are right.
Deviation: a readout with κ > 0 has its filtered activity as one more state of each neuron; there it is no part of the
trace. A learned initial state earns nothing. The readout has its exact gradient.
Limits: biased even for a neuron alone: (3) is a product of two sums over time where `d_rtrl` has the sum of products.
Shapes: x̄ [B,N+I]; f [B,n,K,N], n = d (+1 if κ > 0) states.
Cost: N² per step and sample, for the gradient alone (traces: N); memory N, flat in T.
Exact: T = 1 (α = 0: the sum of each step's own term). Neurons: all.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bpgen.rules import (
    Broadcast,
    FeedbackName,
    Increments,
    Moment,
    Network,
    OnlineRule,
    State,
    Steps,
    Traits,
    gradients_of_currents,
    require,
)
from bpgen_rules._filtered_state import own, told


class PPProp(Broadcast, OnlineRule):
    """pp-prop, or ES-D-RTRL (Wang et al. 2026): e-prop whose traces are factored, for memory N.

    Args:
        decay: α of both factors, from 0 (no memory) to below 1.
        feedback: how the output error reaches the neurons: symmetric (W_out), random, or sparse random.
        **feedback_options: see `bpgen.rules.Broadcast`.
    """

    traits = Traits(
        signal_scope="broadcast",
        recurrence="diagonal",
        needs_future=False,
        online=True,
        time_per_step="N²",
        memory="N",
        exact_when="T = 1",
    )

    def __init__(self, decay: float = 0.9, feedback: FeedbackName = "symmetric", **feedback_options: Any) -> None:
        super().__init__(feedback, **feedback_options)
        require(0 <= decay < 1, f"rule.decay must be in [0, 1), got {decay}.")
        self.decay = decay

    def start(self, network: Network, params: Mapping[str, Tensor], batch: int) -> State:
        """Nothing yet."""
        N, like = network.n_rec, params["W_rec"]
        n, K = network.neuron.n_states + (network.kappa > 0), network.neuron.n_currents
        return {"pre": like.new_zeros(batch, N + network.n_in), "post": like.new_zeros(batch, n, K, N)}

    at_once = True

    def block(self, state: State, steps: Steps) -> tuple[State, Increments]:
        """Equations (1) to (4); the sum over steps is one product."""
        T, silent = steps.run.n_steps, steps.run.n_steps - len(steps.error)
        pres, credits = [], []
        for k in range(1, T + 1):
            moment = Moment.of(steps, k)
            state = self._advance(state, moment)
            if k > silent:
                pres.append(state["pre"])
                credits.append(self._credit(state, moment))
        return state, self._gradients(steps.run, credits, pres)

    def step(self, state: State, moment: Moment) -> tuple[State, Increments]:
        """Equations (1) to (4)."""
        state = self._advance(state, moment)
        if moment.error is None:
            return state, {}
        return state, self._gradients(moment, [self._credit(state, moment)], [state["pre"]])

    def _advance(self, state: State, moment: Moment) -> State:
        """Equations (1) and (2)."""
        alpha, sources = self.decay, moment.pre[:, : state["pre"].shape[1]]
        A, C = own(moment.A, moment.C, moment.D, moment.kappa)
        post = (A.unsqueeze(3) * state["post"].unsqueeze(1)).sum(2)  # [B,n,n,K,N] summed over the states before
        return {"pre": alpha * state["pre"] + sources, "post": alpha * post + (1 - alpha) * C}

    def _credit(self, state: State, moment: Moment) -> Tensor:
        """q_t D_t f_t / (1-α^t) of each current [B,K·N]."""
        assert moment.error is not None
        q = told(moment, self.feedback.signal(moment, moment.error))  # [B,n,N]
        return (q.unsqueeze(2) * state["post"]).sum(1).flatten(1) / (1 - self.decay**moment.t)

    def _gradients(self, at: Any, credits: list[Tensor], pres: list[Tensor]) -> Increments:
        """Equation (4), of some steps."""
        if not credits:
            return {}
        credit, pre = torch.cat(credits), torch.cat(pres)
        if "b_rec" in at.params:
            pre = torch.cat([pre, torch.ones_like(pre[:, :1])], dim=1)
        return gradients_of_currents(at.network, at.params, credit.mT @ pre)
