"""The recursion of the credit kernel in buffers: equations (1) to (3) of `bpgen.rules.kernel` for two kinds of neuron.

`loop_in_place` has d = K = 1 and any gains. `retreat` has the neurons' own gains, and neurons that take each step back
by themselves (`Neuron.retreat_into`). Both have the arguments and the result of the kernel's general loop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bpgen.network import Trajectory
from bpgen.network.loop import rows_of
from bpgen.neurons.gain import Gain, Local, Scale
from bpgen.rules.credit import Credit


def loop_in_place(
    trajectory: Trajectory, local: Local, signal: Tensor, carrier: Tensor | None, first: int, blocks: int | None
) -> Credit:
    """For d = K = 1: one matrix product and one or two passes a step, in one buffer.

    Where C is a number it commutes with A and D: the buffer then holds c itself, and C goes into the signal and
    into K. Elsewhere it holds λ, and C is applied to all of it at the end.
    """
    A, C, D = local.A, local.C, local.D
    scale, slope = (C.factor, None) if isinstance(C, Scale) and not C.is_zero else (1.0, C)
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
                torch.mm(pulled(slope, later, t + 1), carrier, out=row)
            elif not cut:
                row.addmm_(pulled(slope, later, t + 1), carrier)
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
            initial = initial + D.pull((pulled(slope, rows[0], 1) @ carrier).unsqueeze(-2), 0)
        initial = initial / scale
    if slope is not None:
        slope.pull_into(buffer, slice(first, T + 1))
    return Credit(buffer.unsqueeze(-2), initial)


def retreat(trajectory: Trajectory, signal: Tensor, carrier: Tensor | None, first: int, blocks: int | None) -> Credit:
    """For K > 1 or d > 1: the products of the currents that recurrent weights reach, and a neuron's own step back."""
    network, left, T = trajectory.network, trajectory.left, trajectory.n_steps
    neuron, shift = network.neuron, T - signal.shape[0] + 1
    assert left is not None, "this run was not made in place"
    B, K, N = left.shape[1:]
    credit, spare = left.new_empty(T - first + 1, B, K, N), left.new_empty(B, N)
    later = left.new_zeros(B, neuron.n_states, N)  # of s_t by s_{t+1}
    states = trajectory.states if neuron.n_states > 1 else trajectory.states.squeeze(-2)
    parts = []
    if carrier is not None:  # credit of a current without recurrent weights goes nowhere through W_rec
        own = carrier is trajectory.params["W_rec"]
        parts = [(rows, carrier[rows]) for rows in rows_of(neuron.recurrent_currents if own else None, N)]
    c, flat, lefts, s = credit.unbind(0), credit.flatten(-2).unbind(0), left.unbind(0), states.unbind(0)

    def crossed(t: int) -> Tensor:
        for rows, W in parts:
            spare.addmm_(flat[t - first][:, rows], W)
        return spare

    for t in range(T, first - 1, -1):
        if t >= shift:
            spare.copy_(signal[t - shift])
        else:
            spare.zero_()
        if t < T and blocks is not None and t % blocks == 0:
            later.zero_()
        elif t < T:
            crossed(t + 1)
        neuron.retreat_into(spare, later, lefts[t], s[t - 1], s[t], c[t - first])
    initial = None
    if first == 1 and not trajectory.from_rest:
        spare.zero_()
        initial = later + torch.func.vjp(neuron.g, trajectory.states[0])[1](crossed(1))[0]
    return Credit(credit, initial)
