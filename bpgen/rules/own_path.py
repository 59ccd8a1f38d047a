"""Eligibility vectors over many steps at once: what makes a rule with a trace in every synapse as fast as one without.

A trace that stays in its neuron is, with P_t = A_k ... A_{t+1} along a block of k steps at fixed weights,
    (1) ε_k = P_0 ε_0 + Σ_t P_t C_t ∂I_t/∂θ                      one matrix product with the presynaptic side
    (2) Σ_t q_t D_t ε_t = Σ_t c_t ∂I_t/∂θ + (A_1ᵀ λ_1) ε_0       c, λ: the credit of the block, filtered backwards
(2) is `propagate` on the block, and what it credits the block's first state with meets the trace that came in. Where A
and C are numbers, the same for all neurons, ε is presynaptic only: [B,d,1,X] stands for all neurons, and with d = 1
    (3) (ε_1 ... ε_k) = F (ε_0, ∂I_1/∂θ ... ∂I_k/∂θ),   F_{t0} = A^t,   F_{tu} = C A^{t-u} for u <= t
is one product for all steps, and Σ_t (D_tᵀ q_t) ε_t another.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from bpgen.network import Network, Trajectory
from bpgen.neurons.gain import Scale
from bpgen.rules.credit import Credit, recurrent_gradients
from bpgen.rules.moment import Moment, gradients_of_own, own_influence
from bpgen.rules.steps import jacobians, presynaptic

Increments = dict[str, Tensor]
_PIECE = 64  # steps whose traces are one product


def trace_start(network: Network, params: Mapping[str, Tensor], batch: int) -> Tensor:
    """ε_0 of every neuron's own parameters, [B,d,N,X], or [B,d,1,X] where it is presynaptic only."""
    vector = own_influence(network, params, batch).unsqueeze(2)
    return vector if is_presynaptic(network) else vector.repeat(1, 1, network.n_rec, 1)


def is_presynaptic(network: Network) -> bool:
    """Whether A and C are numbers, the same for all neurons and times."""
    s = network.W_rec.detach().new_zeros(2, 1, network.neuron.n_states, network.n_rec)
    h, I = network.neuron.g(s), s.new_zeros(2, 1, network.neuron.n_currents * network.n_rec)
    local = Trajectory(network, {}, s, h, s, h[1], False, known_currents=I).local
    return isinstance(local.A, Scale) and isinstance(local.C, Scale)


def trace_step(vector: Tensor, moment: Moment) -> Tensor:
    """ε_t = A_t ε_{t-1} + C_t ∂I_t/∂θ, of a vector as `trace_start` gave it."""
    direct, numbers = moment.of_each, moment.numbers  # [B,K,N|1,X]
    if numbers is not None:
        return torch.add(vector * numbers[0], direct, alpha=numbers[1])  # not in place: under vmap one may be stacked
    return moment.own(vector) + moment.drive(direct.expand(-1, -1, vector.shape[2], -1))


def trace_met(credit: Tensor, vector: Tensor) -> Tensor:
    """Σ_b λ_b ε_b: credit of the state [B,d,N] times the vector [B,d,N|1,X], as gradients of own parameters [N,X]."""
    if vector.shape[2] == 1:
        return credit.flatten(0, 1).mT @ vector.flatten(0, 2)
    return torch.einsum("bdn,bdnx->nx", credit, vector)


def traces_met(run: Trajectory, signal: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """Equation (3): Σ_t (D_tᵀ q_t) ε_t, gradients of own parameters [N,X], and ε_k.

    Args:
        run: the block.
        signal: q [L,B,N] at its last L steps; may be overwritten.
        vector: ε_0 [B,1,1,X].
    """
    local, T = run.local, run.n_steps
    A, C = local.A, local.C
    assert isinstance(A, Scale)
    assert isinstance(C, Scale)
    silent = T - signal.shape[0]
    credit, times = signal, slice(silent + 1, T + 1)
    if run.in_place:
        local.D.pull_into(credit, times)
    else:
        credit = local.D.pull(credit.unsqueeze(-2), times).squeeze(-2)
    pre = _with_learned(presynaptic(run.params, run.h[:-1], run.x), vector).flatten(1)  # [T,B·X]
    last, X = vector.reshape(1, -1), vector.shape[-1]
    sums: list[Tensor] = []
    for first in range(0, T, _PIECE):
        end = min(first + _PIECE, T)
        F = _filter(end - first, A.factor, C.factor, pre.dtype, pre.device)
        trace = F @ torch.cat([last, pre if T <= _PIECE else pre[first:end]])
        last, told = trace[-1:], max(first, silent)  # the first of these steps that is told anything
        if told < end:
            here = credit if told == silent and end == T else credit[told - silent : end - silent]
            met = trace if told == first else trace[told - first :]
            sums.append(here.flatten(0, 1).mT @ met.reshape(-1, X))
    return sum(sums[1:], sums[0]), last.view_as(vector)


@lru_cache(maxsize=64)
def _filter(k: int, A: float, C: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """F of equation (3), [k,k+1]."""
    with torch.inference_mode(False):
        t = torch.arange(1, k + 1, dtype=torch.float64).unsqueeze(1)
        since = t - torch.arange(k + 1, dtype=torch.float64)
        F = torch.where(since >= 0, A ** since.clamp(min=0), 0.0)
        F[:, 1:] *= C
        return F.to(device, dtype)


def block_gradients(run: Trajectory, credit: Credit, own: Tensor | None) -> Increments:
    """Equation (2): gradients by parameter name.

    Args:
        run: the block.
        credit: of the block.
        own: what the credit of its first state meets, gradients of own parameters [N,X]; None is nothing.
    """
    grads = recurrent_gradients(run, credit.currents)
    for name, gradient in ({} if own is None else gradients_of_own(run.network, run.params, own)).items():
        grads[name] = grads[name] + gradient if name in grads else gradient
    return grads


def trace_end(run: Trajectory, vector: Tensor) -> Tensor:
    """Equation (1): ε_k, shaped like ε_0."""
    T, A, C = run.n_steps, run.local.A, run.local.C
    pre = presynaptic(run.params, run.h[:-1], run.x)  # [k,B,Q]
    if isinstance(A, Scale) and isinstance(C, Scale):
        sizes = C.factor * A.factor ** torch.arange(T - 1, -1, -1, dtype=pre.dtype, device=pre.device)
        came = torch.tensordot(sizes, pre, dims=1).unsqueeze(1).unsqueeze(1)  # [B,1,1,Q]
        return _plus_learned(A.factor**T * vector, came)
    rows, columns = jacobians(A, run), jacobians(C, run)
    kept = torch.eye(rows.shape[-2]).to(pre).view(1, *rows.shape[-2:-1], -1, 1).expand(*rows.shape[1:])  # P_t
    weights: list[Tensor] = []
    for t in range(T - 1, -1, -1):
        weights.append(_times(kept, columns[t]))  # P_t C_t [B,d,K,N]
        kept = _times(kept, rows[t])
    factor = torch.stack(weights[::-1], dim=-1).flatten(1, 3)  # [B,d·K·N,k]
    came = (factor @ pre.transpose(0, 1)).unflatten(1, weights[0].shape[1:])  # [B,d,K,N,Q]
    came = came.transpose(2, 3).flatten(-2)  # [B,d,N,K·Q]
    return _plus_learned(_times(kept, vector.transpose(2, 3)).transpose(2, 3), came)


def _plus_learned(vector: Tensor, came: Tensor) -> Tensor:
    """ε plus what came in the block, which says nothing of a learned initial state, the last entries of X."""
    return vector + _with_learned(came, vector)


def _with_learned(pre: Tensor, vector: Tensor) -> Tensor:
    """Presynaptic sides as long as ε: a learned initial state has none."""
    rest = vector.shape[-1] - pre.shape[-1]
    return torch.nn.functional.pad(pre, (0, rest)) if rest else pre


def _times(J: Tensor, S: Tensor) -> Tensor:
    """Per neuron J S: [B,d,d,N] and [B,d,m,N] to [B,d,m,N]."""
    return torch.stack([(row.unsqueeze(2) * S).sum(1) for row in J.unbind(1)], dim=1)
