"""k steps of SnAp-1 as the least sequence of eager torch calls: what a chunk costs without any Python around them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bpgen.neurons import Leaky
from bpgen.problem import Problem


def eager_steps(p: Problem, k: int) -> Callable[[], tuple[Tensor, dict[str, Tensor], Tensor]]:
    """The first k steps of a leaky tanh network from rest; loss, gradients and the trace it ends with [B,Q].

    It does what a chunk needs: run, readout, squared error, all gradients, and copies of what is carried on.
    """
    neuron, network, P, B, N = p.network.neuron, p.network, p.params, p.batch, p.network.n_rec
    assert isinstance(neuron, Leaky)
    a, mask, x, y = neuron.alpha, network.masks()["W_rec"], p.x[:k], p.target[:k].flatten(0, 1)
    inputs, start, ones = x.flatten(0, 1), x.new_zeros(B, N), x.new_ones(k, B, 1)
    trace = x.new_zeros(1, B, N + network.n_in + 1)
    since = (torch.arange(1, k + 1).unsqueeze(1) - torch.arange(k + 1)).double()
    filters = torch.where(since >= 0, (1 - a) ** since.clamp(min=0), 0.0)
    filters[:, 1:] *= a
    filters = filters.to(x)

    @torch.no_grad()
    def call() -> tuple[Tensor, dict[str, Tensor], Tensor]:
        W = P["W_rec"] * mask
        h, s = x.new_empty(k + 1, B, N), x.new_empty(k + 1, B, N)
        torch.addmm(P["b_rec"], inputs, P["W_in"].mT, out=s[1:].view(k * B, N))
        hs, ss, W = h.unbind(0), s.unbind(0), W.mT
        hs[0].copy_(start)
        ss[0].copy_(start)
        for t in range(k):
            I = ss[t + 1]
            I.addmm_(hs[t], W)
            torch.lerp(ss[t], I, a, out=I)
            torch.tanh(I, out=hs[t + 1])
        after = h[1:].view(k * B, N)
        e = torch.addmm(P["b_out"], after, P["W_out"].mT).sub_(y)
        loss = (e * e).sum() * (0.5 / B)
        e.div_(B)
        q = e @ P["W_out"]
        torch.ops.aten.tanh_backward.grad_input(q, after, grad_input=q)
        given = torch.cat([trace, torch.cat([h[:-1], x, ones], -1)])
        traces = (filters @ given.view(k + 1, -1)).view(k, B, -1)
        own = q.mT @ traces.view(k * B, -1)
        grads = {"W_rec": own[:, :N] * mask, "W_in": own[:, N:-1].contiguous(), "b_rec": own[:, -1].contiguous()}
        grads |= {"W_out": e.mT @ after, "b_out": e.sum(0)}
        _, _, end = ss[-1].clone(), hs[-1].clone(), traces[-1].clone()
        return loss, grads, end

    return call
