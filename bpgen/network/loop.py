"""The one offline time loop, equations (1) to (3) of `bpgen.network.network`, in two forms that give the same numbers.

`run_general` takes any neuron and is a pure function; `run_in_place` takes one state and one current, in buffers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bpgen.network.structure import Params, Structure, drive


def run_general(
    network: Structure, params: Params, x: Tensor, noise: Tensor | None, s_0: Tensor, from_rest: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """For any neuron and with output feedback: autograd, jvp and vmap may trace it.

    Returns:
        Activities [T+1,B,N], states [T+1,B,d,N] and currents [T+1,B,K·N], whose entry 0 is zero.
    """
    W_rec, K, N = params["W_rec"].mT, network.neuron.n_currents, network.n_rec
    f, g, W_fb, kappa = network.neuron.f, network.neuron.g, network.W_fb, network.kappa
    s, h = s_0, g(s_0)
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
    return torch.stack(activities), torch.stack(states), torch.stack([unused, *currents])


def run_in_place(
    network: Structure, params: Params, x: Tensor, noise: Tensor | None, s_0: Tensor, from_rest: bool
) -> tuple[Tensor, Tensor, None]:
    """For d = K = 1 without output feedback: one matrix product and one or two passes a step, and no new memory."""
    T, B, N = *x.shape[:2], network.n_rec
    h, currents = x.new_empty(T + 1, B, N), x.new_empty(T + 1, B, N)
    drive(params, x, noise, out=currents[1:])
    states = network.neuron.state_buffer(currents, h)
    states[0] = s_0.squeeze(-2)
    h[0] = network.neuron.g(s_0)
    W_rec, advance_into = params["W_rec"].mT, network.neuron.advance_into
    hs, ss, Is = h.unbind(0), states.unbind(0), currents.unbind(0)
    for t in range(1, T + 1):
        if t > 1 or not from_rest:
            Is[t].addmm_(hs[t - 1], W_rec)
        advance_into(Is[t], ss[t - 1], ss[t], hs[t])
    return h, states.unsqueeze(-2), None


# glibc keeps twice as much freed memory as the largest block it has freed so far (64 MiB at most) and returns the rest
# to the system. Freeing this block, which is never touched, keeps the buffers of one batch for the next: otherwise
# their pages may be fetched anew for every batch, which was seen to cost 0.7 times the batch itself.
torch.empty(31 * 2**20, dtype=torch.uint8, device="cpu")


def is_traced(*tensors: Tensor) -> bool:
    """Whether autograd, vmap or jvp follows any of these tensors, so that nothing may be overwritten."""
    follows = torch._C._functorch.is_functorch_wrapped_tensor
    return any(follows(t) or (t.requires_grad and torch.is_grad_enabled()) for t in tensors)
