"""What the equality tests share: generic problems, gradients by autograd, and comparisons that cannot pass empty.

The slow network below takes f and g from the neuron and nothing else from bpgen. Each rule that cuts paths is
autograd on it with a `detach` at the right place:
    hop(h_{t-1}, t)   the activity on its way into W_rec at step t
    own(s_{t-1}, t)   the state on its way into the same neuron at step t
    read(r, W_out)    the filtered activity on its way into the readout, without the bias
    fed(y_{t-1}, t)   the output on its way back into the network at step t, where there is output feedback
    kept(r_{t-1}, t)  the filtered activity on its way into such an output one step later
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import bpgen
import bpgen.problem
from bpgen.neurons import GRU, Leaky, Neuron
from bpgen.rules import Rule, RuleGradients

torch.set_num_threads(1)  # matrices of five neurons: a second thread only costs time

Grads = dict[str, Tensor]
RECURRENT = ("W_rec", "W_in", "b_rec")
WEIGHTS = (*RECURRENT, "W_out", "b_out")


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Problem:
    """A network and a batch; `s_0` is None where the initial state is learned."""

    network: bpgen.Network
    x: Tensor
    target: Tensor
    loss: str
    when: str
    mask: Tensor | None
    s_0: Tensor | None

    def rule(self, rule: Rule | str, **options) -> RuleGradients:
        """The product's answer; `options` go to the rule's constructor."""
        rule = bpgen.load_rule(rule, **options) if isinstance(rule, str) else rule
        return bpgen.gradients(rule, self.network, self.x, self.target, self.loss, self.when, self.mask, self.s_0)

    def start(self, params: Mapping[str, Tensor]) -> Tensor:
        learned = params.get("initial_state")
        return self.s_0 if self.s_0 is not None else learned.expand(self.x.shape[1], *learned.shape)

    def part(self, samples: slice) -> Problem:
        """The same problem on some of its samples."""
        cut = [None if v is None else v[:, samples] for v in (self.x, self.mask)]
        target = self.target[:, samples] if self.when == "all" else self.target[samples]
        s_0 = None if self.s_0 is None else self.s_0[samples]
        return replace(self, x=cut[0], mask=cut[1], target=target, s_0=s_0)


def asked(network, params, x, target, loss, draws=()):
    """The arguments of `rule.gradients`; a given start and current noise may stand among the draws."""
    draws = dict(draws)
    start, noise = draws.pop("initial_state", None), draws.pop("current_noise", None)
    return bpgen.problem.Problem(network, params, x, target, loss, start, noise), draws


def problem(
    neuron: Neuron | None = None,
    *,
    T: int = 7,
    B: int = 3,
    I: int = 4,
    N: int = 5,
    O: int = 3,
    loss: str = "mse",
    when: str = "all",
    masked: bool = False,
    learned: bool = False,
    seed: int = 0,
    **options,
) -> Problem:
    """A generic problem: nothing is zero, square or symmetric; alpha < 1 unless the caller says otherwise."""
    network = bpgen.Network(
        neuron or Leaky(0.4, "tanh"),
        I,
        N,
        O,
        dtype=torch.float64,
        seed=seed,
        trainable_initial_state=learned,
        **{"bias": "both", **options},
    )
    first = 100 * seed
    with torch.no_grad():
        for i, p in enumerate(network.parameters()):
            p += 0.4 * randn(first + i, *p.shape)
    steps = (T, B) if when == "all" else (B,)
    if loss == "mse":
        target = randn(first + 13, *steps, O)
    else:
        target = torch.randint(O, steps, generator=torch.Generator().manual_seed(first + 13))
    mask = randn(first + 14, T, B).abs() if masked else None
    s_0 = None if learned else randn(first + 15, B, network.neuron.n_states, N)
    return Problem(network, randn(first + 16, T, B, I), target, loss, when, mask, s_0)


def true_loss(outputs: Tensor, target: Tensor, loss: str, when: str, mask: Tensor | None) -> Tensor:
    """The definition of the loss, through torch.nn.functional."""
    B = outputs.shape[-2]
    if loss == "mse":
        each = 0.5 * F.mse_loss(outputs, target, reduction="none").sum(-1)
        default = 1.0
    else:
        each = F.cross_entropy(outputs.flatten(0, -2), target.flatten(), reduction="none").view(target.shape)
        default = 1 / len(outputs) if when == "all" else 1.0
    return (each * (default if mask is None else mask)).sum() / B


def acting(network: bpgen.Network) -> dict[str, Tensor]:
    """Which entries of each parameter can act, said here again: no autapses, and no missing blocks of a GRU."""
    free = {name: torch.ones_like(w, dtype=torch.bool) for name, w in network.named_parameters()}
    N = network.n_rec
    if not network.autapses:
        for block in free["W_rec"].split(N):
            block.fill_diagonal_(False)
    if network.density < 1 or network.ring is not None:  # which synapses are drawn is tested in tests/test_wiring.py
        free["W_rec"] &= network.rec_mask.bool()
    if len(network.area_names) > 1:  # which areas are connected is tested in tests/test_areas.py
        for name, mask in network.masks().items():
            free[name] &= mask.bool()
    if isinstance(network.neuron, GRU):
        free["W_rec"][2 * N : 3 * N] = False
        free["W_in"][3 * N :] = False
    return free


def plain_read(r: Tensor, W_out: Tensor) -> Tensor:
    return r @ W_out.T


@dataclass
class Slow:
    """One slow run: inputs and results of the loop, all attached to the graph."""

    outputs: Tensor
    h: list[Tensor]
    states: list[Tensor]


def run_slow(
    p: Problem,
    params: Mapping[str, Tensor],
    *,
    hop: Callable[[Tensor, int], Tensor] = lambda h, t: h,
    own: Callable[[Tensor, int], Tensor] = lambda s, t: s,
    read: Callable[[Tensor, Tensor], Tensor] = plain_read,
    fed: Callable[[Tensor, int], Tensor] = lambda y, t: y,
    kept: Callable[[Tensor, int], Tensor] = lambda r, t: r,
    noise: Tensor | None = None,
) -> Slow:
    """The network as a plain loop; entry 0 of `h` and `states` is the start."""
    network, neuron = p.network, p.network.neuron
    if "alpha_logit" in params:  # the same neurons with the alpha of these weights
        neuron = copy.copy(neuron)
        neuron._buffers = {**neuron._buffers, "alpha": 1 / (1 + torch.exp(-params["alpha_logit"]))}
    K, N = neuron.n_currents, network.n_rec
    W, W_in, W_out = (torch.where(acting(network)[n], params[n], 0.0) for n in ("W_rec", "W_in", "W_out"))
    s = p.start(params)
    h = neuron.g(s)
    hs, states, outputs, r, r_fed = [h], [s], [], torch.zeros_like(h), torch.zeros_like(h)
    bias = params.get("b_out", 0.0)
    for t in range(1, len(p.x) + 1):
        I = hop(h, t) @ W.T + p.x[t - 1] @ W_in.T
        if "b_rec" in params:
            I = I + params["b_rec"]
        if noise is not None:
            I = I + noise[t - 1]
        if network.W_fb is not None and t > 1:
            I = I + fed(r_fed @ W_out.T + bias, t) @ network.W_fb.T
        s = neuron.f(own(s, t), I.reshape(-1, K, N))
        h = neuron.g(s)
        r = network.kappa * r + (1 - network.kappa) * h
        r_fed = network.kappa * kept(r_fed, t) + (1 - network.kappa) * h
        outputs.append(read(r, W_out) + bias)
        hs.append(h)
        states.append(s)
    return Slow(torch.stack(outputs) if p.when == "all" else outputs[-1], hs, states)


def leaves(p: Problem) -> Grads:
    return {name: w.detach().clone().requires_grad_() for name, w in p.network.named_parameters()}


Cost = Callable[[list[Tensor]], Tensor]  # of the activities h_0, ..., h_T


def no_cost(h: list[Tensor]) -> Tensor:
    return torch.zeros((), dtype=torch.float64)


def activity_cost(h: list[Tensor], c: float, form: str, target: float = 0.0) -> Tensor:
    """The cost of the activities h_1, ..., h_T by its definition, sample by sample."""
    T, (B, N) = len(h) - 1, h[0].shape
    total = no_cost(h)
    for b in range(B):
        own = torch.stack([h_t[b] for h_t in h[1:]])
        if form == "rate":
            total = total + 0.5 * c * sum((own[:, j].sum() / T - target) ** 2 for j in range(N)) / B
        else:
            total = total + 0.5 * c * (own**2).sum() / (T * B * N)
    return total


def autograd(p: Problem, cost: Cost = no_cost, **paths) -> Grads:
    """Gradients of the true loss and of a cost of the activities, with the paths that are left open."""
    params = leaves(p)
    slow = run_slow(p, params, **paths)
    value = true_loss(slow.outputs, p.target, p.loss, p.when, p.mask) + cost(slow.h)
    grads = torch.autograd.grad(value, list(params.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(params, grads, strict=True))


def hop_terms(p: Problem) -> Grads:
    """Gradients [T+1,...] by number of hops: BPTT with the path through W_rec scaled by c is a polynomial in c."""
    T = len(p.x)
    nodes = np.cos(np.pi * (np.arange(T + 1) + 0.5) / (T + 1))  # degree T: h_0 included
    scaled = [autograd(p, hop=lambda h, t, c=c: h.detach() + c * (h - h.detach())) for c in nodes]
    inverse = torch.from_numpy(np.linalg.inv(np.vander(nodes, increasing=True)))
    return {name: torch.einsum("kc,c...->k...", inverse, torch.stack([g[name] for g in scaled])) for name in scaled[0]}


def no_hop() -> dict:
    """e-prop: no credit enters W_rec."""
    return {"hop": lambda h, t: h.detach(), "fed": lambda y, t: y.detach()}


def in_blocks(k: int) -> dict:
    """Truncation at t = k, 2k, ...: nothing passes from step t to step t+1."""

    def cut(value: Tensor, t: int) -> Tensor:
        return value.detach() if t > 1 and (t - 1) % k == 0 else value

    return {"hop": cut, "own": cut, "fed": cut, "kept": cut}


def through(B: Tensor) -> dict:
    """Feedback B [O,N] tells the activities; W_out itself keeps its exact gradient."""
    return {"read": lambda r, W_out: r.detach() @ W_out.T + (r - r.detach()) @ B.T}


def output_errors(p: Problem, cost: Cost = no_cost) -> tuple[Tensor, list[Tensor]]:
    """What each step's activity h_t, t = 0..T, is told by readout and cost alone: its partial learning signal."""
    slow = run_slow(p, dict(p.network.named_parameters()))
    told = [h.detach().clone().requires_grad_() for h in slow.h]
    r, outputs, kappa = torch.zeros_like(told[0]), [], p.network.kappa
    for h in told[1:]:
        r = kappa * r + (1 - kappa) * h
        outputs.append(r @ p.network.W_out.T + (0 if p.network.b_out is None else p.network.b_out))
    y = torch.stack(outputs) if p.when == "all" else outputs[-1]
    value = true_loss(y, p.target, p.loss, p.when, p.mask) + cost(told)
    q = torch.autograd.grad(value, told, allow_unused=True, materialize_grads=True)
    return value, list(q)


def sliding(p: Problem, k: int, cost: Cost = no_cost) -> Grads:
    """Each step's learning signal, sent back by autograd through a run that started k steps earlier."""
    _, q = output_errors(p, cost)
    total = {name: torch.zeros_like(w) for name, w in p.network.named_parameters()}
    for t in range(1, len(q)):
        params = leaves(p)

        def cut(value: Tensor, step: int, first: int = t - k + 1) -> Tensor:
            return value.detach() if step == first else value

        told = (run_slow(p, params, hop=cut, own=cut).h[t] * q[t]).sum()
        grads = torch.autograd.grad(told, list(params.values()), allow_unused=True, materialize_grads=True)
        for name, g in zip(params, grads, strict=True):
            total[name] += g
    exact = autograd(p)
    return {**total, "W_out": exact["W_out"], **({"b_out": exact["b_out"]} if "b_out" in exact else {})}


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().norm() / b.detach().norm())


def assert_equal(got: Mapping[str, Tensor], expected: Mapping[str, Tensor], names=None, tol: float = 1e-12) -> None:
    """Every named gradient is alive and equal, relative to its norm."""
    for name in names or expected:
        assert expected[name].norm() > 1e-6, f"{name}: the oracle is zero, nothing would be compared"
        assert got[name].shape == expected[name].shape, name
        assert distance(got[name], expected[name]) < tol, name


def assert_differ(got: Mapping[str, Tensor], other: Mapping[str, Tensor], names, by: float = 0.01) -> None:
    """The negative control: each named gradient is alive and clearly another one."""
    for name in names:
        assert got[name].norm() > 1e-6, name
        assert distance(got[name], other[name]) > by, f"{name}: the control does not tell the two apart"
