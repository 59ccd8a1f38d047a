"""Slow reference of diffusing neuromodulators, neuron by neuron and site by site, in numpy. Nothing from bpgen.

Barretto-Bittar et al. 2026: LIF and ALIF neurons whose adaptation takes in 1-ρ of a spike, eligibility traces forward
in time, and a concentration on a grid of sites, of which neuron p has `site[p]`, counted row by row.
"""

from __future__ import annotations

import numpy as np

from tests.rules.reference import _unpack
from tests.rules.reference_spiking import Spiking


def box(field: np.ndarray) -> np.ndarray:
    """The mean over the 3 x 3 sites around each site [h,w], round the torus."""
    h, w = field.shape
    spread = np.zeros_like(field)
    for row in range(h):
        for column in range(w):
            for i in (-1, 0, 1):
                for j in (-1, 0, 1):
                    spread[row, column] += field[(row + i) % h, (column + j) % w] / 9
    return spread


def diffusive_e_prop(
    m: Spiking, B: np.ndarray, k: float, site: np.ndarray, shape: tuple[int, int], window: np.ndarray
) -> dict[str, np.ndarray]:
    """The gradient of L = (1/B) Σ_{t in window} ½ Σ_o (y - y*)², `window` [T] of 0 and 1, feedback B [O,N]."""
    W, (N, I) = m.W - np.diag(np.diag(m.W)), m.U.shape
    samples, total, added = m.x.shape[1], np.zeros((N, N + I + 1)), 1 - m.rho
    for sample in range(samples):
        v, b, r = m.v0[sample], m.a0[sample], np.zeros(N)
        u = v - m.theta - m.beta * b
        z, psi = 1.0 * (u > 0), m.gamma / m.theta * np.maximum(0, 1 - np.abs(u) / m.theta)
        eps_v, eps_b, ebar = np.zeros((N, N + I + 1)), np.zeros((N, N + I + 1)), np.zeros((N, N + I + 1))
        field = np.zeros(shape)
        for t in range(len(m.x)):
            pre = np.concatenate([z, m.x[t, sample], [1.0]])
            for p in range(N):
                eps_b[p] = added * psi[p] * eps_v[p] + (m.rho - added * m.beta * psi[p]) * eps_b[p]
                eps_v[p] = (1 - m.alpha) * eps_v[p] + m.alpha * pre
            v = (1 - m.alpha) * v + m.alpha * (W @ z + m.U @ m.x[t, sample] + m.b) - m.theta * z
            b = m.rho * b + added * z
            u = v - m.theta - m.beta * b
            z, psi = 1.0 * (u > 0), m.gamma / m.theta * np.maximum(0, 1 - np.abs(u) / m.theta)
            r = m.kappa * r + (1 - m.kappa) * z
            error = window[t] * (m.R @ r + m.c - m.target[t, sample])
            field = k * box(field)
            for p in range(N):
                row, column = divmod(int(site[p]), shape[1])
                field[row, column] += B[:, p] @ error
                ebar[p] = m.kappa * ebar[p] + (1 - m.kappa) * psi[p] * (eps_v[p] - m.beta * eps_b[p])
                if window[t]:
                    total[p] += field[row, column] * ebar[p]
    return _unpack(total / samples, N, I)
