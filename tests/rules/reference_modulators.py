"""Slow references of the rules that send modulators across synapses, with loops over synapses. Nothing from bpgen.

Letters as in `reference`. `types` [N] are cell types, `exists` [N,N] the synapses there are, post first.
"""

from __future__ import annotations

import numpy as np

from tests.rules.reference import Model, _unpack, forward, learning_signal


def block_mean(W: np.ndarray, types: np.ndarray, exists: np.ndarray, over_all: bool = False) -> np.ndarray:
    """Each weight of W [N,N] by the mean of its types: of existing synapses, put there; or of all, put everywhere."""
    N, mean = len(W), np.zeros_like(W)
    for j in range(N):
        for p in range(N):
            total, count = 0.0, 0
            for k in range(N):
                for l in range(N):
                    if types[k] == types[j] and types[l] == types[p] and (over_all or exists[k, l]):
                        total += W[k, l] if exists[k, l] else 0.0
                        count += 1
            if count and (over_all or exists[j, p]):
                mean[j, p] = total / count
    return mean


def through_readout(m: Model, signal: np.ndarray) -> np.ndarray:
    """q [T,B,N]: what an activity is told by all later errors through the readout filter."""
    T, q = len(signal), np.zeros_like(signal)
    for t in range(T):
        for k in range(t, T):
            q[t] += (1 - m.kappa) * m.kappa ** (k - t) * signal[k]
    return q


def traces(m: Model, sample: int) -> np.ndarray:
    """e [T+1,N,N+I+1]: eligibility traces (see `reference.e_prop`), entry 0 unused."""
    run, a = forward(m, sample), m.alpha
    N, I = m.U.shape
    e, eps = np.zeros((len(m.x) + 1, N, N + I + 1)), np.zeros(N + I + 1)
    for t in range(1, len(m.x) + 1):
        pre = np.concatenate([run.z[t - 1], m.x[t - 1, sample], [1.0]])
        eps = (1 - a) * eps + a * pre
        for p in range(N):
            for q in range(N + I + 1):
                if m.leak == "potential":
                    e[t, p, q] = run.slope[t, p] * eps[q]
                elif m.leak == "rate":
                    e[t, p, q] = (1 - a) * e[t - 1, p, q] + a * run.slope[t, p] * pre[q]
                else:
                    e[t, p, q] = run.slope[t, p] * ((1 - a) * e[t - 1, p, q] + a * pre[q])
    return e


def later_effect(m: Model, slope: np.ndarray, j: int, t: int, k: int) -> float:
    """Effect of neuron j's current at step t on its own activity at step k >= t, along its own leak."""
    a = m.alpha
    if m.leak == "potential":
        return a * (1 - a) ** (k - t) * slope[k, j]
    if m.leak == "rate":
        return a * slope[t, j] * (1 - a) ** (k - t)
    effect = a * slope[t, j]
    for i in range(t + 1, k + 1):
        effect *= (1 - a) * slope[i, j]
    return effect


def mdgl(m: Model, B: np.ndarray, Wbar: np.ndarray, tail: str = "one_step") -> dict[str, np.ndarray]:
    """MDGL (Liu 2021): Σ_t [q_p,t + Σ_j Wbar_jp a_j,t+1] e_pq,t, or with all that the current of j does later.

    tail="online" replaces Σ_t a_j,t+1 e_pq,t by Σ_t L_j,t+1 F(slope_j)_t+1 F(e_pq)_t, with L the instantaneous error
    and F the readout filter, as the released code does for its causal form.
    """
    N, I = m.U.shape
    L = learning_signal(m, B)
    told, T, total = through_readout(m, L), len(L), np.zeros((N, N + I + 1))
    for sample in range(m.x.shape[1]):
        run, e, q = forward(m, sample), traces(m, sample), told[:, sample]
        slope, fe, fs = run.slope, np.zeros_like(e), np.zeros((T + 1, N))
        for t in range(1, T + 1):
            fe[t] = m.kappa * fe[t - 1] + (1 - m.kappa) * e[t]
            for j in range(N):
                fs[t, j] = m.kappa * fs[t - 1, j] + (1 - m.kappa) * later_effect(m, slope, j, t, t)
        for p in range(N):
            for syn in range(N + I + 1):
                for t in range(1, T + 1):
                    total[p, syn] += q[t - 1, p] * e[t, p, syn]
                    if t == T:
                        continue
                    for j in range(N):
                        if tail == "online":
                            total[p, syn] += Wbar[j, p] * L[t, sample, j] * fs[t + 1, j] * fe[t, p, syn]
                            continue
                        last = t + 1 if tail == "one_step" else T
                        for k in range(t + 1, last + 1):
                            a = later_effect(m, slope, j, t + 1, k) * q[k - 1, j]
                            total[p, syn] += Wbar[j, p] * a * e[t, p, syn]
    return _unpack(total, N, I)


def modprop(
    m: Model, B: np.ndarray, Wbar: np.ndarray, mu: float, taps: int, local_psi: str = "mu"
) -> dict[str, np.ndarray]:
    """ModProp (Liu 2022), forward: Σ_t Σ_s μ^s Σ_j q_jt φ'_jt (Wbar^s)_jp (F^s ε_q)_t, where s = 0 is e-prop.

    potential  F: f_t = (1-α) f_{t-1} + α x_{t-1};  with exact local ψ, μ^{s-1} and F^s of the trace e_pq
    rate       the same currents through neurons whose slope is μ, but for the last, j, which has its own φ' at the
               arrival of the current (and for the first, p, with exact local ψ)
    """
    N, I = m.U.shape
    q_all, T, a = through_readout(m, learning_signal(m, B)), len(m.x), m.alpha
    total = np.zeros((N, N + I + 1))

    def leaky(inputs: np.ndarray) -> np.ndarray:
        """f_t = (1-α) f_{t-1} + α x_{t-1} of x [T+1,...], entry 0 unused."""
        f = np.zeros_like(inputs)
        for t in range(2, T + 1):
            f[t] = (1 - a) * f[t - 1] + a * inputs[t - 1]
        return f

    for sample in range(m.x.shape[1]):
        run, e, q = forward(m, sample), traces(m, sample), q_all[:, sample]
        pre = np.zeros((T + 1, N + I + 1))
        for t in range(1, T + 1):
            pre[t] = np.concatenate([run.z[t - 1], m.x[t - 1, sample], [1.0]])
        bare = np.zeros_like(pre)  # a pre filtered by the first neuron's own leak
        for t in range(1, T + 1):
            bare[t] = (1 - a) * bare[t - 1] + a * pre[t]
        for p in range(N):
            for syn in range(N + I + 1):
                for t in range(1, T + 1):
                    total[p, syn] += q[t - 1, p] * e[t, p, syn]
                x = (
                    e[:, p, syn] if local_psi == "exact" else mu * bare[:, syn]
                )  # activity the first neuron seems to have
                power = np.eye(N)
                for _ in range(taps):
                    power = power @ Wbar
                    for j in range(N):
                        f = 0.0
                        for t in range(2, T + 1):
                            if m.leak == "potential":
                                f = (1 - a) * f + a * x[t - 1]
                                total[p, syn] += q[t - 1, j] * run.slope[t, j] * power[j, p] * f
                            else:
                                f = (1 - a) * f + a * run.slope[t, j] * x[t - 1]
                                total[p, syn] += q[t - 1, j] * power[j, p] * f
                    x = mu * leaky(x)
    return _unpack(total, N, I)
