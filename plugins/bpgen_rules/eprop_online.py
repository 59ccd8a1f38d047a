"""E-prop forward in time: an eligibility trace in every synapse, multiplied by a learning signal as it comes.

    (1) ε_t = A_t ε_{t-1} + C_t ∂I_t/∂w           eligibility vector of a synapse [d], along its neuron's own path
    (2) ē_t = κ ē_{t-1} + (1-κ) D_t ε_t           eligibility trace, filtered as the readout filters
    (3) ∂L/∂w ≈ Σ_t q_t ē_t,   q_t = e_t B        learning signal of the instantaneous error; B = W_out by default
Source: Bellec et al. 2020, Nat. Commun. 11:3625, and its methods for (2).
`d_rtrl` is another name of it: D-RTRL (Wang et al. 2026, Nat. Commun., bioRxiv 2024.09.24.614728; github
chaobrain/braintrace) is (1) with A_t the diagonal blocks of the recurrence that a neuron's states have by themselves,
without the way through any recurrent weight, the neuron's own one included (with that one it is `snap` with n = 1,
which braintrace calls OSTLRecurrent), times the instantaneous error: (2) and (3) with κ = 0 and symmetric feedback.
For ALIF, (1) is their trace (`bpgen.neurons.lif`, 5). The sum over a sequence is that of `eprop`, which filters
the learning signal backwards instead; a learned initial state is a parameter with ε_0 = 1.
Deviation: the readout has its exact gradient.
Over many steps at fixed weights it is computed as `bpgen.rules.own_path` says, without a trace at every step.
Shapes: ε [B,d,N,X] (N = 1 where A and C are numbers: it is presynaptic only), ē [B,N,X], X = K(N+I+1).
Cost: N² per step and sample; memory N², flat in T.
Exact: W_rec = 0; always equal to `eprop`, and to `snap` with n = 1 without autapses. Neurons: all.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from bpgen.rules import (
    Broadcast,
    Increments,
    Moment,
    Network,
    OnlineRule,
    State,
    Steps,
    Traits,
    block_gradients,
    gradients_of_own,
    propagate,
    trace_end,
    trace_met,
    trace_start,
    trace_step,
    traces_met,
)


class EPropOnline(Broadcast, OnlineRule):
    """E-prop with explicit eligibility traces, online; also D-RTRL (Wang et al. 2026)."""

    trains_neurons = True
    traits = Traits(
        signal_scope="broadcast",
        recurrence="diagonal",
        needs_future=False,
        online=True,
        time_per_step="N²",
        memory="N²",
        exact_when="W_rec = 0",
    )

    at_once = True
    filters_back = True

    def start(self, network: Network, params: Mapping[str, Tensor], batch: int) -> State:
        """ε_0 and ē_0."""
        vector = trace_start(network, params, batch)
        trace = {"trace": torch.zeros_like(vector[:, 0]).expand(-1, network.n_rec, -1)} if network.kappa else {}
        return {"vector": vector, **trace}

    def block(self, state: State, steps: Steps) -> tuple[State, Increments]:
        """Equations (1) to (3) over many steps, as `bpgen.rules.own_path` says."""
        run, vector = steps.run, state["vector"]
        q = self.feedback.signal(run, steps.error_back)
        if vector.shape[1] == vector.shape[2] == 1 and not run.network.kappa:
            own, end = traces_met(run, q, vector)
            return {"vector": end}, gradients_of_own(run.network, run.params, own)
        end = state["vector"] if steps.ends else trace_end(run, vector)
        credit = propagate(run, q)
        met = None if credit.initial is None else trace_met(credit.initial, vector)
        return {**state, "vector": end}, block_gradients(run, credit, met)

    def step(self, state: State, moment: Moment) -> tuple[State, Increments]:
        """Equations (1) to (3)."""
        kept, q = self.heard(state, moment)
        vector = trace_step(state["vector"], moment)
        if not moment.kappa:
            state = {"vector": vector, **kept}
            return state, {} if q is None else moment.gradient(trace_met(moment.tell(q), vector))
        trace = moment.kappa * state["trace"] + (1 - moment.kappa) * moment.read(vector)
        state = {"vector": vector, "trace": trace, **kept}
        return state, {} if q is None else moment.gradient(torch.einsum("bn,bnx->nx", q, trace))

    def heard(self, state: State, moment: Moment) -> tuple[State, Tensor | None]:
        """What is kept of earlier learning signals, here nothing, and q_t [B,N]; None at a step without an error."""
        return {}, None if moment.error is None else self.feedback.signal(moment, moment.error)
