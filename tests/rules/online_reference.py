"""Slow references of the online rules: published equations, synapse by synapse, in numpy. Nothing from bpgen.

Model, letters and shapes are those of `reference.py`; a sparse network has zeros in W where it has no synapse. The
state is v (potential) or z (rate, inside); w_pq runs over the sources q = (z_{t-1}; x_t; 1).
"""

from __future__ import annotations

import numpy as np

from tests.rules.reference import Model, Run, _unpack, forward


def pieces(m: Model, run: Run, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """J_t [N,N], ∂(state of p)/∂(current of p) [N], ∂z/∂state [N] at step t."""
    N, a = len(m.W), m.alpha
    W = m.W - np.diag(np.diag(m.W))
    J = np.zeros((N, N))
    for k in range(N):
        for l in range(N):
            own = (1 - a) * (k == l)
            if m.leak == "potential":
                J[k, l] = own + a * W[k, l] * run.slope[t - 1, l]
            elif m.leak == "rate":
                J[k, l] = own + a * run.slope[t, k] * W[k, l]
            else:
                J[k, l] = run.slope[t, k] * (own + a * W[k, l])
    if m.leak == "potential":
        return J, a * np.ones(N), run.slope[t]
    return J, a * run.slope[t], np.ones(N)


def sources(m: Model, run: Run, t: int, sample: int) -> np.ndarray:
    return np.concatenate([run.z[t - 1], m.x[t - 1, sample], [1.0]])


def snap(m: Model, n: int) -> dict[str, np.ndarray]:
    """SnAp-n (Menick et al. 2021, eq. 3): RTRL whose influence matrix is masked to what n steps can reach.

    The pattern is taken by letting n steps of influence spread: after the first, a weight onto p acts on p alone.
    """
    N, I = m.U.shape
    W = m.W - np.diag(np.diag(m.W))
    keep = np.eye(N, dtype=bool)  # keep[k, p]
    for _ in range(n - 1):
        spread = keep.copy()
        for k in range(N):
            for p in range(N):
                for l in range(N):
                    spread[k, p] |= bool(W[k, l] != 0 and keep[l, p])
        keep = spread
    total = np.zeros((N, N + I + 1))
    for sample in range(m.x.shape[1]):
        run, P, Pbar = forward(m, sample), np.zeros((N, N, N + I + 1)), np.zeros((N, N, N + I + 1))
        for t in range(1, len(m.x) + 1):
            J, immediate, out = pieces(m, run, t)
            pre, new = sources(m, run, t, sample), np.zeros_like(P)
            for k in range(N):
                for p in range(N):
                    if keep[k, p]:
                        for l in range(N):
                            new[k, p] += J[k, l] * P[l, p]
                        if k == p:
                            new[k, p] += immediate[p] * pre
            P = new
            q = m.R.T @ run.error[t]
            for k in range(N):
                Pbar[k] = m.kappa * Pbar[k] + (1 - m.kappa) * out[k] * P[k]
                total += q[k] * Pbar[k]
    return _unpack(total / m.x.shape[1], N, I)
