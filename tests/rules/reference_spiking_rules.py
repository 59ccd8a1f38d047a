"""OTTT and SLTT for spiking neurons, forward in time and synapse by synapse, from their papers. No bpgen.

The network is that of `reference_spiking`; a_t = (z_{t-1}, x_t, 1) is the presynaptic side, e_t = y_t - y*_t.
    OTTT (Xiao 2022)   â_t = λ â_{t-1} + a_t,   g_t = G ψ_t (1-κ) B e_t,   Δ = Σ_t g_t â_t;  the bias: Σ_t g_t
    SLTT (Meng 2023)   the same at λ = 0
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.rules.reference import _unpack
from tests.rules.reference_spiking import Spiking


def steps_of(m: Spiking, sample: int) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """t from 0, a_t [N+I+1], z_t [N], ψ_t [N] and the error e_t [O] of one sample."""
    W, N = m.W - np.diag(np.diag(m.W)), len(m.W)
    v, a, r = m.v0[sample], m.a0[sample], np.zeros(N)
    z = 1.0 * (v - m.theta - m.beta * a > 0)
    for t in range(len(m.x)):
        pre = np.concatenate([z, m.x[t, sample], [1.0]])
        v = (1 - m.alpha) * v + m.gain * (W @ z + m.U @ m.x[t, sample] + m.b) - m.theta * z
        a = m.rho * a + z
        u = v - m.theta - m.beta * a
        z, psi = 1.0 * (u > 0), m.gamma / m.theta * np.maximum(0, 1 - np.abs(u) / m.theta)
        r = m.kappa * r + (1 - m.kappa) * z
        yield t, pre, z, psi, m.R @ r + m.c - m.target[t, sample]


def ottt(m: Spiking, B: np.ndarray, decay: float | np.ndarray) -> dict[str, np.ndarray]:
    """The gradient with feedback B [O,N] and traces that keep `decay` of themselves, a number or one per neuron."""
    N, I = m.U.shape
    samples, total, kept = m.x.shape[1], np.zeros((N, N + I + 1)), np.broadcast_to(decay, N)
    for sample in range(samples):
        traces = np.zeros((N, N + I))  # of each synapse, though those of one axon are the same where leaks are
        for _, pre, _, psi, error in steps_of(m, sample):
            g = m.gain * psi * (1 - m.kappa) * (B.T @ error)
            for p in range(N):
                for q in range(N + I):
                    traces[p, q] = kept[p] * traces[p, q] + pre[q]
                    total[p, q] += g[p] * traces[p, q]
                total[p, -1] += g[p]
    return _unpack(total / samples, N, I)
