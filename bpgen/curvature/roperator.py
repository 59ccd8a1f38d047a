"""Hessian-vector products by Pearlmutter's R-operator, written out for a recurrent network.

The base pass is one run forwards and one backwards through time (the recursion (4) without primes). It is computed once
and kept: activities h, the gains A, C, D inside each neuron, the credit λ_t and c_t of states and currents, the errors
e_t of the outputs. For a direction θ' of the weights a prime is the derivative along it, and a product is one more pass
forwards and one backwards:
    (1) I'_t = W_rec h'_{t-1} + W_rec' h_{t-1} + W_in' x_t + b_rec'
    (2) s'_t = A_t s'_{t-1} + C_t I'_t,     h'_t = D_t s'_t,     s'_0 the direction of a learned initial state
    (3) y'_t = W_out r'_t + W_out' r_t + b_out',     e' = (∂²ℓ/∂y²) y',     q'_t = W_outᵀ ē'_t + W_out'ᵀ ē_t
    (4) λ'_t = D_tᵀ (q'_t + W_recᵀ c'_{t+1} + W_rec'ᵀ c_{t+1}) + A_{t+1}ᵀ λ'_{t+1} + (D_tᵀ)' a_t + (A_{t+1}ᵀ)' λ_{t+1}
        c'_t = C_tᵀ λ'_t + (C_tᵀ)' λ_t
    (5) (Hθ')_Wrec = Σ c'_t h_{t-1}ᵀ + c_t h'_{t-1}ᵀ,  (Hθ')_Win = Σ c'_t x_tᵀ,  (Hθ')_Wout = Σ e'_t r_tᵀ + e_t r'_tᵀ
with a_t the credit that arrives at h_t and ē the output error filtered backwards through the readout. The primes of A,
C and D are the neuron's second derivatives (`bpgen.curvature.second_derivatives`). For W_rec that is six matrix
products a step, two in the recursions (`bpgen.curvature.recursion`), the others as one large product each over all
steps.
A regulariser of the activity adds its gradient by h_t to q_t, and the same of h' to q'_t.
Every source in (3) to (5) belongs to one of two parts: what e' causes is the Gauss-Newton product Jᵀ (∂²ℓ/∂y²) J θ',
all else is the residual part Σ (∂ℓ/∂y) ∂²y/∂θ² θ'. Activities with a cost of their own count as outputs.

References: B. A. Pearlmutter, Neural Computation 6 (1994) 147-160; N. N. Schraudolph, Neural Computation 14 (2002)
1723-1738.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from bpgen.curvature.recursion import (
    Adjoint,
    Entries,
    Tangent,
    backward,
    backward_in_place,
    forward,
    forward_in_place,
    nothing,
    scale_of,
)
from bpgen.curvature.second_derivatives import SecondDerivatives, of_activity, of_dynamics
from bpgen.network.readout import filtered, filtered_back
from bpgen.neurons.gain import Dense
from bpgen.problem import Problem

Part = Literal["hessian", "gauss_newton", "residual"]


class ROperator:
    """Products with the Hessian of a problem's loss, a regulariser of the weights left out, in the parameters' shapes.

    Args:
        problem: whose Hessian; its weights and batch must not change afterwards.
    """

    def __init__(self, problem: Problem) -> None:
        network, loss = problem.network, problem.loss
        self._loss, self._kappa = loss, network.kappa
        cost = loss.cost
        self._activity = None if cost is None else replace(cost, target=0.0)  # its gradient is linear
        self._run = run = problem.run()
        self._learned_start = "initial_state" in problem.params and problem.initial_state is None
        active = (run.h[:-1] != 0).flatten(1).any(1).nonzero()
        self._seen = 1 + int(active[0]) if len(active) else run.n_steps + 1  # the first step that sees an activity
        self._scale = scale_of(run)
        self._W, self._W_out = run.params["W_rec"], run.params["W_out"]
        if self._scale is not None:
            self._W = self._scale * self._W
        error = loss.data_and_error(run.outputs, problem.target)[1]
        self._error = error.unsqueeze(1)  # e [L,1,B,O]
        self._f: SecondDerivatives | None = None
        self._g: SecondDerivatives | None = None
        signal = self._signal(self._back(self._error, self._W_out))
        if cost is not None:
            signal[1:].add_(cost.gradient(run.h).unsqueeze(1), alpha=self._scale or 1.0)
        straight = network.neuron.piecewise_linear
        if straight and self._scale is not None:
            self._c = backward_in_place(run, self._W, signal, None, 0, None, None).currents
            return
        self._gains = Entries(run)
        credit = backward(run, self._gains, run.params["W_rec"], signal / (self._scale or 1))
        self._c = credit.currents  # c [T+1,1,B,K·N]
        if not straight:
            self._f = of_dynamics(run, torch.stack(list(credit.states), dim=-2)[1:, 0]) or None
            self._g = of_activity(run, credit.arriving[:, 0].unsqueeze(-2)) or None
        if self._f is not None:
            self._W, self._scale = run.params["W_rec"], None

    def __call__(self, direction: Mapping[str, Tensor], part: Part = "hessian") -> dict[str, Tensor]:
        """H θ' by parameter name, each [V,...], of V directions θ' [V,...] by name; names left out are zero.

        Args:
            direction: by parameter name; the result has the same names.
            part: the whole, or one of its two parts.
        """
        d, residual = direction, part != "gauss_newton"
        V = len(next(iter(d.values())))
        tangent = self._forward(d, V)
        dr = filtered(tangent.h[1:], self._kappa)[-len(self._error) :]
        r = self._run.r[-len(self._error) :].unsqueeze(1)
        if part == "residual":
            de = self._error.new_zeros(len(self._error), V, *self._error.shape[2:])
        else:
            dy = dr @ self._W_out.mT
            dy = dy + _times(r, d["W_out"]) if "W_out" in d else dy
            dy = dy + d["b_out"].unsqueeze(1) if "b_out" in d else dy
            de = self._loss_hessian(dy)
        dq = self._back(de, self._W_out)
        if residual and "W_out" in d:
            dq = dq + self._back(self._error, d["W_out"])
        credit = self._backward(d, dq, tangent, part)
        return self._products(d, tangent.h, credit, de, r, dr, residual)

    @property
    def nbytes(self) -> int:
        """Memory that the base pass holds on to."""
        second = [M for map_ in (self._f, self._g) if map_ is not None for M in map_.entries.values()]
        gains = [g.jacobian for g in (self._run.local.A, self._run.local.C, self._run.local.D) if isinstance(g, Dense)]
        return sum(t.nbytes for t in (self._run.h, self._run.states, self._c, *second, *gains))

    def _first(self, d: Mapping[str, Tensor]) -> int:
        """The first step that these weights act at, and so the last one that their credit is asked of."""
        if self._learned_start and "initial_state" in d:
            return 0
        return 1 if "W_in" in d or "b_rec" in d else self._seen if "W_rec" in d else self._run.n_steps + 1

    def _forward(self, d: Mapping[str, Tensor], V: int) -> Tangent:
        """(1) and (2)."""
        run, scale = self._run, self._scale or 1.0
        T, B = run.x.shape[:2]
        drive, dW = self._W.new_zeros(T + 1, V, B, self._W.shape[0]), None
        if "W_rec" in d:
            dW = scale * d["W_rec"]
        if "W_in" in d:
            drive[1:] += _times(run.x.unsqueeze(1), scale * d["W_in"])
        if "b_rec" in d:
            drive[1:] += scale * d["b_rec"].unsqueeze(1)
        s_0 = d["initial_state"].unsqueeze(1) if self._learned_start and "initial_state" in d else None
        if self._scale is not None:
            return forward_in_place(run, self._W, dW, drive, s_0, self._g is not None, self._first(d))
        if dW is not None:
            drive[1:] += _times(run.h[:-1].unsqueeze(1), dW)
        return forward(run, self._gains, self._W, drive, s_0)

    def _backward(self, d: Mapping[str, Tensor], dq: Tensor, tangent: Tangent, part: Part) -> Adjoint:
        """(4), with the sources of that part."""
        run, scale, residual = self._run, self._scale or 1.0, part != "gauss_newton"
        dW = d["W_rec"] if residual and "W_rec" in d else None
        signal = self._signal(dq)
        if self._activity is not None and part != "residual":
            for v, h in enumerate(tangent.h.unbind(1)):
                signal[1:, v].add_(self._activity.gradient(h), alpha=scale)
        if self._scale is not None:
            curved_s = None
            if residual and self._g is not None:
                self._g.add([scale * tangent.states[0]], [curved_s := torch.zeros_like(tangent.states[0])])
            dW = None if dW is None else scale * dW
            return backward_in_place(run, self._W, signal, curved_s, self._first(d), dW, self._c)
        if dW is not None:
            signal[:-1] += _times(self._c[1:], dW.mT)
        sources = nothing(run, signal)
        if residual and self._g is not None:
            self._g.add(tangent.states, sources.states)
        if residual and self._f is not None:
            credits = sources.currents.unflatten(-1, (-1, signal.shape[-1])).unbind(-2)
            dz = [*(s[:-1] for s in tangent.states), *(I[1:] for I in tangent.currents)]
            self._f.add(dz, [*(s[:-1] for s in sources.states), *(c[1:] for c in credits)])
        return backward(run, self._gains, self._W, signal, sources)

    def _signal(self, dq: Tensor) -> Tensor:
        """C q'_t [T+1,V,B,N] of q' [L,V,B,N] at the last L steps; C = 1 outside the fast path."""
        signal = dq.new_zeros(self._run.n_steps + 1, *dq.shape[1:])
        signal[-len(dq) :].add_(dq, alpha=self._scale or 1.0)
        return signal

    def _back(self, error: Tensor, W_out: Tensor) -> Tensor:
        """ē_t W_out, [·,V,B,N] at the last steps, of e [L,V,B,O] and W_out [O,N] or [V,O,N]."""
        return filtered_back(error, self._kappa, self._run.n_steps) @ W_out

    def _loss_hessian(self, dy: Tensor) -> Tensor:
        """e' = (∂²ℓ/∂y²) y', [L,V,B,O]."""
        return self._loss.error_along(self._run.outputs, dy.transpose(0, 1)).transpose(0, 1)

    def _products(
        self, d: Mapping[str, Tensor], dh: Tensor, credit: Adjoint, de: Tensor, r: Tensor, dr: Tensor, residual: bool
    ) -> dict[str, Tensor]:
        """(5)."""
        run, dc, seen = self._run, credit.currents, self._seen
        after = 1 + self._first(d)  # the first step that sees a changed activity
        H: dict[str, Tensor] = {}
        for name in d:
            if name == "W_rec":
                H[name] = _outer(dc[seen:], run.h[seen - 1 : -1].unsqueeze(1))
                if residual:
                    H[name] = H[name] + _outer(self._c[after:], dh[after - 1 : -1])
            elif name == "W_in":
                H[name] = _outer(dc[1:], run.x.unsqueeze(1))
            elif name == "b_rec":
                H[name] = dc[1:].sum((0, 2))
            elif name == "W_out":
                H[name] = _outer(de, r) + _outer(self._error, dr) if residual else _outer(de, r)
            elif name == "b_out":
                H[name] = de.sum((0, 2))
            elif self._learned_start:
                H[name] = torch.stack([s[0].sum(1) for s in credit.states], dim=1) / (self._scale or 1.0)
            else:
                H[name] = torch.zeros_like(d[name])
        return H


def _times(pre: Tensor, W: Tensor) -> Tensor:
    """W pre: [L,V,B,m] of pre [L,1,B,n] and W [V,m,n]."""
    return torch.matmul(pre, W.mT) if len(W) > 1 else pre @ W[0].mT


def _outer(post: Tensor, pre: Tensor) -> Tensor:
    """Σ_{t,b} post preᵀ: [V,m,n] of post [L,V|1,B,m] and pre [L,V|1,B,n]."""
    if post.shape[1] == pre.shape[1] == 1:
        return (post.flatten(0, 2).mT @ pre.flatten(0, 2)).unsqueeze(0)
    return post.transpose(0, 1).flatten(1, 2).mT @ pre.transpose(0, 1).flatten(1, 2)
