"""E-prop+ (Korcsak-Gorzo 2025) for spiking neurons, synapse by synapse, twice: step by step, and from spike to spike.

The network is that of `reference_spiking`. A spike of a presynaptic side is any value other than zero.
    dense    every step of every synapse; e counts, and the gradient is added to, while the last spike is less than
             `cutoff` steps old
    events   as `compute_gradient` of NEST's eprop_iaf: only when a spike arrives, the interval since the one before is
             gone through, at most `cutoff` steps of it; the rest of it multiplies z̄ by (1-α)^p, ē by κ^p, ē' by κ_r^p
For LIF. Of ALIF `dense` takes ε^a along at every step, which from spike to spike cannot be had.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tests.rules.reference import _unpack
from tests.rules.reference_spiking import Spiking
from tests.rules.reference_spiking_rules import steps_of


@dataclass
class Options:
    """Δ (infinite: none), c, f* and κ_r of the rule."""

    cutoff: float = math.inf
    cost: float = 0.0
    target: float = 0.1
    keep: float = 0.7


@dataclass
class Activity:
    """What a sample's synapses can know: pre [T,Q], ψ_{t-1} and ψ_t, the learning and the rate signal [T,N]."""

    pre: np.ndarray
    before: np.ndarray
    psi: np.ndarray
    told: np.ndarray
    off: np.ndarray


def observed(m: Spiking, B: np.ndarray, o: Options, sample: int, length: int) -> Activity:
    """The run of one sample, as long as it is."""
    rate, rows = np.zeros(len(m.W)), []
    for pre, before, psi, z, error in steps_of(m, sample):
        rate = o.keep * rate + (1 - o.keep) * z
        rows.append((pre, before, psi, B.T @ error, o.cost * (rate - o.target)))
    return Activity(*(np.array(column[:length]) for column in zip(*rows, strict=True)))


def dense(m: Spiking, B: np.ndarray, o: Options, lengths: list[int] | None = None) -> dict[str, np.ndarray]:
    """The gradient with feedback B [O,N]; sequences end after `lengths` steps, where these are given."""
    N, I = m.U.shape
    T, samples = m.x.shape[:2]
    total = np.zeros((N, N + I + 1))
    for sample in range(samples):
        seen = observed(m, B, o, sample, lengths[sample] if lengths else T)
        for p in range(N):
            for q in range(N + I + 1):
                eps_v = eps_a = trace = rate_trace = 0.0
                age = math.inf
                for t in range(len(seen.pre)):
                    eps_a = seen.before[t, p] * eps_v + (m.rho - seen.before[t, p] * m.beta) * eps_a
                    eps_v = (1 - m.alpha) * eps_v + m.gain * seen.pre[t, q]
                    age = 0 if seen.pre[t, q] else age + 1
                    listens = age < o.cutoff
                    e = seen.psi[t, p] * (eps_v - m.beta * eps_a) if listens else 0.0
                    trace = m.kappa * trace + (1 - m.kappa) * e
                    rate_trace = o.keep * rate_trace + (1 - o.keep) * e
                    if listens:
                        total[p, q] += seen.told[t, p] * trace + seen.off[t, p] * rate_trace
    return _unpack(total / samples, N, I)


def events(m: Spiking, B: np.ndarray, o: Options) -> dict[str, np.ndarray]:
    """The same for LIF, where each synapse is looked at when a spike arrives, and at the end."""
    assert m.beta == 0
    N, I = m.U.shape
    T, samples = m.x.shape[:2]
    total = np.zeros((N, N + I + 1))
    for sample in range(samples):
        seen = observed(m, B, o, sample, T)
        for q in range(N + I + 1):
            arrivals = [t for t in range(T) if seen.pre[t, q]]
            for p in range(N):
                z_bar = trace = rate_trace = 0.0
                for spike, following in pairwise([*arrivals, T]):
                    until = int(min(spike + o.cutoff, following))
                    for t in range(spike, until):
                        z_bar = (1 - m.alpha) * z_bar + m.gain * (seen.pre[t, q] if t == spike else 0.0)
                        e = seen.psi[t, p] * z_bar
                        trace = m.kappa * trace + (1 - m.kappa) * e
                        rate_trace = o.keep * rate_trace + (1 - o.keep) * e
                        total[p, q] += seen.told[t, p] * trace + seen.off[t, p] * rate_trace
                    rest = following - until
                    z_bar, trace, rate_trace = (
                        value * keep**rest
                        for value, keep in ((z_bar, 1 - m.alpha), (trace, m.kappa), (rate_trace, o.keep))
                    )
    return _unpack(total / samples, N, I)
