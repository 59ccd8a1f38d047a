"""Spatial learning through time (SLTT): every step by itself, nothing of the steps before.

    (1) g_t = C_tᵀ D_tᵀ q_t,   q_t = (1-κ) B e_t          as in `ottt`; B = W_out
    (2) ∂L/∂W_rec, ∂L/∂W_in ≈ Σ_t g_t a_tᵀ,  ∂L/∂b_rec ≈ Σ_t g_t,    a_t = (h_{t-1}, x_t)
Source: Meng, Xiao, Yan, Wang, Lin and Luo, ICCV 2023 (arXiv 2302.14311), and their code: the potential of the step
before is detached, so that only paths within a step are left. Their SLTT-K, with K steps drawn of T, is not offered.
Which paths are kept: of a recurrent layer none in time, neither the neuron's own nor any through W_rec; W_rec learns as
W_in does, from the spikes of one step before. That is `ottt` without a trace.
Deviation: the readout has its exact gradient, also where it leaks (κ).
Shapes: g [B,N], a [B,Q]. Cost: N² per step and sample for the product; memory N. Exact: T = 1; equal to `eprop` for
neurons without memory (α = 1) and κ = 0. Neurons: LIF, ALIF, Leaky.
"""

from dataclasses import replace
from typing import Any

from bpgen_rules.ottt import OTTT


class SLTT(OTTT):
    """Spatial learning through time (Meng et al. 2023): the error of the moment, and no trace.

    Args:
        **feedback: see `bpgen.rules.Broadcast`.
    """

    traits = replace(OTTT.traits, recurrence="none")

    def __init__(self, **feedback: Any) -> None:
        super().__init__(trace_decay=0.0, **feedback)
