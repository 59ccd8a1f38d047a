"""The two recursions of the R-operator through time, equations (2) and (4) of `bpgen.curvature.roperator`.

Each comes twice: for any neuron, and in place for d = K = 1 where A and C are numbers (the potential leaks). There C
commutes with everything: it goes into the weights and the sources, the buffer of the currents becomes that of the
states, the buffer of the sources that of the credit, and a step is one matrix product and one or two passes.
Everything has V directions: [T+1,V,B,·], index t = 0..T.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bpgen.network import Trajectory
from bpgen.neurons.gain import Dense, Gain, Scale


class Tangent(NamedTuple):
    """Derivatives along V directions: states [T+1,V,B,d,N], currents [T+1,V,B,K,N], activities h [T+1,V,B,N]."""

    states: Tensor
    currents: Tensor
    h: Tensor


class Adjoint(NamedTuple):
    """Credit of currents c [T+1,V,B,K·N] (entry 0 is unused), states λ, and what arrived at h_t [T+1,V,B,N]."""

    currents: Tensor
    states: Tensor
    arriving: Tensor


def forward(run: Trajectory, W: Tensor, drive: Tensor, s_0: Tensor | None) -> Tangent:
    """h'_t of the drive [T+1,V,B,K·N], the currents' derivatives without W h'_{t-1}, and of s'_0 [V,1|B,d,N]."""
    A, C, D = run.local.A, run.local.C, run.local.D
    V, B = drive.shape[1:3]
    s = drive.new_zeros(V, B, run.network.neuron.n_states, W.shape[1])
    s = s if s_0 is None else s + s_0
    h = _push(D, s, 0).squeeze(-2)
    states, currents, activities = [s], [drive[0]], [h]
    for t in range(1, run.n_steps + 1):
        I = drive[t] + h @ W.mT
        s = _push(A, s, t) + _push(C, I.unflatten(-1, (-1, W.shape[1])), t)
        h = _push(D, s, t).squeeze(-2)
        states.append(s)
        currents.append(I)
        activities.append(h)
    dI = torch.stack(currents).unflatten(-1, (-1, W.shape[1]))
    return Tangent(torch.stack(states), dI, torch.stack(activities))


def backward(run: Trajectory, W: Tensor, signal: Tensor, curved_s: Tensor | None, curved_I: Tensor | None) -> Adjoint:
    """c'_t of the learning signal [T+1,V,B,N], the terms of (4) in front of W c'_{t+1}.

    curved_s [T+1,V,B,d,N] and curved_I [T,V,B,K,N] are what the second derivatives add to λ' and c'.
    """
    A, C, D = run.local.A, run.local.C, run.local.D
    credits: list[Tensor] = []
    states: list[Tensor] = []
    arrived: list[Tensor] = []
    for t in range(run.n_steps, -1, -1):
        arriving = signal[t] + credits[-1] @ W if credits else signal[t]
        state = D.pull(arriving.unsqueeze(-2), t)
        if states:
            state = A.add_pull(state, states[-1], t + 1)
        if curved_s is not None:
            state = state + curved_s[t]
        arrived.append(arriving)
        states.append(state)
        if t > 0:
            c = C.pull(state, t)
            credits.append((c if curved_I is None else c + curved_I[t - 1]).flatten(-2))
    credits.append(torch.zeros_like(credits[-1]))
    return Adjoint(*(torch.stack(rows[::-1]) for rows in (credits, states, arrived)))


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
    return Tangent(drive.unsqueeze(-2), drive, dh)


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
    multiplied by C, and so are the states λ'_0 [1,V,B,1,N] returned.
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
            row.add_(curved_s[t].squeeze(-2))
        if t < run.n_steps and A:
            row.add_(rows[t + 1], alpha=A)
    return Adjoint(signal, signal[:1].unsqueeze(-2), signal)


def _add_product(rows: Tensor, by: Tensor, matrices: Tensor) -> None:
    """rows [V,B,m] += by [B,n] times each of V matrices [V,n,m], at a time when the rows are still in the cache."""
    if len(rows) == 1:
        rows[0].addmm_(by, matrices[0])
    else:
        rows.baddbmm_(by.expand(len(rows), *by.shape), matrices)


def _push(gain: Gain, u: Tensor, t: int) -> Tensor:
    """J u per neuron, [V,B,columns,N] -> [V,B,rows,N]: what `gain.pull` is the transpose of."""
    if not isinstance(gain, Dense):
        return gain.pull(u, t)  # diagonal
    columns = zip(gain.jacobian[t].unbind(-2), u.split(1, dim=-2), strict=True)  # [B,rows,N], [V,B,1,N]
    J, part = next(columns)
    pushed = J * part
    for J, part in columns:
        pushed = torch.addcmul(pushed, J, part)
    return pushed
