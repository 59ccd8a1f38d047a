"""Slow references of the online rules: published equations, synapse by synapse, in numpy. Nothing from bpgen.

Model, letters and shapes are those of `reference.py`; a sparse network has zeros in W where it has no synapse. The
state is v (potential) or z (rate, inside); w_pq runs over the sources q = (z_{t-1}; x_t; 1).
"""

from __future__ import annotations

import numpy as np

from tests.rules.reference import PHI, Model, Run, _unpack, forward


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


def sk_rtrl(m: Model, rank: int) -> tuple[dict[str, np.ndarray], float, float]:
    """SK-RTRL (Yi and Wang 2026), dense: a block diagonal S and a rest that is truncated by its SVD, their sum in full.

    The rows are the states, and with κ > 0 the filtered activities below them. Returns the gradients, and what bounds
    their error: by the published number, and by the matrix that covers E Eᵀ.
    """
    N, I = m.U.shape
    X, n = N + I + 1, 2 if m.kappa else 1
    total, published, covered = np.zeros((N, X)), 0.0, 0.0
    for sample in range(m.x.shape[1]):
        run = forward(m, sample)
        S, rest, cover, bound = np.zeros((n * N, N * X)), np.zeros((n * N, N * X)), np.zeros((n * N, n * N)), 0.0
        for t in range(1, len(m.x) + 1):
            J, immediate, out = pieces(m, run, t)
            new = np.zeros((N, N * X))
            for p in range(N):
                new[p, p * X : (p + 1) * X] = immediate[p] * sources(m, run, t, sample)
            if m.kappa:
                read = (1 - m.kappa) * np.diag(out)
                J = np.block([[J, np.zeros((N, N))], [read @ J, m.kappa * np.eye(N)]])
                new = np.concatenate([new, read @ new])
            own = np.zeros((n * N, n * N))
            for i in range(n * N):
                for j in range(n * N):
                    own[i, j] = J[i, j] * (i % N == j % N)
            whole = J @ rest + (J - own) @ S
            U, sizes, V = np.linalg.svd(whole, full_matrices=False)
            rest = (U[:, :rank] * sizes[:rank]) @ V[:rank]
            S, lost = own @ S + new, whole - rest
            norm = np.linalg.norm
            passed = min(norm(J), np.sqrt(norm(J, 1) * norm(J, np.inf)))
            bound = passed * bound + norm(lost)
            came, x, y = J @ cover @ J.T, np.sqrt(np.trace(J @ cover @ J.T)), norm(lost)
            cover = came + lost @ lost.T + (y / x * came + x / y * lost @ lost.T if x * y > 0 else 0)
            q = m.R.T @ run.error[t]
            q = np.concatenate([0 * q, q]) if m.kappa else q * out
            total += (q @ (S + rest)).reshape(N, X)
            published += norm(q) * bound
            covered += np.sqrt(max(q @ cover @ q, 0.0))
    B = m.x.shape[1]
    return _unpack(total / B, N, I), published / B, covered / B


def ostl(m: Model, layer: np.ndarray) -> dict[str, np.ndarray]:
    """OSTL with recurrence (Bohnstingl et al. 2023): RTRL within each layer; `layer` [N] is that of each neuron."""
    N, I = m.U.shape
    total = np.zeros((N, N + I + 1))
    for sample in range(m.x.shape[1]):
        run = forward(m, sample)
        for one in set(layer):
            mine = [k for k in range(N) if layer[k] == one]
            P, Pbar = ({(k, p): np.zeros(N + I + 1) for k in mine for p in mine} for _ in range(2))
            for t in range(1, len(m.x) + 1):
                J, immediate, out = pieces(m, run, t)
                pre, q = sources(m, run, t, sample), m.R.T @ run.error[t]
                new = {(k, p): sum(J[k, l] * P[l, p] for l in mine) for k in mine for p in mine}
                for k in mine:
                    new[k, k] = new[k, k] + immediate[k] * pre
                P = new
                for k, p in P:
                    Pbar[k, p] = m.kappa * Pbar[k, p] + (1 - m.kappa) * out[k] * P[k, p]
                    total[p] += q[k] * Pbar[k, p]
    return _unpack(total / m.x.shape[1], N, I)


def traces(m: Model, step) -> dict[str, np.ndarray]:
    """Σ_t q_t D_t ε_t of a trace ε [N,N+I+1] that `step(memory, D, D_f, sources, t)` gives; `memory` is its own.

    D, D_f [N]: ∂(state of p at t)/∂(its state before) at fixed currents, and by its current (Wang et al. 2026).
    """
    N, I = m.U.shape
    total = np.zeros((N, N + I + 1))
    for sample in range(m.x.shape[1]):
        run, memory = forward(m, sample), {}
        for t in range(1, len(m.x) + 1):
            J, D_f, out = pieces(m, run, t)  # no neuron acts on itself by W: the diagonal of J is D
            trace = step(memory, np.diag(J), D_f, sources(m, run, t, sample), t)
            total += ((m.R.T @ run.error[t]) * out)[:, None] * trace
    return _unpack(total / m.x.shape[1], N, I)


def d_rtrl(m: Model) -> dict[str, np.ndarray]:
    """D-RTRL (Wang et al. 2026): ε' = D ε + D_f ⊗ x."""

    def step(memory, D, D_f, x, t):
        memory["e"] = D[:, None] * memory.get("e", 0) + np.outer(D_f, x)
        return memory["e"]

    return traces(m, step)


def pp_prop(m: Model, alpha: float) -> dict[str, np.ndarray]:
    """ES-D-RTRL (Wang et al. 2026): ε ≈ ε_f ⊗ ε_x, with the published code's correction of ε_f and its bias."""

    def step(memory, D, D_f, x, t):
        memory["x"] = alpha * memory.get("x", 0) + x
        memory["f"] = alpha * D * memory.get("f", 0) + (1 - alpha) * D_f
        right = memory["x"].copy()
        right[-1] = 1.0
        return np.outer(memory["f"] / (1 - alpha**t), right)

    return traces(m, step)


def kernl(m: Model, A: np.ndarray, gamma: np.ndarray, kicks: np.ndarray, sigma: float):
    """KeRNL (Roth et al. 2019): M_kpq ~ A_kp B_pq, and what A and γ learn from a run that is kicked at every step.

    kicks [T,B,N]. Returns the gradients, and those of A and γ by the normalised squared error of the prediction.
    """
    N, I = m.U.shape
    W, phi = m.W - np.diag(np.diag(m.W)), PHI[m.phi][0]
    total, by_A, by_gamma = np.zeros((N, N + I + 1)), np.zeros((N, N)), np.zeros(N)
    for sample in range(m.x.shape[1]):
        run, B = forward(m, sample), np.zeros((N, N + I + 1))
        s, kicked = m.s0[sample].copy(), m.s0[sample].copy()
        omega, slope = np.zeros(N), np.zeros(N)

        def advance(s, t, sample=sample):
            z = phi(s) if m.leak == "potential" else s
            u = W @ z + m.U @ m.x[t - 1, sample] + m.b
            return (1 - m.alpha) * s + m.alpha * (u if m.leak == "potential" else phi(u))

        for t in range(1, len(m.x) + 1):
            _, immediate, out = pieces(m, run, t)
            pre, q = sources(m, run, t, sample), m.R.T @ run.error[t]
            for p in range(N):
                for j in range(N + I + 1):
                    B[p, j] = (1 - gamma[p]) * B[p, j] + immediate[p] * pre[j]
                    for k in range(N):
                        total[p, j] += q[k] * out[k] * A[k, p] * B[p, j]
            s, kicked = advance(s, t), advance(kicked, t) + sigma * kicks[t - 1, sample]
            slope = (1 - gamma) * slope - omega
            omega = (1 - gamma) * omega + kicks[t - 1, sample]
            size = 1 + omega @ omega
            for k in range(N):
                wrong = (A[k] @ omega - (kicked[k] - s[k]) / sigma) / size
                for p in range(N):
                    by_A[k, p] += wrong * omega[p]
                    by_gamma[p] += wrong * A[k, p] * slope[p]
    n = m.x.shape[1]
    return _unpack(total / n, N, I), by_A / n, by_gamma / n


def dni(m: Model, Z: np.ndarray):
    """DNI in time (Jaderberg et al. 2017): credit = present error + guess Z (s; e; 1), 0 at the end; bootstrapped.

    Returns the gradients, and that of Z by the normalised squared error of the guess.
    """
    N, I = m.U.shape
    total, by_Z = np.zeros((N, N + I + 1)), np.zeros_like(Z)
    for sample in range(m.x.shape[1]):
        run, s, z_before = forward(m, sample), m.s0[sample], None
        for t in range(1, len(m.x) + 1):
            J, immediate, out = pieces(m, run, t)
            if m.leak == "potential":
                pre = sources(m, run, t, sample)
                W = m.W - np.diag(np.diag(m.W))
                s = (1 - m.alpha) * s + m.alpha * (W @ pre[:N] + m.U @ pre[N:-1] + m.b)
            else:
                s = run.z[t]
            z = np.concatenate([s, run.error[t], [1.0]])
            credit = out * (m.R.T @ run.error[t]) + (Z @ z if t < len(m.x) else 0)
            pre = sources(m, run, t, sample)
            for p in range(N):
                total[p] += credit[p] * immediate[p] * pre
            if z_before is not None:
                by_Z += np.outer(Z @ z_before - J.T @ credit, z_before) / (1 + z_before @ z_before)
            z_before = z
    n = m.x.shape[1]
    return _unpack(total / n, N, I), by_Z / n
