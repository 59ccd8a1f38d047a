"""The two recursions of the R-operator through time, equations (2) and (4) of `bpgen.curvature.roperator`.

Each comes twice: for any neuron, and in place for d = K = 1 where A and C are numbers (the potential leaks). There C
commutes with everything: it goes into the weights and the sources, the buffer of the currents becomes that of the
states, the buffer of the sources that of the credit, and a step is one matrix product and one or two passes. For any
neuron, gains are taken apart into their entries, of which those that are zero along the whole run cost nothing.
Everything has V directions: [T+1,V,B,·], index t = 0..T; states and currents come one by one, each [T+1,V,B,N].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bpgen.network import Trajectory
from bpgen.neurons.gain import Dense, Gain, Scale


class Tangent(NamedTuple):
    """Derivatives along V directions of the d states, the K currents and the activities h, each [T+1,V,B,N]."""

    states: Sequence[Tensor]
    currents: Sequence[Tensor]
    h: Tensor


class Adjoint(NamedTuple):
    """Credit of currents c [T+1,V,B,K·N] (entry 0 is unused), the d states λ, and what arrived at h_t [T+1,V,B,N]."""

    currents: Tensor
    states: Sequence[Tensor]
    arriving: Tensor


class Entries:
    """The gains A, C, D of a run, entry by entry: (row, column, its numbers by time, each [B,N], or one number)."""

    def __init__(self, run: Trajectory) -> None:
        neuron, local = run.network.neuron, run.local
        d, K = neuron.n_states, neuron.n_currents
        self.A, self.C, self.D = (_entries(*g, run) for g in ((local.A, d, d), (local.C, d, K), (local.D, 1, d)))


Entry = tuple[int, int, Sequence[Tensor] | float]


def _entries(gain: Gain, rows: int, columns: int, run: Trajectory) -> list[Entry]:
    if isinstance(gain, Scale):
        return [] if gain.is_zero else [(i, i, gain.factor) for i in range(rows)]
    if not isinstance(gain, Dense):  # one number per neuron
        h = run.h.unsqueeze(-2)
        return [(0, 0, gain.pull(torch.ones_like(h), slice(0, len(h))).squeeze(-2).unbind(0))]
    parts = {(i, j): gain.jacobian[..., i, j, :] for i in range(rows) for j in range(columns)}
    return [(i, j, part.unbind(0)) for (i, j), part in parts.items() if part.any()]


def _add(into: Tensor, number: Sequence[Tensor] | float, t: int, of: Tensor) -> None:
    """into [V,B,N] += an entry at t times `of` [V,B,N]."""
    if isinstance(number, float | int):
        into.add_(of, alpha=number)
    else:
        into.addcmul_(number[t], of)


def forward(run: Trajectory, gains: Entries, W: Tensor, drive: Tensor, s_0: Tensor | None) -> Tangent:
    """h'_t of the drive [T+1,V,B,K·N], the currents' derivatives without W h'_{t-1}, and of s'_0 [V,1|B,d,N].

    The drive becomes the currents' derivatives.
    """
    (T1, V, B, _), N, d = drive.shape, W.shape[1], run.network.neuron.n_states
    h, s = drive.new_zeros(T1, V, B, N), drive.new_zeros(d, T1, V, B, N)
    if s_0 is not None:
        s[:, 0] += s_0.movedim(-2, 0)
    currents = drive.unflatten(-1, (-1, N)).unbind(-2)
    flat, ss, hs = drive.flatten(1, 2).unbind(0), [each.unbind(0) for each in s.unbind(0)], h.unbind(0)
    Is, W = [each.unbind(0) for each in currents], W.mT
    for t in range(T1):
        if t > 0:
            flat[t].addmm_(hs[t - 1].flatten(0, 1), W)
            for i, j, number in gains.A:
                _add(ss[i][t], number, t, ss[j][t - 1])
            for i, k, number in gains.C:
                _add(ss[i][t], number, t, Is[k][t])
        for _, j, number in gains.D:
            _add(hs[t], number, t, ss[j][t])
    return Tangent(s.unbind(0), currents, h)


def backward(run: Trajectory, gains: Entries, W: Tensor, signal: Tensor, sources: Adjoint | None = None) -> Adjoint:
    """c'_t of the learning signal [T+1,V,B,N], the terms of (4) in front of W c'_{t+1}.

    The signal becomes what arrives at h_t. `sources` holds what the second derivatives add to c' and λ', and becomes
    the result; see `nothing`.
    """
    c, states, _ = nothing(run, signal) if sources is None else sources
    credits, flat, rows = c.unflatten(-1, (-1, W.shape[1])), c.flatten(1, 2).unbind(0), signal.unbind(0)
    cs, ss = [each.unbind(0) for each in credits.unbind(-2)], [each.unbind(0) for each in states]
    for t in range(run.n_steps, -1, -1):
        if t < run.n_steps:
            rows[t].flatten(0, 1).addmm_(flat[t + 1], W)
            for i, j, number in gains.A:
                _add(ss[j][t], number, t + 1, ss[i][t + 1])
        for _, j, number in gains.D:
            _add(ss[j][t], number, t, rows[t])
        if t > 0:
            for i, k, number in gains.C:
                _add(cs[k][t], number, t, ss[i][t])
    return Adjoint(c, states, signal)


def nothing(run: Trajectory, signal: Tensor) -> Adjoint:
    """Credit without any source."""
    neuron = run.network.neuron
    c = signal.new_zeros(*signal.shape[:-1], neuron.n_currents * signal.shape[-1])
    return Adjoint(c, signal.new_zeros(neuron.n_states, *signal.shape).unbind(0), signal)


def scale_of(run: Trajectory) -> float | None:
    """The number C where the recursions can run in place; None where they cannot."""
    A, C = run.local.A, run.local.C
    return C.factor if run.in_place and isinstance(A, Scale) and isinstance(C, Scale) else None


def _number(gain: Gain) -> float:
    assert isinstance(gain, Scale)
    return gain.factor


def forward_in_place(
    run: Trajectory, W: Tensor, dW: Tensor | None, drive: Tensor, s_0: Tensor | None, keep: bool, moved: int
) -> Tangent:
    """The same for a drive without W' h_{t-1}, where dW [V,N,N] is W'; W, dW and drive are already multiplied by C.

    `keep` the states as well, which h' may overwrite else. Nothing changes before step `moved`.
    """
    A, D = _number(run.local.A), run.local.D
    separate = A != 0 or keep
    dh = torch.empty_like(drive) if separate else drive
    ss, dhs, hs, W = drive.unbind(0), dh.unbind(0), run.h.unbind(0), W.mT
    dh[:moved] = 0
    if s_0 is not None:
        ss[0].add_(s_0.squeeze(-2))
    for t in range(moved, run.n_steps + 1):
        if t > 0 and dW is not None:
            _add_product(ss[t], hs[t - 1], dW.mT)
        if t > moved:
            ss[t].flatten(0, 1).addmm_(dhs[t - 1].flatten(0, 1), W)
            if A:
                ss[t].add_(ss[t - 1], alpha=A)
        if separate:
            dhs[t].copy_(ss[t])
        D.pull_into(dhs[t], t)
    return Tangent([drive], [drive], dh)


def backward_in_place(
    run: Trajectory,
    W: Tensor,
    signal: Tensor,
    curved_s: Tensor | None,
    needed: int,
    dW: Tensor | None,
    c: Tensor | None,
) -> Adjoint:
    """The same for a `signal` without W'ᵀ c_{t+1}, down to step `needed` only; entries before it mean nothing.

    dW [V,N,N] is W' and c [T+1,1,B,N] the credit of the base pass, or None; W, dW, signal and curved_s are already
    multiplied by C, and so are the states λ'_0 [1,V,B,N] returned.
    """
    A, D = _number(run.local.A), run.local.D
    rows = signal.unbind(0)
    for t in range(run.n_steps, needed - 1, -1):
        row = rows[t]
        if t < run.n_steps:
            row.flatten(0, 1).addmm_(rows[t + 1].flatten(0, 1), W)
            if dW is not None and c is not None:
                _add_product(row, c[t + 1, 0], dW)
        D.pull_into(row, t)
        if curved_s is not None:
            row.add_(curved_s[t])
        if t < run.n_steps and A:
            row.add_(rows[t + 1], alpha=A)
    return Adjoint(signal, [signal[:1]], signal)


def _add_product(rows: Tensor, by: Tensor, matrices: Tensor) -> None:
    """rows [V,B,m] += by [B,n] times each of V matrices [V,n,m], at a time when the rows are still in the cache."""
    if len(rows) == 1:
        rows[0].addmm_(by, matrices[0])
    else:
        rows.baddbmm_(by.expand(len(rows), *by.shape), matrices)
