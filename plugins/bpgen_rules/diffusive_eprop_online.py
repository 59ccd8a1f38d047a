"""E-prop with diffusing neuromodulators, forward in time: traces in the synapses, a concentration at every neuron.

    (1) m_t = K m_{t-1} + B e_t,  m_0 = 0        concentration at each neuron's site on a torus; B sparse and random
    (2) ∂L/∂w ≈ Σ_t m_t ē_t                       at the steps t that have an error; ē_t the trace of `eprop_online`
Source: Barretto-Bittar, Levina, Giannakakis and Zeraati 2026, arXiv 2603.08949, and the authors' code.
Both are carried on from step to step, so that this is the rule to the letter. The sum over a sequence is that of
`diffusive_eprop`, where K, its controls and the deviations are described.
Shapes: e [B,O], B [O,N], m [B,N], ē [B,N,X], X = K(N+I+1) weights of one neuron.
Cost: N² per step and sample; memory N², flat in T.
Exact: W_rec = 0 with symmetric feedback and k = 0; always equal to `diffusive_eprop`, and at k = 0 to `eprop_online`.
Neurons: all.
"""

from collections.abc import Mapping

from torch import Tensor

from bpgen.rules import Limit, Moment, Network, State, Traits
from bpgen_rules._diffusion import Diffusing, window
from bpgen_rules.eprop_online import EPropOnline


class DiffusiveEPropOnline(Diffusing, EPropOnline):
    """E-prop whose sparse learning signal diffuses between neurons on a torus, online."""

    traits = Traits(
        signal_origin="random feedback",
        signal_scope="broadcast",
        recurrence="diagonal",
        weight_transport=False,
        needs_future=False,
        online=True,
        time_per_step="N²",
        memory="N²",
        exact_when=Limit(("W_rec = 0",), symmetric_feedback=True, condition="without diffusion (k = 0)"),
        exact_with={"decay": 0.0},
    )

    at_once = False

    def start(self, network: Network, params: Mapping[str, Tensor], batch: int) -> State:
        """No trace, no modulator."""
        return {**super().start(network, params, batch), "field": params["W_rec"].new_zeros(batch, network.n_rec)}

    def heard(self, state: State, moment: Moment) -> tuple[State, Tensor | None]:
        """Equation (1)."""
        field = self.spread(state["field"], moment.draws.get("order"))
        if moment.error is None:
            return {"field": field}, None
        field = field + self.feedback.signal(moment, moment.error)
        return {"field": field}, field * window(moment.error)
