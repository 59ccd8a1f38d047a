"""The one offline time loop, equations (1) to (3) of `bpgen.network.network`, in two forms that give the same numbers.

`run_general` takes any neuron and is a pure function; `run_in_place` works in buffers, for neurons that know how.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bpgen.network.structure import Params, Structure, drive


def run_general(
    network: Structure,
    params: Params,
    x: Tensor,
    noise: Tensor | None,
    s_0: Tensor,
    h_0: Tensor | None,
    from_rest: bool,
) -> tuple[Tensor, Tensor, Tensor, None]:
    """For any neuron and with output feedback: autograd, jvp and vmap may trace it.

    Returns:
        Activities [T+1,B,N], states [T+1,B,d,N], currents [T+1,B,K·N], whose entry 0 is zero, and nothing.
    """
    W_rec, K, N = params["W_rec"].mT, network.neuron.n_currents, network.n_rec
    f, g, W_fb, kappa = network.neuron.f, network.neuron.g, network.W_fb, network.kappa
    s, h = s_0, g(s_0) if h_0 is None else h_0
    r, y = torch.zeros_like(h), None
    activities, states, currents = [h], [s], []
    for drive_t in drive(params, x, noise).unbind(0):
        I = drive_t + h @ W_rec
        if W_fb is not None and y is not None:
            I = I + y @ W_fb.mT
        s = f(s, I.unflatten(-1, (K, N)))
        h = g(s)
        if W_fb is not None:
            r = kappa * r + (1 - kappa) * h
            y = F.linear(r, params["W_out"], params.get("b_out"))
        currents.append(I)
        states.append(s)
        activities.append(h)
    unused = torch.zeros_like(currents[0])
    return torch.stack(activities), torch.stack(states), torch.stack([unused, *currents]), None


def run_in_place(
    network: Structure,
    params: Params,
    x: Tensor,
    noise: Tensor | None,
    s_0: Tensor,
    h_0: Tensor | None,
    from_rest: bool,
) -> tuple[Tensor, Tensor, None, Tensor | None]:
    """Without output feedback: a matrix product and a few passes a step, and no new memory.

    Returns:
        Activities [T+1,B,N], states [T+1,B,d,N], nothing, and with K > 1 or d > 1 what is left of the currents
        [T+1,B,K,N].
    """
    neuron, T, B, N = network.neuron, *x.shape[:2], network.n_rec
    d, K = neuron.n_states, neuron.n_currents
    h, currents = x.new_empty(T + 1, B, N), x.new_empty(T + 1, B, K * N)
    driven = currents[1:]
    drive(params, x, noise, out=driven)
    states = neuron.state_buffer(currents, h) if d == 1 else x.new_empty(T + 1, B, d, N)
    W = neuron.fold(driven, params["W_rec"].mT)
    left = currents.unflatten(-1, (K, N)) if K > 1 or d > 1 else None
    hs, Is = h.unbind(0), currents.unbind(0)
    ss = hs if states is h else Is if states is currents else states.unbind(0)
    lefts = left.unbind(0) if left is not None and K > 1 else Is
    if from_rest:
        ss[0].zero_()
        hs[0].zero_()
    else:
        ss[0].copy_(s_0.squeeze(-2) if d == 1 else s_0)
        hs[0].copy_(neuron.g(s_0) if h_0 is None else h_0)
    reached = neuron.recurrent_currents
    parts = [(Is, W)]
    if reached is not None:
        parts = [(currents[..., rows].unbind(0), W[:, rows]) for rows in rows_of(reached, N)]
    advance = neuron.advance_into
    for t in range(1, T + 1):
        if t > 1 or not from_rest:
            for into, W_part in parts:
                into[t].addmm_(hs[t - 1], W_part)
        advance(lefts[t], ss[t - 1], ss[t], hs[t])
    return h, states.unsqueeze(-2) if d == 1 else states, None, left


def rows_of(currents: tuple[int, ...] | None, N: int) -> list[slice]:
    """The rows [K·N] of some of the K currents, in as few slices as hold them; all of them for None."""
    if currents is None:
        return [slice(None)]
    runs: list[slice] = []
    for k in currents:
        if runs and runs[-1].stop == k * N:
            runs[-1] = slice(runs[-1].start, (k + 1) * N)
        else:
            runs.append(slice(k * N, (k + 1) * N))
    return runs


# glibc keeps twice as much freed memory as the largest block it has freed so far (64 MiB at most) and returns the rest
# to the system. Freeing this block, which is never touched, keeps the buffers of one batch for the next: otherwise
# their pages may be fetched anew for every batch, which was seen to cost 0.7 times the batch itself.
torch.empty(31 * 2**20, dtype=torch.uint8, device="cpu")


def is_traced(*tensors: Tensor) -> bool:
    """Whether autograd, vmap or jvp follows any of these tensors, so that nothing may be overwritten."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return True
    transforms = torch._C._functorch
    return transforms.peek_interpreter_stack() is not None and any(map(transforms.is_functorch_wrapped_tensor, tensors))
