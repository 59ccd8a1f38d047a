"""The floor of a rule: its own algorithm as the least sequence of torch calls, without a framework.

Every buffer is kept from call to call. On a network that starts from rest:
    forward     one product W_in x over all steps; at each step one product onto the current (none at the first, where
                h_0 = 0), one pass for the leak (none at α = 1), one for φ; the readout at the steps that have a loss
    error       log softmax, exp, minus one at the target, 1/n
    credit      one product e B over the steps that have a loss; then, backwards over the steps that can earn credit,
                one product with W_rec (BPTT and its truncations), one pass for φ', one for the leak (none at α = 1);
                no loop at all where neither W_rec nor the leak carries anything. Sliding truncation with a loss at
                all steps instead takes its window - 1 passes over all steps
    weights     one product per weight over the steps that earn credit; the diagonal of W_rec's is zeroed
α goes into the small matrices W_rec, W_in and B, never into a pass of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bpgen.bench.peers import RULES, Workload
from bpgen.rules import load_rule


class Floor:
    """Loss and gradients of a rule of `RULES`; a call returns buffers that the next call overwrites."""

    def __init__(self, rule: str, problem: Workload) -> None:
        self.name, options = RULES[rule]
        self.window: int | None = options.get("window")
        self.sliding = options.get("style") == "sliding"
        self.own_path_only = self.name in ("three_factor", "rflo")
        self.when_all, self.alpha, self.leak = problem.when == "all", problem.alpha, 1 - problem.alpha
        net, x, target = problem.network, problem.x, problem.target.flatten()
        feedback = getattr(load_rule(self.name, **options).bind(net), "feedback", None)
        self.p = net.params()
        self.B = self.p["W_out"] if feedback is None or feedback.weight is None else feedback.weight
        T, B, _ = x.shape
        n, N, O = len(target), net.n_rec, net.n_out
        self.x, self.target, self.minus_one = x, target, x.new_full((n, 1), -1.0)
        self.h, self.s = x.new_zeros(T + 1, B, N), x.new_zeros(T + 1, B, N)
        self.c, self.spare, self.q = (x.new_empty(T, B, N) for _ in range(3))
        self.outputs, self.log_p_by_class, self.log_p = x.new_empty(n, O), x.new_empty(O, n), x.new_empty(n, O)
        self.mask = self.alpha * net.masks()["W_rec"]
        self.W_rec, self.W_in, self.aB = (torch.empty_like(w) for w in (self.p["W_rec"], self.p["W_in"], self.B))
        self.grads = {name: torch.zeros_like(value) for name, value in self.p.items()}
        self.grads["W_in"] = x.new_zeros(net.n_in, N).mT  # written as its transpose, the narrow side in front

    @torch.no_grad()
    def __call__(self) -> tuple[Tensor, dict[str, Tensor]]:
        """One forward and backward pass."""
        T, p, grads = len(self.x), self.p, self.grads
        self._forward()
        read = self.h[1 if self.when_all else T :].flatten(0, 1)
        torch.addmm(p["b_out"], read, p["W_out"].mT, out=self.outputs)
        torch.log_softmax(self.outputs.mT, 0, out=self.log_p_by_class)  # many times faster than along few classes
        self.log_p.copy_(self.log_p_by_class.mT)
        loss = F.nll_loss(self.log_p, self.target)
        error = self.log_p.exp_().scatter_add_(1, self.target.unsqueeze(1), self.minus_one).div_(len(self.target))
        torch.mm(error.mT, read, out=grads["W_out"])
        torch.sum(error, 0, out=grads["b_out"])
        if self.name != "readout_only":
            torch.mul(self.B, self.alpha, out=self.aB)
            first, c = self._credit(error)
            silent = 1 if first == 0 else 0
            torch.mm(c[silent:].flatten(0, 1).mT, self.h[first + silent : T].flatten(0, 1), out=grads["W_rec"])
            grads["W_rec"].fill_diagonal_(0)
            torch.mm(self.x[first:].flatten(0, 1).mT, c.flatten(0, 1), out=grads["W_in"].mT)
        return loss, grads

    def _forward(self) -> None:
        torch.mul(self.p["W_rec"], self.mask, out=self.W_rec)
        torch.mul(self.p["W_in"], self.alpha, out=self.W_in)
        states = self.s if self.leak else self.h
        torch.mm(self.x.flatten(0, 1), self.W_in.mT, out=states[1:].flatten(0, 1))
        W, hs, ss = self.W_rec.mT, self.h.unbind(0), states.unbind(0)
        for t in range(1, len(hs)):
            if t > 1:
                ss[t].addmm_(hs[t - 1], W)
            if self.leak:
                ss[t].add_(ss[t - 1], alpha=self.leak)
                torch.clamp_min(ss[t], 0, out=hs[t])
            else:
                ss[t].clamp_min_(0)

    def _credit(self, error: Tensor) -> tuple[int, Tensor]:
        """The number of steps that earn no credit, and the credit of the currents of the others."""
        T, c, h = len(self.c), self.c, self.h[1:]
        start = 0 if self.when_all else T - 1  # steps before the first loss
        torch.mm(error, self.aB, out=c[start:].flatten(0, 1))
        if self.own_path_only:
            return self._own_path(start)
        if self.sliding and self.when_all:
            return 0, self._slide()
        first, block = 0, T
        if self.window is not None and self.sliding:
            first = max(0, T - self.window)
        elif self.window is not None:
            first, block = start // self.window * self.window, self.window
        rows, hs = c.unbind(0), h.unbind(0)
        _through_relu(rows[-1], hs[-1])
        for t in range(T - 2, first - 1, -1):
            cut = (t + 1) % block == 0
            if t < start:
                torch.mm(rows[t + 1], self.W_rec, out=rows[t])
            elif not cut:
                rows[t].addmm_(rows[t + 1], self.W_rec)
            _through_relu(rows[t], hs[t])
            if self.leak and not cut:
                rows[t].add_(rows[t + 1], alpha=self.leak)
        return first, c[first:]

    def _own_path(self, start: int) -> tuple[int, Tensor]:
        c = self.c
        _through_relu(c[start:], self.h[1 + start :])
        if not self.leak:
            return start, c[start:]
        rows = c.unbind(0)
        c[:start].zero_()
        for t in range(len(c) - 2, -1, -1):
            rows[t].add_(rows[t + 1], alpha=self.leak)
        return 0, c

    def _slide(self) -> Tensor:
        """Pass j takes in the signals that are j steps later; the last j steps are complete by then."""
        T, c, spare, h = len(self.c), self.c, self.spare, self.h[1:]
        self.q.copy_(c)
        _through_relu(c, h)
        for n in range(T - 1, max(0, T - (self.window or T)), -1):
            later, out = c[1 : n + 1], spare[:n]
            torch.addmm(self.q[:n].flatten(0, 1), later.flatten(0, 1), self.W_rec, out=out.flatten(0, 1))
            _through_relu(out, h[:n])
            if self.leak:
                out.add_(later, alpha=self.leak)
            spare[n] = c[n]  # complete; so are the rows above it, in either buffer
            c, spare = spare, c
        return c


def _through_relu(u: Tensor, h: Tensor) -> None:
    torch.ops.aten.threshold_backward.grad_input(u, h, 0, grad_input=u)
