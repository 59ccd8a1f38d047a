"""The credit kernel: one recursion backwards in time, of which every offline rule is a special case.

With q_t the learning signal, K the matrix that carries credit between neurons, and A, C, D the derivatives
inside a neuron (architecture of `bpgen.neurons`):
    (1) λ_t = D_tᵀ (q_t + Kᵀ c_{t+1}) + A_{t+1}ᵀ λ_{t+1}       credit of the state
    (2) c_t = C_tᵀ λ_t                                         credit of the input currents
    (3) λ_0 = D_0ᵀ Kᵀ c_1 + A_1ᵀ λ_1                           credit of the initial state
    (4) ∂L/∂W_rec = Σ_t c_t h_{t-1}ᵀ,  ∂L/∂W_in = Σ_t c_t x_tᵀ,  ∂L/∂W_out = Σ_t e_t r_tᵀ
K = W_rec without a limit on the hops is BPTT; without hops it is e-prop (Bellec 2020, eq. 1 with the partial
derivative): filtering the learning signal backwards through the neuron's own A gives exactly the sum over time
of learning signal times eligibility trace, without a trace in memory.

Credit that is zero before some step is stored from there on: a credit [L,B,K,N] stands at the last L steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bpgen.neurons.gain import Gain, Scale
from bpgen.trajectory import Trajectory


class Credit(NamedTuple):
    """Credit of the input currents [L,B,K,N] at the last L steps, and of the initial state [B,d,N] or None."""

    currents: Tensor
    initial: Tensor | None = None


def propagate(
    trajectory: Trajectory,
    signal: Tensor,
    *,
    carrier: Tensor | None = None,
    hops: int | None = None,
    gain: tuple[Gain, Gain] | None = None,
    blocks: int | None = None,
    reach: int | None = None,
) -> Credit:
    """Equations (1) to (3).

    Args:
        trajectory: the run to assign credit in.
        signal: q [L,B,N] at the last L steps, zero before.
        carrier: K [K·N,N]; None lets no credit cross between neurons.
        hops: how many times credit may cross K; None is without limit.
        gain: (C', D') that credit meets after a hop in place of C and D; None keeps the true ones.
        blocks: cut all paths at multiples of this many steps, counted from t = 0.
        reach: how many steps back a signal credits currents, its own step included; None is all.

    Returns:
        The credit; its initial part is None where no path leads to the start.

    Raises:
        ValueError: more than one kind of limit (hops or gain; blocks; reach).
    """
    levels = carrier is not None and hops != 0 and (hops is not None or gain is not None)
    if levels + (blocks is not None) + (reach is not None) > 1:
        raise ValueError("propagate limits credit by hops or gain, by blocks, or by reach: one of them at a time.")
    if hops == 0:
        carrier = None
    if reach is not None and signal.shape[0] > 1:
        return _sliding(trajectory, signal, carrier, reach)
    if levels and carrier is not None:
        return _by_hops(trajectory, signal, carrier, hops, gain)
    loop = _loop_in_place if trajectory.in_place else _loop
    credit = loop(trajectory, signal, carrier, _first_step(trajectory, signal, carrier, reach), blocks)
    out_of_reach = reach is not None and reach <= trajectory.n_steps
    return Credit(credit.currents, None) if out_of_reach else credit


def weight_gradients(trajectory: Trajectory, credit: Credit, error: Tensor) -> dict[str, Tensor]:
    """Equation (4): one matrix product per weight; zero where a weight earns no credit.

    Args:
        trajectory: the run the credit belongs to.
        credit: credit of the currents and of the initial state.
        error: e [L,B,O], the unfiltered output error at the last L steps.

    Returns:
        A gradient for every parameter of the network, by name.
    """
    params, network, T = trajectory.params, trajectory.network, trajectory.n_steps
    c = credit.currents.flatten(-2)  # [L,B,K·N]
    L = c.shape[0]
    grads = {
        "W_rec": _outer(c, trajectory.h[T - L : T]),
        "W_in": _outer(c, trajectory.x[T - L :]),
    }
    for name, mask in network.masks().items():
        grads[name] = grads[name] * mask
    r = trajectory.h[1:] if network.kappa == 0 else trajectory.r
    grads["W_out"] = _outer(error, r[T - error.shape[0] :])
    if "b_rec" in params:
        grads["b_rec"] = c.sum((0, 1))
    if "b_out" in params:
        grads["b_out"] = error.sum((0, 1))
    if "initial_state" in params:
        none = torch.zeros_like(params["initial_state"])
        grads["initial_state"] = none if credit.initial is None else credit.initial.sum(0)
    return {name: grads[name] for name in params}


def _outer(post: Tensor, pre: Tensor) -> Tensor:
    """Σ_{t,b} post preᵀ, as one matrix product over all steps and samples."""
    return post.flatten(0, 1).mT @ pre.flatten(0, 1)


def _first_step(trajectory: Trajectory, signal: Tensor, carrier: Tensor | None, reach: int | None) -> int:
    """The first step t >= 1 that can earn credit at all."""
    T = trajectory.n_steps
    if carrier is None and trajectory.local.A.is_zero:
        return T - signal.shape[0] + 1
    return 1 if reach is None else max(1, T - reach + 1)


def _loop(trajectory: Trajectory, signal: Tensor, carrier: Tensor | None, first: int, blocks: int | None) -> Credit:
    """Any neuron, as a pure function: vmap, jvp and autograd may trace it."""
    A, C, D = trajectory.local.A, trajectory.local.C, trajectory.local.D
    T, shift = trajectory.n_steps, trajectory.n_steps - signal.shape[0] + 1
    credits: list[Tensor] = []
    later: Tensor | None = None  # λ_{t+1}, None where no credit arrives from there
    for t in range(T, first - 1, -1):
        if blocks is not None and t % blocks == 0:
            later = None
        arriving = signal[t - shift].unsqueeze(-2) if t >= shift else None
        if later is not None and carrier is not None:
            hopped = (credits[-1].flatten(-2) @ carrier).unsqueeze(-2)
            arriving = hopped if arriving is None else arriving + hopped
        state = None if arriving is None else D.pull(arriving, t)
        if later is not None:
            own = A.pull(later, t + 1)
            state = own if state is None else state + own
        if state is None:
            state = torch.zeros_like(trajectory.states[t])
        later = state
        credits.append(C.pull(state, t))
    initial = None
    if first == 1 and later is not None:
        initial = A.pull(later, 1)
        if carrier is not None:
            initial = initial + D.pull((credits[-1].flatten(-2) @ carrier).unsqueeze(-2), 0)
    return Credit(torch.stack(credits[::-1]), initial)


def _loop_in_place(
    trajectory: Trajectory, signal: Tensor, carrier: Tensor | None, first: int, blocks: int | None
) -> Credit:
    """The same for d = K = 1: one matrix product and one or two passes a step, in one buffer that holds λ.

    C is applied to the whole buffer at the end; where it is a number it also goes into K beforehand, so that no
    step has to compute c on its own.
    """
    A, C, D = trajectory.local.A, trajectory.local.C, trajectory.local.D
    shift = trajectory.n_steps - signal.shape[0] + 1
    T, B, N = trajectory.n_steps, signal.shape[1], signal.shape[2]
    state = signal.new_empty(T - first + 1, B, N)
    rows, signals = state.unbind(0), signal.unbind(0)
    spare = torch.empty_like(rows[0])
    if carrier is None:
        state[: shift - first].zero_()
        state[shift - first :] = signal
        D.pull_into(state[shift - first :], slice(shift, T + 1))
    elif isinstance(C, Scale):
        carrier = C.pull(carrier, 0)

    def pulled(gain: Gain, row: Tensor, t: int) -> Tensor:
        spare.copy_(row)
        gain.pull_into(spare, t)
        return spare

    for t in range(T, first - 1, -1):
        row, cut = rows[t - first], t == T or (blocks is not None and t % blocks == 0)
        later = rows[t + 1 - first] if not cut else row
        if carrier is not None:
            if cut:
                row.copy_(signals[t - shift]) if t >= shift else row.zero_()
            else:
                c = later if isinstance(C, Scale) else pulled(C, later, t + 1)
                if t >= shift:
                    torch.addmm(signals[t - shift], c, carrier, out=row)
                else:
                    torch.mm(c, carrier, out=row)
            D.pull_into(row, t)
        if not cut and not A.is_zero:
            if isinstance(A, Scale):
                row.add_(later, alpha=A.factor)
            else:
                row.add_(pulled(A, later, t + 1))
    initial = None
    if first == 1:
        initial = A.pull(rows[0].unsqueeze(-2), 1)
        if carrier is not None:
            c = rows[0] if isinstance(C, Scale) else pulled(C, rows[0], 1)
            initial = initial + D.pull((c @ carrier).unsqueeze(-2), 0)
    C.pull_into(state, slice(first, T + 1))
    return Credit(state.unsqueeze(-2), initial)


def _filter_own(trajectory: Trajectory, gain: Gain, arriving: Tensor) -> Tensor:
    """λ_t = D_tᵀ a_t + A_{t+1}ᵀ λ_{t+1} for arriving credit a [T+1,B,N], at t = 0..T: [T+1,B,d,N]."""
    A = trajectory.local.A
    state = gain.pull(arriving[-1].unsqueeze(-2), trajectory.n_steps)
    states = [state]
    for t in range(trajectory.n_steps - 1, -1, -1):
        state = gain.pull(arriving[t].unsqueeze(-2), t) + A.pull(state, t + 1)
        states.append(state)
    return torch.stack(states[::-1])


def _by_hops(
    trajectory: Trajectory, signal: Tensor, carrier: Tensor, hops: int | None, gain: tuple[Gain, Gain] | None
) -> Credit:
    """Credit kept apart by its number of hops: λ^(0) from the signal, λ^(n) from c^(n-1) through K."""
    local, T = trajectory.local, trajectory.n_steps
    hop_C, hop_D = gain or (local.C, local.D)
    times = slice(0, T + 1)
    early = signal.new_zeros(T + 1 - signal.shape[0], *signal.shape[1:])
    state = _filter_own(trajectory, local.D, torch.cat([early, signal]))
    credit = local.C.pull(state, times)
    total, initial = credit[1:], state[0]
    for _ in range(T if hops is None else min(hops, T)):  # after T hops nothing is left
        hopped = credit[1:].flatten(-2) @ carrier  # arrives one step earlier
        hopped = torch.cat([hopped, torch.zeros_like(hopped[:1])])
        state = _filter_own(trajectory, hop_D, hopped)
        credit = hop_C.pull(state, times)
        total, initial = total + credit[1:], initial + state[0]
    return Credit(total, initial)


def _sliding(trajectory: Trajectory, signal: Tensor, carrier: Tensor | None, reach: int) -> Credit:
    """Credit kept apart by its age: each signal reaches the currents of its own and the `reach`-1 steps before.

    The level of age j at all steps 0..T comes from the level of age j-1 one step later, as one product over time.
    """
    local, T = trajectory.local, trajectory.n_steps
    early = signal.new_zeros(T + 1 - signal.shape[0], *signal.shape[1:])
    state = local.D.pull(torch.cat([early, signal]).unsqueeze(-2), slice(0, T + 1))
    credit = local.C.pull(state[1:], slice(1, T + 1))
    total, initial = credit, state[0]
    for _ in range(min(reach, T + 1) - 1):
        earlier = local.A.pull(state[1:], slice(1, T + 1))  # at t = 0..T-1
        if carrier is not None:
            earlier = earlier + local.D.pull((credit.flatten(-2) @ carrier).unsqueeze(-2), slice(0, T))
        state = torch.cat([earlier, torch.zeros_like(earlier[:1])])
        credit = local.C.pull(state[1:], slice(1, T + 1))
        total, initial = total + credit, initial + state[0]
    return Credit(total, initial)
