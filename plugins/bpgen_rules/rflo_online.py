"""Random-feedback local online learning, online to the letter: a trace per synapse times a random projection.

    (1) p_t = (1-α) p_{t-1} + α φ'(u_t) ∂I_t/∂w         eligibility trace, φ' inside the filter
    (2) p̄_t = κ p̄_{t-1} + (1-κ) p_t                      filtered as the readout filters (κ = 0 in the paper)
    (3) ∂L/∂w ≈ Σ_t [B e_t] p̄_t                          B fixed and random, e the output error
Source: Murray 2019, eLife 8:e43299, for the rate leak s_t = (1-α) s_{t-1} + α φ(I_t), u_t = I_t.
    (4) trace="own" (default): (1) of `eprop_online`, the neuron's own path, which on the rate leak is (1) here.
    (5) trace="murray": (1) taken literally on every leaky neuron, u_t the argument of φ.
The sum over a sequence is that of `rflo` with the same trace, which filters the error backwards instead.
Deviation: the readout has its exact gradient (as in the paper); (2).
Shapes: p, p̄ [B,N,X], X = N+I+1 weights of one neuron.
Cost: N² per step and sample; memory N², flat in T.
Exact: W_rec = 0 with symmetric feedback; always equal to `rflo`. Neurons: all with trace="own"; Leaky with "murray".
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bpgen.neurons import Leaky
from bpgen.neurons.activation import ACTIVATIONS
from bpgen.rules import BpgenError, FeedbackName, Increments, Moment, Network, State, Traits, choice, own_influence
from bpgen_rules.eprop_online import EPropOnline
from bpgen_rules.rflo import Trace


class RFLOOnline(EPropOnline):
    """Random-feedback local online learning (Murray 2019) with explicit traces, online.

    Args:
        feedback: how the output error reaches the neurons: random, sparse random, or symmetric (W_out).
        trace: "own" follows each neuron's own dynamics, "murray" is the published trace taken literally.
        **feedback_options: see `bpgen.rules.Broadcast`.
    """

    traits = Traits(
        signal_origin="random feedback",
        signal_scope="broadcast",
        recurrence="diagonal",
        weight_transport=False,
        needs_future=False,
        online=True,
        time_per_step="N²",
        memory="N²",
        exact_when="W_rec = 0 with symmetric feedback",
    )

    def __init__(
        self,
        feedback: FeedbackName = "random",
        trace: Trace = "own",
        **feedback_options: Any,
    ) -> None:
        super().__init__(feedback, **feedback_options)
        self.trace = choice("trace of rflo_online", trace, Trace)

    def bind(self, network: Network, seed: int = 0) -> "RFLOOnline":
        """Draw the feedback weights."""
        super().bind(network, seed)
        if self.trace == "murray" and not isinstance(network.neuron, Leaky):
            raise BpgenError(
                "rflo_online with trace='murray' is defined for leaky neurons; use trace='own' for others."
            )
        return self

    @property
    def at_once(self) -> bool:  # type: ignore[override]
        """The published trace goes step by step."""
        return self.trace == "own"

    def start(self, network: Network, params: Mapping[str, Tensor], batch: int) -> State:
        """ε_0, or p_0 and p̄_0; the published trace knows no initial state."""
        if self.trace == "own":
            return super().start(network, params, batch)
        none = torch.zeros_like(own_influence(network, params, batch)).repeat(1, network.n_rec, 1)  # [B,N,X]
        return {"p": none, "filtered": none}

    def step(self, state: State, moment: Moment) -> tuple[State, Increments]:
        """Equations (1) to (3), or those of `eprop_online`."""
        if self.trace == "own":
            return super().step(state, moment)
        neuron = moment.network.neuron
        assert isinstance(neuron, Leaky)
        phi, alpha = ACTIVATIONS[neuron.activation], neuron.alpha
        if isinstance(alpha, torch.Tensor):
            alpha = alpha.unsqueeze(-1)  # one per neuron: [N,1], next to the axis of its parameters
        output = phi.apply(moment.I[:, 0]) if neuron.leak == "rate" else moment.h
        slope = phi.pull(torch.ones_like(output), output)  # φ'(u_t) [B,N]
        p = (1 - alpha) * state["p"] + alpha * slope.unsqueeze(-1) * moment.of_each[:, 0]
        filtered = moment.kappa * state["filtered"] + (1 - moment.kappa) * p if moment.kappa else p
        state = {"p": p, "filtered": filtered}
        if moment.error is None:
            return state, {}
        q = self.feedback.signal(moment, moment.error)
        return state, moment.gradient(torch.einsum("bn,bnx->nx", q, filtered))
