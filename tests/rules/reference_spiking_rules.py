"""OTTT, SLTT, SuperSpike and DECOLLE for spiking neurons, synapse by synapse, from their papers. No bpgen.

The network is that of `reference_spiking`; a_t = (z_{t-1}, x_t, 1) is the presynaptic side, e_t = y_t - y*_t.
    OTTT (Xiao 2022)   â_t = λ â_{t-1} + a_t,   g_t = G ψ_t (1-κ) B e_t,   Δ = Σ_t g_t â_t;  the bias: Σ_t g_t
    SLTT (Meng 2023)   the same at λ = 0;   SLTT-K: both sums over K steps alone
    SuperSpike (Zenke & Ganguli 2018)   α_t = the sum over s of (1-ρ) ρ^{t-s} (1-δ) δ^s,  Δ = Σ_t B (α*e)_t (α*el)_t
                       el the eligibility trace of e-prop
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.rules.reference import _unpack
from tests.rules.reference_spiking import Spiking


def steps_of(m: Spiking, sample: int) -> Iterator[tuple[np.ndarray, ...]]:
    """a_t [N+I+1], ψ_{t-1} and ψ_t [N], z_t [N] and the error e_t [O] of one sample."""
    W, N = m.W - np.diag(np.diag(m.W)), len(m.W)
    v, a, r = m.v0[sample], m.a0[sample], np.zeros(N)
    u = v - m.theta - m.beta * a
    z, psi = 1.0 * (u > 0), m.gamma / m.theta * np.maximum(0, 1 - np.abs(u) / m.theta)
    for t in range(len(m.x)):
        pre = np.concatenate([z, m.x[t, sample], [1.0]])
        v = (1 - m.alpha) * v + m.gain * (W @ z + m.U @ m.x[t, sample] + m.b) - m.theta * z
        a = m.rho * a + z
        u = v - m.theta - m.beta * a
        before, z, psi = psi, 1.0 * (u > 0), m.gamma / m.theta * np.maximum(0, 1 - np.abs(u) / m.theta)
        r = m.kappa * r + (1 - m.kappa) * z
        yield pre, before, psi, z, m.R @ r + m.c - m.target[t, sample]


def ottt(m: Spiking, B: np.ndarray, decay: float | np.ndarray, steps: list[int] | None = None) -> dict[str, np.ndarray]:
    """The gradient with feedback B [O,N] and traces that keep `decay` of themselves, a number or one per neuron.

    steps: those that are learned from, from 0 on; all of them by default.
    """
    N, I = m.U.shape
    samples, total, kept = m.x.shape[1], np.zeros((N, N + I + 1)), np.broadcast_to(decay, N)
    for sample in range(samples):
        traces = np.zeros((N, N + I))  # of each synapse, though those of one axon are the same where leaks are
        for t, (pre, _, psi, _, error) in enumerate(steps_of(m, sample)):
            if steps is not None and t not in steps:
                continue  # without a trace nothing passes by
            g = m.gain * psi * (1 - m.kappa) * (B.T @ error)
            for p in range(N):
                for q in range(N + I):
                    traces[p, q] = kept[p] * traces[p, q] + pre[q]
                    total[p, q] += g[p] * traces[p, q]
                total[p, -1] += g[p]
    return _unpack(total / samples, N, I)


def kernel(rise: float, decay: float, T: int) -> np.ndarray:
    """α_0 ... α_{T-1}, of the time constants in steps: a product of two exponentials, summed over where they meet."""
    rho, delta = (np.exp(-1 / tau) if tau else 0.0 for tau in (rise, decay))
    one, other = ((1 - keep) * keep ** np.arange(T) for keep in (rho, delta))
    return np.array([sum(one[t - s] * other[s] for s in range(t + 1)) for t in range(T)])


def superspike(m: Spiking, B: np.ndarray, rise: float, decay: float, filter_error: bool) -> dict[str, np.ndarray]:
    """The gradient with feedback B [O,N]; all convolutions as sums over the past."""
    N, I = m.U.shape
    T, samples = m.x.shape[:2]
    total, alpha = np.zeros((N, N + I + 1)), kernel(rise, decay, T)
    readout = (1 - m.kappa) * m.kappa ** np.arange(T)
    for sample in range(samples):
        eps_v, eps_a = np.zeros((N, N + I + 1)), np.zeros((N, N + I + 1))
        traces, errors = [], []
        for pre, before, psi, _, error in steps_of(m, sample):
            eps_a = before[:, None] * eps_v + (m.rho - before[:, None] * m.beta) * eps_a
            eps_v = (1 - m.alpha) * eps_v + m.gain * pre
            traces.append(psi[:, None] * (eps_v - m.beta * eps_a))
            errors.append(error)
        seen = [sum(readout[t - s] * traces[s] for s in range(t + 1)) for t in range(T)]
        for t in range(T):
            smooth = sum(alpha[t - s] * seen[s] for s in range(t + 1))
            e = sum(alpha[t - s] * errors[s] for s in range(t + 1)) if filter_error else errors[t]
            total += (B.T @ e)[:, None] * smooth
    return _unpack(total / samples, N, I)


def decolle(m: Spiking, G: np.ndarray, area: np.ndarray) -> dict[str, np.ndarray]:
    """The gradient with local readouts G [O,N] of the areas [N], for squared errors at all steps.

    Kaiser 2020: y^a_t = Σ_{i in a} G_i r_i,  Δ_i = Σ_t G_iᵀ (y^a_t - y*_t) · (readout filter of ψ_i ε_i).
    """
    N, I = m.U.shape
    total, samples = np.zeros((N, N + I + 1)), m.x.shape[1]
    for sample in range(samples):
        eps_v, eps_a, seen = np.zeros((3, N, N + I + 1))
        r = np.zeros(N)
        for t, (pre, before, psi, z, _) in enumerate(steps_of(m, sample)):
            eps_a = before[:, None] * eps_v + (m.rho - before[:, None] * m.beta) * eps_a
            eps_v = (1 - m.alpha) * eps_v + m.gain * pre
            seen = m.kappa * seen + (1 - m.kappa) * psi[:, None] * (eps_v - m.beta * eps_a)
            r = m.kappa * r + (1 - m.kappa) * z
            for i in range(N):
                local = sum(G[:, j] * r[j] for j in range(N) if area[j] == area[i])
                total[i] += G[:, i] @ (local - m.target[t, sample]) * seen[i]
    return _unpack(total / samples, N, I)
