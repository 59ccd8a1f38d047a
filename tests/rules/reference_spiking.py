"""e-prop for spiking neurons, synapse by synapse its eligibility vector written out (Bellec 2020). No bpgen.

    v_t = (1-α) v_{t-1} + G (W z_{t-1} + U x_t + b) - θ z_{t-1},  a_t = ρ a_{t-1} + z_{t-1},  z_t = H(v_t - θ - β a_t)
    ε^v_t = (1-α) ε^v_{t-1} + G pre_t        ε^a_t = ψ_{t-1} ε^v_{t-1} + (ρ - ψ_{t-1} β) ε^a_{t-1}
    e_t = ψ_t (ε^v_t - β ε^a_t)              ē_t = κ ē_{t-1} + (1-κ) e_t              g = Σ_t (B e^out_t) ē_t
pre_t is z_{t-1}, x_t or 1. LIF is β = 0. ψ = (γ/θ) max(0, 1 - |v - θ - β a| / θ). The reset carries no credit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.rules.reference import _unpack


@dataclass
class Spiking:
    """Weights and data as in `reference.Model`, a start v0, a0 [B,N], and the neuron's constants."""

    W: np.ndarray
    U: np.ndarray
    b: np.ndarray
    R: np.ndarray
    c: np.ndarray
    x: np.ndarray
    target: np.ndarray
    v0: np.ndarray
    a0: np.ndarray
    alpha: float
    gain: float
    theta: float
    beta: float
    rho: float
    gamma: float
    kappa: float


def e_prop(m: Spiking, B: np.ndarray, adaptation: bool = True) -> dict[str, np.ndarray]:
    """The gradient with feedback B [O,N]; `adaptation=False` forgets ε^a, which is the mistake of a plain LIF trace."""
    W, (N, I) = m.W - np.diag(np.diag(m.W)), m.U.shape
    samples, total = m.x.shape[1], np.zeros((N, N + I + 1))
    for sample in range(samples):
        v, a, r = m.v0[sample], m.a0[sample], np.zeros(N)
        u = v - m.theta - m.beta * a
        z, psi = 1.0 * (u > 0), m.gamma / m.theta * np.maximum(0, 1 - np.abs(u) / m.theta)
        eps_v, eps_a, ebar = np.zeros((N, N + I + 1)), np.zeros((N, N + I + 1)), np.zeros((N, N + I + 1))
        for t in range(len(m.x)):
            pre = np.concatenate([z, m.x[t, sample], [1.0]])
            for p in range(N):
                for q in range(N + I + 1):
                    eps_a[p, q] = psi[p] * eps_v[p, q] + (m.rho - psi[p] * m.beta) * eps_a[p, q]
                    eps_v[p, q] = (1 - m.alpha) * eps_v[p, q] + m.gain * pre[q]
            v = (1 - m.alpha) * v + m.gain * (W @ z + m.U @ m.x[t, sample] + m.b) - m.theta * z
            a = m.rho * a + z
            u = v - m.theta - m.beta * a
            z, psi = 1.0 * (u > 0), m.gamma / m.theta * np.maximum(0, 1 - np.abs(u) / m.theta)
            r = m.kappa * r + (1 - m.kappa) * z
            error = m.R @ r + m.c - m.target[t, sample]
            for p in range(N):
                for q in range(N + I + 1):
                    e = psi[p] * (eps_v[p, q] - (m.beta * eps_a[p, q] if adaptation else 0.0))
                    ebar[p, q] = m.kappa * ebar[p, q] + (1 - m.kappa) * e
                    total[p, q] += (B.T @ error)[p] * ebar[p, q]
    return _unpack(total / samples, N, I)
