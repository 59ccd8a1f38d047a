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
Credit through a network's output feedback is derived in `bpgen.rules.output_feedback`.

Credit that is zero before some step is stored from there on: a credit [L,B,K,N] stands at the last L steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bpgen.neurons.gain import Gain, Scale
from bpgen.rules.output_feedback import OutputFeedback
from bpgen.trajectory import Trajectory


class Credit(NamedTuple):
    """Credit of the input currents [L,B,K,N] at the last L steps, and of the initial state [B,d,N] or None.

    outputs: of the outputs by their feedback into the network [L,B,O] at the last L steps; None where none flows there.
    """

    currents: Tensor
    initial: Tensor | None = None
    outputs: Tensor | None = None


def propagate(
    trajectory: Trajectory,
    signal: Tensor,
    *,
    carrier: Tensor | None = None,
    hops: int | None = None,
    gain: tuple[Gain, Gain] | None = None,
    blocks: int | None = None,
    reach: int | None = None,
    through_outputs: bool = False,
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
        through_outputs: whether credit also crosses the network's output feedback, if it has any. Without a carrier and
            under limits by hops, gain or reach it never does.

    Returns:
        The credit; its initial part is None where no path leads to the start, or where the network starts from rest.

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
    if through_outputs and carrier is not None and reach is None and trajectory.network.W_fb is not None:
        return _loop(trajectory, signal, carrier, _first_step(trajectory, signal, True, None, blocks), blocks, True)
    loop = _loop_in_place if trajectory.in_place else _loop
    first = _first_step(trajectory, signal, carrier is not None, reach, blocks)
    credit = loop(trajectory, signal, carrier, first, blocks)
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
    params, network = trajectory.params, trajectory.network
    c = credit.currents.flatten(-2)  # [L,B,K·N]
    before = trajectory.n_steps - c.shape[0]
    silent = 1 if trajectory.from_rest and before == 0 else 0  # the first step follows h_0 = 0
    grads = {"W_rec": _outer(c[silent:], trajectory.h[before + silent : -1]), "W_in": _outer(c, trajectory.x[before:])}
    for name, mask in network.masks().items():
        grads[name] = grads[name] * mask
    if credit.outputs is not None:
        told = credit.outputs.shape[0] - error.shape[0]  # steps before the first error
        error = torch.cat([credit.outputs[:told], credit.outputs[told:] + error])
    grads["W_out"] = _outer(error, trajectory.r[-error.shape[0] :])
    if "b_rec" in params:
        grads["b_rec"] = c.sum((0, 1))
    if "b_out" in params:
        grads["b_out"] = error.sum((0, 1))
    if "initial_state" in params:
        none = torch.zeros_like(params["initial_state"])
        grads["initial_state"] = none if credit.initial is None else credit.initial.sum(0)
    return {name: grads[name] for name in params}


def _outer(post: Tensor, pre: Tensor) -> Tensor:
    """Σ_{t,b} post preᵀ, as one matrix product over all steps and samples, its narrow side in front (faster)."""
    post, pre = post.flatten(0, 1), pre.flatten(0, 1)
    return post.mT @ pre if post.shape[-1] <= pre.shape[-1] else (pre.mT @ post).mT.contiguous()


def _first_step(trajectory: Trajectory, signal: Tensor, hops: bool, reach: int | None, blocks: int | None) -> int:
    """The first step t >= 1 that can earn credit at all."""
    before = trajectory.n_steps - signal.shape[0]  # steps before the first signal
    if not hops and trajectory.local.A.is_zero:
        return before + 1
    first = 1 if blocks is None else before // blocks * blocks + 1
    return first if reach is None else max(first, trajectory.n_steps - reach + 1)


def _loop(
    trajectory: Trajectory,
    signal: Tensor,
    carrier: Tensor | None,
    first: int,
    blocks: int | None,
    through_outputs: bool = False,
) -> Credit:
    """Any neuron, as a pure function: vmap, jvp and autograd may trace it."""
    A, C, D = trajectory.local.A, trajectory.local.C, trajectory.local.D
    T, shift = trajectory.n_steps, trajectory.n_steps - signal.shape[0] + 1
    credits: list[Tensor] = []
    later: Tensor | None = None  # λ_{t+1}, None where no credit arrives from there
    fed = OutputFeedback(trajectory, signal) if through_outputs else None
    for t in range(T, first - 1, -1):
        if blocks is not None and t % blocks == 0:
            later = None
        arriving = signal[t - shift].unsqueeze(-2) if t >= shift else None
        if later is not None and carrier is not None:
            hopped = (credits[-1].flatten(-2) @ carrier).unsqueeze(-2)
            arriving = hopped if arriving is None else arriving + hopped
        if fed is not None:
            told = fed.back(None if later is None else credits[-1].flatten(-2))
            arriving = told if arriving is None else arriving + told
        state = None if arriving is None else D.pull(arriving, t)
        if later is not None:
            state = A.pull(later, t + 1) if state is None else A.add_pull(state, later, t + 1)
        assert state is not None  # the first step was chosen so
        later = state
        credits.append(C.pull(state, t))
    initial = None
    if first == 1 and later is not None and not trajectory.from_rest:
        initial = A.pull(later, 1)
        if carrier is not None:
            initial = initial + D.pull((credits[-1].flatten(-2) @ carrier).unsqueeze(-2), 0)
    return Credit(torch.stack(credits[::-1]), initial, None if fed is None else torch.stack(fed.u[::-1]))


def _loop_in_place(
    trajectory: Trajectory, signal: Tensor, carrier: Tensor | None, first: int, blocks: int | None
) -> Credit:
    """The same for d = K = 1: one matrix product and one or two passes a step, in one buffer.

    Where C is a number it commutes with A and D: the buffer then holds c itself, and C goes into the signal and
    into K. Elsewhere it holds λ, and C is applied to all of it at the end.
    """
    A, C, D = trajectory.local.A, trajectory.local.C, trajectory.local.D
    scale, hop = (C.factor, None) if isinstance(C, Scale) else (1.0, C)
    T, shift = trajectory.n_steps, trajectory.n_steps - signal.shape[0] + 1
    buffer = signal.new_empty(T - first + 1, *signal.shape[1:])
    rows, spare = buffer.unbind(0), torch.empty_like(buffer[0])
    torch.mul(signal, scale, out=buffer[shift - first :])
    if carrier is None:
        buffer[: shift - first].zero_()
        D.pull_into(buffer[shift - first :], slice(shift, T + 1))
    else:
        carrier = scale * carrier

    def pulled(gain: Gain | None, row: Tensor, t: int) -> Tensor:
        if gain is None:
            return row
        gain.pull_into(spare.copy_(row), t)
        return spare

    for t in range(T, first - 1, -1):
        row, cut = rows[t - first], t == T or (blocks is not None and t % blocks == 0)
        later = rows[t + 1 - first] if not cut else row
        if carrier is not None:
            if t < shift:
                torch.mm(pulled(hop, later, t + 1), carrier, out=row)
            elif not cut:
                row.addmm_(pulled(hop, later, t + 1), carrier)
            D.pull_into(row, t)
        if not cut and not A.is_zero:
            if isinstance(A, Scale):
                row.add_(later, alpha=A.factor)
            else:
                row.add_(pulled(A, later, t + 1))
    initial = None
    if first == 1 and not trajectory.from_rest:
        initial = A.pull(rows[0].unsqueeze(-2), 1)
        if carrier is not None:
            initial = initial + D.pull((pulled(hop, rows[0], 1) @ carrier).unsqueeze(-2), 0)
        initial = initial / scale
    if hop is not None:
        hop.pull_into(buffer, slice(first, T + 1))
    return Credit(buffer.unsqueeze(-2), initial)


def _filter_own(trajectory: Trajectory, gain: Gain, arriving: Tensor) -> Tensor:
    """λ_t = D_tᵀ a_t + A_{t+1}ᵀ λ_{t+1} for arriving credit a [T+1,B,N], at t = 0..T: [T+1,B,d,N]."""
    A = trajectory.local.A
    state = gain.pull(arriving[-1].unsqueeze(-2), trajectory.n_steps)
    states = [state]
    for t in range(trajectory.n_steps - 1, -1, -1):
        state = A.add_pull(gain.pull(arriving[t].unsqueeze(-2), t), state, t + 1)
        states.append(state)
    return torch.stack(states[::-1])


def _by_hops(
    trajectory: Trajectory, signal: Tensor, carrier: Tensor, hops: int | None, gain: tuple[Gain, Gain] | None
) -> Credit:
    """Credit kept apart by its number of hops: λ^(0) from the signal, λ^(n) from c^(n-1) through K."""
    local, T = trajectory.local, trajectory.n_steps
    hop_C, hop_D = gain or (local.C, local.D)
    times = slice(0, T + 1)
    signal = torch.cat([signal.new_zeros(T + 1 - signal.shape[0], *signal.shape[1:]), signal])
    state = _filter_own(trajectory, local.D, signal)
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
    """Each signal reaches the currents of its own and the `reach`-1 steps before.

    Pass j takes in the signals of j-1 steps later, at all steps in one product; the last j steps are then complete.
    """
    A, C, D, T = trajectory.local.A, trajectory.local.C, trajectory.local.D, trajectory.n_steps
    scale, hop = (C.factor, Scale(1.0)) if isinstance(C, Scale) else (1.0, C)
    first = 1 if trajectory.from_rest else 0
    signal = torch.cat([signal.new_zeros(T + 1 - first - signal.shape[0], *signal.shape[1:]), signal])
    state, complete = D.pull(signal.unsqueeze(-2), slice(first, T + 1)), []
    for last in range(T, max(T - reach + 1, first), -1):  # state stands at t = first..last
        complete.append(state[-1:])
        later, times, arriving = state[1:], slice(first + 1, last + 1), signal[: last - first]
        if carrier is not None:
            c, shape = hop.pull(later, times).flatten(-2).flatten(0, 1), arriving.shape
            arriving = torch.addmm(arriving.flatten(0, 1), c, carrier, alpha=scale).view(shape)
        state = A.add_pull(D.pull(arriving.unsqueeze(-2), slice(first, last)), later, times)
    state = torch.cat([state, *complete[::-1]])
    return Credit(C.pull(state[1 - first :], slice(1, T + 1)), None if first else state[0])
