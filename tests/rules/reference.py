"""Slow references: published forward-in-time equations, synapse by synapse, in numpy. Nothing from bpgen.

Every function takes arrays and returns gradients of L = (1/B) Σ_{t,b} ½ Σ_o (y - y*)². Letters of this page:
    potential  v_t = (1-α) v_{t-1} + α u_t,   z_t = φ(v_t)            u_t = W z_{t-1} + U x_t + b
    rate       z_t = (1-α) z_{t-1} + α φ(u_t)
    inside     z_t = φ((1-α) z_{t-1} + α u_t)
Shapes: x [T,B,I], target [T,B,O], W [N,N] (its diagonal does not act), U [N,I], b [N], R [O,N], c [O], s0 [B,N].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PHI = {
    "tanh": (np.tanh, lambda v: 1 / np.cosh(v) ** 2),
    "relu": (lambda v: np.maximum(v, 0), lambda v: 1.0 * (v > 0)),
    "softplus": (lambda v: np.log1p(np.exp(v)), lambda v: 1 / (1 + np.exp(-v))),
}


@dataclass
class Model:
    """Everything a reference is told."""

    W: np.ndarray
    U: np.ndarray
    b: np.ndarray
    R: np.ndarray
    c: np.ndarray
    x: np.ndarray
    target: np.ndarray
    s0: np.ndarray
    alpha: float
    leak: str
    phi: str
    kappa: float = 0.0


@dataclass
class Run:
    """One sample's run: z[t], t = 0..T; slope[t] = φ' at φ's own argument; errors y_t - y*_t, t = 1..T."""

    z: np.ndarray
    slope: np.ndarray
    error: np.ndarray


def forward(m: Model, sample: int) -> Run:
    phi, dphi = PHI[m.phi]
    W, a, T = m.W - np.diag(np.diag(m.W)), m.alpha, len(m.x)
    s = m.s0[sample]
    z, slope, r, errors = [phi(s) if m.leak == "potential" else s], [dphi(s)], np.zeros(len(m.W)), [None]
    for t in range(T):
        u = W @ z[-1] + m.U @ m.x[t, sample] + m.b
        if m.leak == "potential":
            s = argument = (1 - a) * s + a * u
            z.append(phi(s))
        elif m.leak == "rate":
            argument = u
            z.append((1 - a) * z[-1] + a * phi(u))
        else:
            argument = (1 - a) * z[-1] + a * u
            z.append(phi(argument))
        slope.append(dphi(argument))
        r = m.kappa * r + (1 - m.kappa) * z[-1]
        errors.append(m.R @ r + m.c - m.target[t, sample])
    return Run(np.array(z), np.array(slope), np.array([0 * errors[1], *errors[1:]]))


def rtrl(m: Model, leak_only: bool = False) -> dict[str, np.ndarray]:
    """Real-time recurrent learning (Williams and Zipser 1989): P_t = J_t P_{t-1} + M_t, g = Σ_t q_t D_t P_t.

    P[k, p, q] is the sensitivity of neuron k's state to the synapse q -> p, where q runs over [z_{t-1}; x_t; 1].
    `leak_only` replaces the Jacobian J by the leak (1-α) of the neuron itself (Murray 2019).
    """
    N, I = m.U.shape
    W, a = m.W - np.diag(np.diag(m.W)), m.alpha
    total = np.zeros((N, N + I + 1))
    for sample in range(m.x.shape[1]):
        run, P, Pbar = forward(m, sample), np.zeros((N, N, N + I + 1)), np.zeros((N, N, N + I + 1))
        for t in range(1, len(m.x) + 1):
            pre = np.concatenate([run.z[t - 1], m.x[t - 1, sample], [1.0]])
            if m.leak == "potential":
                J, immediate, out = (1 - a) * np.eye(N) + a * W * run.slope[t - 1], a * np.ones(N), run.slope[t]
            elif m.leak == "rate":
                J, immediate, out = (1 - a) * np.eye(N) + a * run.slope[t][:, None] * W, a * run.slope[t], 1.0
            else:
                J, immediate = run.slope[t][:, None] * ((1 - a) * np.eye(N) + a * W), a * run.slope[t]
                out = 1.0
            if leak_only:
                J = (1 - a) * np.eye(N)
            P = np.einsum("kl,lpq->kpq", J, P)
            for p in range(N):
                P[p, p] += immediate[p] * pre
            Pbar = m.kappa * Pbar + (1 - m.kappa) * (out * P.T).T
            total += np.einsum("k,kpq->pq", m.R.T @ run.error[t], Pbar)
    return _unpack(total / m.x.shape[1], N, I)


def e_prop(m: Model, signal: np.ndarray) -> dict[str, np.ndarray]:
    """e-prop (Bellec 2020, eq. 1, 3 and 13): Σ_t L_t ē_t with any learning signal L [T,B,N].

    potential  ε_t = (1-α) ε_{t-1} + α pre,   e_t = φ'(v_t) ε_t      one ε per presynaptic neuron
    others     e_t = (∂z_t/∂z_{t-1})_own e_{t-1} + (∂z_t/∂u_t) pre   one e per synapse
    ē_t = κ ē_{t-1} + (1-κ) e_t for a leaky readout (Bellec 2020, methods), with the instantaneous error.
    """
    N, I = m.U.shape
    a, total = m.alpha, np.zeros((N, N + I + 1))
    for sample in range(m.x.shape[1]):
        run, eps, e, ebar = (
            forward(m, sample),
            np.zeros(N + I + 1),
            np.zeros((N, N + I + 1)),
            np.zeros((N, N + I + 1)),
        )
        for t in range(1, len(m.x) + 1):
            pre = np.concatenate([run.z[t - 1], m.x[t - 1, sample], [1.0]])
            eps = (1 - a) * eps + a * pre
            for p in range(N):
                for q in range(N + I + 1):
                    if m.leak == "potential":
                        e[p, q] = run.slope[t, p] * eps[q]
                    elif m.leak == "rate":
                        e[p, q] = (1 - a) * e[p, q] + a * run.slope[t, p] * pre[q]
                    else:
                        e[p, q] = run.slope[t, p] * ((1 - a) * e[p, q] + a * pre[q])
                    ebar[p, q] = m.kappa * ebar[p, q] + (1 - m.kappa) * e[p, q]
                    total[p, q] += signal[t - 1, sample, p] * ebar[p, q]
    return _unpack(total, N, I)


def rflo(m: Model, signal: np.ndarray) -> dict[str, np.ndarray]:
    """RFLO (Murray 2019, eq. 5 and 6): p_t = (1-α) p_{t-1} + α φ'(argument_t) pre, g = Σ_t signal_t p_t."""
    N, I = m.U.shape
    a, total = m.alpha, np.zeros((N, N + I + 1))
    for sample in range(m.x.shape[1]):
        run, trace, filtered = forward(m, sample), np.zeros((N, N + I + 1)), np.zeros((N, N + I + 1))
        for t in range(1, len(m.x) + 1):
            pre = np.concatenate([run.z[t - 1], m.x[t - 1, sample], [1.0]])
            for p in range(N):
                for q in range(N + I + 1):
                    trace[p, q] = (1 - a) * trace[p, q] + a * run.slope[t, p] * pre[q]
                    filtered[p, q] = m.kappa * filtered[p, q] + (1 - m.kappa) * trace[p, q]
                    total[p, q] += signal[t - 1, sample, p] * filtered[p, q]
    return _unpack(total, N, I)


def learning_signal(m: Model, B: np.ndarray) -> np.ndarray:
    """L [T,B,N]: the instantaneous output error of L through feedback B [O,N]."""
    samples = m.x.shape[1]
    return np.stack([forward(m, b).error[1:] @ B for b in range(samples)], axis=1) / samples


def _unpack(total: np.ndarray, N: int, I: int) -> dict[str, np.ndarray]:
    W = total[:, :N] - np.diag(np.diag(total[:, :N]))  # no autapses
    return {"W_rec": W, "W_in": total[:, N : N + I], "b_rec": total[:, -1]}
