"""Slow references of the rules that try noise out: numpy, a loop over samples, steps and synapses. Nothing from bpgen.

Letters and shapes as in `reference.py`; `noise` [T,B,N] is added to the currents. Returned are the recurrent weights'
W, U, b (all for weight perturbation), as ∂/∂ of L = (1/B) Σ_b L_b, L_b = Σ_t ½ Σ_o (y - y*)².
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.rules.reference import PHI, Model


def run(m: Model, b: int, noise: np.ndarray | None = None) -> tuple[list, list, float]:
    """Activities z_0..z_T, states s_0..s_T and the loss of sample b."""
    phi, a = PHI[m.phi][0], m.alpha
    W = m.W - np.diag(np.diag(m.W))
    s = m.s0[b]
    z = phi(s) if m.leak == "potential" else s
    zs, states, total, r = [z], [s], 0.0, np.zeros(len(W))
    for t in range(len(m.x)):
        u = W @ z + m.U @ m.x[t, b] + m.b
        if noise is not None:
            u = u + noise[t, b]
        if m.leak == "potential":
            s = (1 - a) * s + a * u
            z = phi(s)
        elif m.leak == "rate":
            s = z = (1 - a) * s + a * phi(u)
        else:
            s = z = phi((1 - a) * s + a * u)
        r = m.kappa * r + (1 - m.kappa) * z
        total += 0.5 * np.sum((m.R @ r + m.c - m.target[t, b]) ** 2)
        zs.append(z)
        states.append(s)
    return zs, states, total


def correlated(m: Model, post: np.ndarray, activities: list[list], power: int = 1) -> dict[str, np.ndarray]:
    """Σ_{b,t} post[t,b,p] · pre_q^power for every synapse q -> p; activities[b][t] is z_t."""
    T, B, N = post.shape
    I = m.U.shape[1]
    W, U, bias = np.zeros((N, N)), np.zeros((N, I)), np.zeros(N)
    for b in range(B):
        for t in range(T):
            for p in range(N):
                for q in range(N):
                    if q != p:
                        W[p, q] += post[t, b, p] * activities[b][t][q] ** power
                for i in range(I):
                    U[p, i] += post[t, b, p] * m.x[t, b, i] ** power
                bias[p] += post[t, b, p]
    return {"W_rec": W, "W_in": U, "b_rec": bias}


def node_perturbation(m: Model, xi: np.ndarray, sigma: float, antithetic: bool) -> dict[str, np.ndarray]:
    """Fiete and Seung 2006: change of the loss times the noise, times presynaptic activity of the quiet run."""
    T, B, N = xi.shape
    post, quiet = np.zeros((T, B, N)), []
    for b in range(B):
        zs, _, L = run(m, b)
        up = run(m, b, sigma * xi)[2]
        change = (up - run(m, b, -sigma * xi)[2]) / (2 * sigma) if antithetic else (up - L) / sigma
        post[:, b] = change * xi[:, b] / B
        quiet.append(zs)
    return correlated(m, post, quiet)


def weight_perturbation(m: Model, xi: dict, sigma: float, antithetic: bool) -> dict[str, np.ndarray]:
    """All weights, the readout's too, moved at once by σ ξ."""
    names, B = {"W_rec": "W", "W_in": "U", "b_rec": "b", "W_out": "R", "b_out": "c"}, m.x.shape[1]

    def loss(by: float) -> float:
        moved = replace(m, **{short: getattr(m, short) + by * xi[n] for n, short in names.items()})
        return sum(run(moved, b)[2] for b in range(B)) / B

    change = (loss(sigma) - loss(-sigma)) / (2 * sigma) if antithetic else (loss(sigma) - loss(0)) / sigma
    return {n: change * xi[n] for n in names}


def reinforce(m: Model, xi: np.ndarray, sigma: float, baseline: np.ndarray) -> dict[str, np.ndarray]:
    """Williams 1992: (L - L̄) times the score of the noisy currents, baseline [B]."""
    post, noisy = np.zeros_like(xi), []
    for b in range(xi.shape[1]):
        zs, _, L = run(m, b, sigma * xi)
        post[:, b] = (L - baseline[b]) * xi[:, b] / sigma / xi.shape[1]
        noisy.append(zs)
    return correlated(m, post, noisy)


def rmhl(m: Model, jumps: np.ndarray, decay: float, mean: float | None, power: int) -> dict[str, np.ndarray]:
    """Miconi 2017: R̄ (R - R̄) Σ_t (z_{t-1} (x_t - x̄_{t-1}))^power; a mean of None is this batch's own."""
    T, B, _ = jumps.shape
    runs = [run(m, b, jumps / m.alpha) for b in range(B)]
    mean = sum(R for _, _, R in runs) / B if mean is None else mean
    post = np.zeros_like(jumps)
    for b, (_, states, R) in enumerate(runs):
        trend = states[0]
        for t in range(T):
            post[t, b] = mean * (R - mean) * (states[t + 1] - trend) ** power / B
            trend = decay * trend + (1 - decay) * states[t + 1]
    return correlated(m, post, [zs for zs, _, _ in runs], power)
