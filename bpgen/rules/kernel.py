"""The credit kernel: one recursion backwards in time, of which every offline rule is a special case.

With q_t the learning signal, K the matrix that carries credit between neurons, and A, C, D the derivatives
inside a neuron (architecture of `bpgen.neurons`):
    (1) λ_t = D_tᵀ (q_t + Kᵀ c_{t+1}) + A_{t+1}ᵀ λ_{t+1}       credit of the state
    (2) c_t = C_tᵀ λ_t                                         credit of the input currents
    (3) λ_0 = D_0ᵀ Kᵀ c_1 + A_1ᵀ λ_1                           credit of the initial state
    (4) ∂L/∂W_rec = Σ_t c_t h_{t-1}ᵀ,  ∂L/∂W_in = Σ_t c_t x_tᵀ,  ∂L/∂W_out = Σ_t e_t r_tᵀ
(4) is `bpgen.rules.credit`. With C', D' for credit that has crossed K, and c⁰ the credit of (1), (2) without hops,
    c = c⁰ + c', where
    (5) λ'_t = D'_tᵀ Kᵀ (c⁰ + c')_{t+1} + A_{t+1}ᵀ λ'_{t+1},    c'_t = C'_tᵀ λ'_t
and with a limit on the hops the same without c' on the right, once per hop. A regulariser of the activity adds
∂E/∂h_t (`Trajectory.penalty`) to every q_t.
K = W_rec without a limit on the hops is BPTT; without hops it is e-prop (Bellec 2020 with the partial
derivative): filtering the learning signal backwards through the neuron's own A gives exactly the sum over time
of learning signal times eligibility trace, without a trace in memory.
The way through a network's output feedback is `bpgen.rules.output_feedback`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bpgen.network import Trajectory
from bpgen.neurons.gain import Gain, Local, Scale
from bpgen.rules.credit import Credit, add_at_end
from bpgen.rules.in_place import loop_in_place, retreat
from bpgen.rules.output_feedback import OutputFeedback


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
    """Equations (1) to (3), or (5).

    Every call adds a regulariser of the activity to the signal: a rule that sums the credit of several calls hands
    `dataclasses.replace(trajectory, activity=None)` to all but one of them.

    Args:
        trajectory: the run to assign credit in.
        signal: q [L,B,N] at the last L steps, zero before; with L = T+1 the first is what h_0 is told.
        carrier: K [K·N,N]; None lets no credit cross between neurons.
        hops: how many times credit may cross K; None is without limit.
        gain: (C', D') that credit meets after a hop in place of C and D; None keeps the true ones.
        blocks: cut all paths at multiples of this many steps, counted from t = 0.
        reach: how many steps back a signal credits currents, its own step included; None is all.
        through_outputs: whether credit also crosses the network's output feedback, if it has any; it never does so
            without a carrier or with a limit by hops, gain or reach.

    Returns:
        The credit; its initial part is None where no path leads to the start, or where the network starts from rest.

    Raises:
        ValueError: more than one kind of limit (hops or gain; blocks; reach).
    """
    levels = carrier is not None and hops != 0 and (hops is not None or gain is not None)
    if levels + (blocks is not None) + (reach is not None) > 1:
        raise ValueError("propagate limits credit by hops or gain, by blocks, or by reach: one of them at a time.")
    signal = learning_signal(trajectory, signal)
    if not levels or carrier is None:
        if through_outputs and carrier is not None and reach is None and trajectory.network.W_fb is not None:
            return _credit(trajectory, None, signal, carrier, blocks, fed=OutputFeedback(trajectory, signal))
        return _credit(trajectory, None, signal, None if hops == 0 else carrier, blocks, reach)
    beyond = None if gain is None else Local(trajectory.local.A, *gain)
    credit = total = _credit(trajectory, None, signal, None)
    if hops is None:
        return total.plus(_credit(trajectory, beyond, hop(credit.currents, carrier), carrier))
    for _ in range(min(hops, trajectory.n_steps)):  # after T hops nothing is left
        credit = _credit(trajectory, beyond, hop(credit.currents, carrier), None)
        total = total.plus(credit)
    return total


def learning_signal(trajectory: Trajectory, signal: Tensor) -> Tensor:
    """The whole learning signal: q [L,B,N] and what a regulariser of the activity adds; `propagate` does so itself."""
    return signal if trajectory.penalty is None else add_at_end(signal, trajectory.penalty)


def hop(currents: Tensor, carrier: Tensor, signal: Tensor | None = None) -> Tensor:
    """q_t + Kᵀ c_{t+1}: credit that crosses to the presynaptic neurons, where it is a learning signal one step earlier.

    Args:
        currents: c [L,B,K,N] at the last L steps.
        carrier: K [K·N,N].
        signal: q [L',B,N] at the last L' steps, or None.

    Returns:
        A learning signal [max(L+1, L'),B,N] for `propagate`.
    """
    crossed = currents.flatten(-2) @ carrier
    crossed = torch.cat([crossed, torch.zeros_like(crossed[:1])])
    return crossed if signal is None else add_at_end(crossed, signal)


def _first_step(trajectory: Trajectory, signal: Tensor, hops: bool, reach: int | None, blocks: int | None) -> int:
    """The first step t >= 1 that can earn credit at all."""
    before = trajectory.n_steps - signal.shape[0]  # steps before the first signal
    if not hops and trajectory.left is None and trajectory.local.A.is_zero:
        return before + 1
    first = 1 if blocks is None else before // blocks * blocks + 1
    return first if reach is None else max(first, trajectory.n_steps - reach + 1)


def _credit(
    trajectory: Trajectory,
    local: Local | None,
    signal: Tensor,
    carrier: Tensor | None,
    blocks: int | None = None,
    reach: int | None = None,
    fed: OutputFeedback | None = None,
) -> Credit:
    """Equations (1) to (3) with no limit on the hops, and the gains `local`; None is the neurons' own."""
    at_start, signal = (signal[0], signal[1:]) if signal.shape[0] > trajectory.n_steps else (None, signal)
    if reach is not None and signal.shape[0] > 1:
        credit = _sliding(trajectory, signal, carrier, reach)
    else:
        first = _first_step(trajectory, signal, carrier is not None, reach, blocks)
        if trajectory.left is not None and local is None:
            credit = retreat(trajectory, signal, carrier, first, blocks)
        elif trajectory.in_place and trajectory.left is None:
            credit = loop_in_place(trajectory, local or trajectory.local, signal, carrier, first, blocks)
        else:
            credit = _loop(trajectory, local or trajectory.local, signal, carrier, first, blocks, fed)
        if reach is not None and reach <= trajectory.n_steps:
            credit = Credit(credit.currents)
    if at_start is None or trajectory.from_rest:
        return credit
    D = (local or trajectory.local).D
    return credit.plus(Credit(credit.currents[:0], D.pull(at_start.unsqueeze(-2), 0)))


def _loop(
    trajectory: Trajectory,
    local: Local,
    signal: Tensor,
    carrier: Tensor | None,
    first: int,
    blocks: int | None,
    fed: OutputFeedback | None,
) -> Credit:
    """Any neuron, as a pure function: vmap, jvp and autograd may trace it."""
    A, C, D = local.A, local.C, local.D
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
        if fed is not None:
            back = fed.back(None if later is None else credits[-1].flatten(-2))
            arriving = back if arriving is None else arriving + back
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


def _sliding(trajectory: Trajectory, signal: Tensor, carrier: Tensor | None, reach: int) -> Credit:
    """Each signal reaches the currents of its own and the `reach`-1 steps before.

    Pass j takes in the signals of j-1 steps later, at all steps in one product; the last j steps are then complete.
    """
    A, C, D, T = trajectory.local.A, trajectory.local.C, trajectory.local.D, trajectory.n_steps
    scale, slope = (C.factor, Scale(1.0)) if isinstance(C, Scale) else (1.0, C)
    first = 1 if trajectory.from_rest else 0
    signal = torch.cat([signal.new_zeros(T + 1 - first - signal.shape[0], *signal.shape[1:]), signal])
    state, complete = D.pull(signal.unsqueeze(-2), slice(first, T + 1)), []
    for last in range(T, max(T - reach + 1, first), -1):  # state stands at t = first..last
        complete.append(state[-1:])
        later, times, arriving = state[1:], slice(first + 1, last + 1), signal[: last - first]
        if carrier is not None:
            c, shape = slope.pull(later, times).flatten(-2).flatten(0, 1), arriving.shape
            arriving = torch.addmm(arriving.flatten(0, 1), c, carrier, alpha=scale).view(shape)
        state = A.add_pull(D.pull(arriving.unsqueeze(-2), slice(first, last)), later, times)
    state = torch.cat([state, *complete[::-1]])
    return Credit(C.pull(state[1 - first :], slice(1, T + 1)), None if first else state[0])
