"""Online training through time (OTTT): a presynaptic trace in every axon, times the error of the moment.

    (1) â_t = λ â_{t-1} + a_t                      presynaptic trace; a_t = (h_{t-1}, x_t); λ = 1-α, the neuron's leak
    (2) g_t = C_tᵀ D_tᵀ q_t,   q_t = (1-κ) B e_t   error of the moment at the current; LIF: G ψ_t q_t; B = W_out
    (3) ∂L/∂W_rec, ∂L/∂W_in ≈ Σ_t g_t â_tᵀ,        ∂L/∂b_rec ≈ Σ_t g_t
Source: Xiao, Meng, Zhang, He and Lin, NeurIPS 2022 (arXiv 2210.04195), and their code: the potential of the step before
is detached, so that leak, reset and adaptation carry no credit; in (3) the leak is made up for by the trace, which the
bias does not have. Changing weights after the sequence is their OTTT_A, after every step (--trainer.chunk 1) OTTT_O.
Which paths are kept: their layers are feed-forward, and connections back are one more presynaptic side. So W_rec learns
by (3) as W_in does, and no credit crosses it. Of a leaky readout (κ) only the step's own share is told.
Deviation: the readout has its exact gradient, which is (3) of a layer whose leak is κ; an input has a trace, too (in
their code images, the same at all steps, have none).
Limits: equal to `eprop` for W_rec and W_in where C is a number, A = λ and κ = 0, that is, where the slope stands
outside a filter of nothing but the leak: LIF with the reset detached, and leaky neurons whose potential leaks. Not so
for ALIF, whose adaptation is left out, with the reset attached, or on the rate leak. At λ = 0 it is `sltt`.
Shapes: â [B,1,1,Q] ([B,1,N,Q] where leaks differ), Q = N+I (+1), g [B,N].
Cost: N² per step and sample for the product; memory N, flat in T. Exact: T = 1. Neurons: LIF, ALIF, Leaky.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bpgen.rules import (
    Broadcast,
    Draws,
    Increments,
    Moment,
    Network,
    OnlineRule,
    State,
    Steps,
    Traits,
    Trajectory,
    gradients_of_currents,
    require,
    trace_met,
)


class OTTT(Broadcast, OnlineRule):
    """Online training through time (Xiao et al. 2022): presynaptic traces, and the error of the moment.

    Args:
        trace_decay: λ, what is left of a presynaptic trace after a step, in [0, 1); by default the neuron's own 1-α.
        **feedback: see `bpgen.rules.Broadcast`.
    """

    traits = Traits(
        signal_scope="broadcast",
        recurrence="diagonal",
        needs_future=False,
        online=True,
        time_per_step="N²",
        memory="N",
        neurons=("LIF", "ALIF", "Leaky"),
        exact_when="T = 1",
    )

    at_once = True

    def __init__(self, trace_decay: float | None = None, **feedback: Any) -> None:
        super().__init__(**feedback)
        fits = trace_decay is None or 0 <= trace_decay < 1
        require(fits, f"rule.trace_decay must be in [0, 1), or null for the neuron's own 1-alpha, got {trace_decay}.")
        self.trace_decay = trace_decay

    def decay(self, network: Any) -> float | Tensor:
        """λ, a number or one per neuron [N]."""
        return 1 - network.neuron.alpha if self.trace_decay is None else self.trace_decay

    def start(self, network: Network, params: Mapping[str, Tensor], batch: int) -> State:
        """â_0 = 0; one for all neurons where λ is a number."""
        decay = self.decay(network)
        of = len(decay) if isinstance(decay, Tensor) else 1
        return {"trace": params["W_rec"].new_zeros(batch, 1, of, network.n_rec + network.n_in + ("b_rec" in params))}

    def signal(self, at: Moment | Trajectory, error: Tensor, draws: Draws) -> Tensor:
        """q of equation (2), at one moment [B,N] or at all steps [T,B,N]."""
        return (1 - at.network.kappa) * self.feedback.signal(at, error)

    def step(self, state: State, moment: Moment) -> tuple[State, Increments]:
        """Equations (1) to (3)."""
        decay = self.decay(moment.network)
        decay = decay.unsqueeze(-1) if isinstance(decay, Tensor) else decay
        trace = decay * state["trace"] + moment.pre[:, None, None]
        if moment.error is None:
            return {"trace": trace}, {}
        q = self.signal(moment, moment.error, moment.draws)
        g = torch.einsum("bdkn,bdn->bkn", moment.C, moment.tell(q))
        return {"trace": trace}, _gradients(moment.network, moment.params, trace_met(g, trace), g)

    def block(self, state: State, steps: Steps) -> tuple[State, Increments]:
        """The same over many steps: Σ_t g_t â_tᵀ = Σ_t c_t a_tᵀ + λ c_1 â_0ᵀ, where c_t = g_t + λ c_{t+1}."""
        run, decay, T = steps.run, self.decay(steps.run.network), steps.run.n_steps
        times = slice(1, T + 1)
        q = self.signal(run, steps.error_at_all, steps.draws)
        g = run.local.C.pull(run.local.D.pull(q.unsqueeze(-2), times), times).squeeze(-2)  # [T,B,N]
        c = _filtered_back(g, decay)
        own = c.flatten(0, 1).mT @ steps.pre.flatten(0, 1)
        own = own + trace_met((decay * c[0]).unsqueeze(1), state["trace"])
        left = torch.as_tensor(decay, dtype=g.dtype, device=g.device).reshape(1, -1)
        left = left ** torch.arange(T, -1, -1, dtype=g.dtype, device=g.device).unsqueeze(1)  # λ^T ... λ, 1
        came = torch.einsum("tm,tbq->bmq", left[1:], steps.pre).unsqueeze(1)
        trace = left[0].unsqueeze(-1) * state["trace"] + came
        return {"trace": trace}, _gradients(run.network, run.params, own, g)


def _filtered_back(g: Tensor, decay: float | Tensor) -> Tensor:
    """c_t = g_t + λ c_{t+1} [T,B,N]."""
    if not isinstance(decay, Tensor) and decay == 0:
        return g
    carried, steps = torch.zeros_like(g[0]), []
    for told in g.flip(0):
        carried = told + decay * carried
        steps.append(carried)
    return torch.stack(steps[::-1])


def _gradients(network: Any, params: Mapping[str, Tensor], own: Tensor, g: Tensor) -> Increments:
    """Equation (3) by parameter name, from g âᵀ summed [N,Q] and g [...,N]."""
    grads = gradients_of_currents(network, params, own)
    return {**grads, "b_rec": g.flatten(0, -2).sum(0)} if "b_rec" in grads else grads
