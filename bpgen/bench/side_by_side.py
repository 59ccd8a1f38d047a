"""Online rules, spiking and gated networks beside their peers: jitted JAX scans, torch's own cells, eager torch alone.

Every peer's gradients are seen to be equal to 1e-6 (in float64) before anything is timed. Contestants take turns and
the minimum over the rounds counts; all times are in ms, those of chunks for a whole sequence in chunks of ten, and for
one step where there is a weight change after every step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bpgen.bench import Row, shortest
from bpgen.bench.eager_step import eager_steps
from bpgen.bench.jax_peers import scan_call
from bpgen.curvature import HessianProducts
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.network import Network
from bpgen.neurons import ALIF, GRU, LIF, LSTM, Leaky, Neuron
from bpgen.problem import Problem
from bpgen.rules import gradients_of_chunk, load_rule
from bpgen.streams import generator

STEP_MS = 0.2  # the most that a step with a weight change may take at B = 1, N = 64
SIZES = {"small": (50, 1, 64), "large": (50, 16, 128), "spiking": (100, 64, 128), "gated": (28, 256, 128)}  # T, B, N
Call = Callable[[], Any]


def rows(threads: int = 1, rounds: int = 15, sizes: Mapping[str, Sequence[int]] = SIZES) -> list[Row]:
    """All of it, at one number of threads; JAX keeps what it was started with, see `bpgen bench`."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        timer = _Timer(threads, rounds)
        for size in ("small", "large"):
            _online(timer, sizes[size])
        _rtrl(timer, sizes["small"])
        for neuron in (LIF(), ALIF()):
            _spiking(timer, neuron, sizes["spiking"])
        for gated in (GRU(), LSTM()):
            _gated(timer, gated, sizes["gated"])
        return timer.rows
    finally:
        torch.set_num_threads(before)


class _Timer:
    """Times contestants that take turns, and keeps the rows."""

    def __init__(self, threads: int, rounds: int) -> None:
        self.threads, self.rounds, self.rows = threads, rounds, list[Row]()

    def __call__(self, calls: Mapping[str, Call], times: int = 1) -> dict[str, float]:
        """ms by name; `times` more rounds for what is short."""
        return shortest(calls, times * self.rounds)

    def row(self, case: str, ms: float, peer: str, peer_ms: float, goal: float | None = None) -> None:
        """Add one."""
        ratio = ms / peer_ms
        self.rows.append(
            Row(case, self.threads, ms, peer, peer_ms, ratio, goal, None if goal is None else ratio <= goal)
        )


def problem(neuron: Neuron, sizes: Sequence[int], dtype: torch.dtype = torch.float32, **options: Any) -> Problem:
    """Squared errors at all steps of random sequences; I = 8, O = 4."""
    T, B, N = sizes
    draws = generator(0, "data")
    network = Network(neuron, 8, N, 4, bias="both", dtype=dtype, **options)
    x, y = (torch.randn(T, B, n, generator=draws, dtype=torch.float64).to(dtype) for n in (8, 4))
    return Problem(network, network.params(), x, y, Loss("mse", "all"))


def rule_call(rule: str, p: Problem) -> Call:
    """A rule's gradient of a whole sequence."""
    bound = load_rule(rule).bind(p.network)
    return torch.no_grad()(lambda: bound.gradients(p))


def chunk_call(rule: str, p: Problem, k: int) -> Call:
    """A rule's gradient of a chunk of k steps, in the middle of a sequence."""
    bound, share = load_rule(rule).bind(p.network), k / p.n_steps
    given = [p.steps(slice(first, first + k)) for first in (0, k)]
    carry, _ = torch.no_grad()(gradients_of_chunk)(bound, given[0], None, {}, ends=False, share=share)
    return torch.no_grad()(lambda: gradients_of_chunk(bound, given[1], carry, {}, ends=False, share=share))


def again(call: Call, times: int) -> Call:
    """A call that many times in a row, as chunk comes after chunk."""

    def calls() -> None:
        for _ in range(times):
            call()

    return calls


def require_equal(ours: Mapping[str, Tensor], theirs: Mapping[str, Any], peer: str) -> None:
    """See that a peer computes the same gradients.

    Raises:
        BpgenError: it does not.
    """
    for name, gradient in theirs.items():
        mine = ours[name].numpy()
        apart = float(np.abs(mine - np.asarray(gradient)).max() / np.abs(mine).max())
        if not apart <= 1e-6:
            raise BpgenError(f"{peer} has another gradient of {name}: by {apart:.1g} of its largest entry.")


def _jax(name: str, rule: str, neuron: Neuron, p: Problem) -> Call:
    """A scan by JAX, seen to be equal on a smaller problem."""
    small = problem(neuron, (12, 3, 10), torch.float64)
    require_equal(rule_call(rule, small)().grads, scan_call(name, small)(), f"JAX's {name}")
    return scan_call(name, p)


def _online(timer: _Timer, sizes: Sequence[int]) -> None:
    """Whole sequences, chunks of ten, and a weight change after every step."""
    neuron = Leaky(0.5, "tanh")
    p, (T, B, N) = problem(neuron, sizes), sizes
    rules = ("snap", "eprop_online", "rflo_online")
    names = {"snap_1": "a trace a synapse", "snap_1_presynaptic": "presynaptic traces"}
    whole = {rule: rule_call(rule, p) for rule in ("three_factor", *rules)}
    whole |= {f"JAX scan, {said}": _jax(name, "snap", neuron, p) for name, said in names.items()}
    parts: dict[str, Call] = {}
    for k in (10, 1):
        parts |= {f"{rule}, {k}": again(chunk_call(rule, p, k), T // 10) for rule in rules}
        parts[f"eager, {k}"] = again(eager_steps(p, k), T // 10)
    ms = timer({**whole, **parts}, 10)
    where = f"B = {B}, N = {N}"
    for rule in rules:
        timer.row(f"{rule}, whole, {where}", ms[rule], "three_factor", ms["three_factor"], 1.3)
    for said in names.values():
        goal = 1.0 if B > 1 and said == names["snap_1"] else None
        timer.row(f"snap, whole, {where}", ms["snap"], f"JAX scan, {said}", ms[f"JAX scan, {said}"], goal)
    for rule in rules:
        timer.row(f"{rule}, chunks of 10, {where}", ms[f"{rule}, 10"], "three_factor", ms["three_factor"], 2.0)
    timer.row(f"snap-1, chunks of 10 in torch calls, {where}", ms["eager, 10"], "three_factor", ms["three_factor"])
    for rule in rules:
        step, calls = (ms[f"{name}, 1"] / (T // 10) for name in (rule, "eager"))
        timer.row(f"{rule}, one step, {where}", step, "eager torch calls alone", calls)
        if B == 1:
            timer.row(f"{rule}, one step, {where}", step, "the most it may take", STEP_MS, 1.0)


def _rtrl(timer: _Timer, sizes: Sequence[int]) -> None:
    neuron = Leaky(0.5, "tanh")
    p, step = problem(neuron, sizes), f"B = {sizes[1]}, N = {sizes[2]}"
    ms = timer({"jax": _jax("rtrl", "rtrl", neuron, p), "rtrl": rule_call("rtrl", p), "step": chunk_call("rtrl", p, 1)})
    timer.row(f"rtrl, whole, {step}", ms["rtrl"], "JAX scan", ms["jax"], 1.2)
    timer.row(f"rtrl, one step, {step}", ms["step"], "a step of the JAX scan", ms["jax"] / sizes[0])


def _spiking(timer: _Timer, neuron: Neuron, sizes: Sequence[int]) -> None:
    p, name = problem(neuron, sizes), type(neuron).__name__
    for rule in ("bptt", "eprop"):
        peer = _jax(f"{name.lower()}_{rule}", rule, neuron, p)
        ms = timer({"jax": peer, "ours": rule_call(rule, p)})
        timer.row(f"{name}, {rule}", ms["ours"], "JAX scan", ms["jax"], 1.0 if name == "LIF" else None)


def _gated(timer: _Timer, neuron: Neuron, sizes: Sequence[int]) -> None:
    """Beside torch's own cells, and Hessian products beside double backward."""
    name = type(neuron).__name__
    small = problem(neuron, (6, 3, 5), torch.float64, autapses=True)
    require_equal(rule_call("bptt", small)().grads, _torch_cell(small)(), f"torch.nn.{name}")
    p = problem(neuron, sizes, autapses=True)
    ms = timer({"torch": _torch_cell(p), "ours": rule_call("bptt", p)})
    timer.row(f"{name}, bptt", ms["ours"], f"torch.nn.{name}", ms["torch"], {"GRU": 1.1, "LSTM": 1.2}[name])
    few = problem(neuron, (sizes[0], min(64, sizes[1]), sizes[2]))
    products = {by: HessianProducts(few, by=by, chunk_size=few.batch) for by in ("roperator", "autograd")}
    v = torch.randn(products["autograd"].size, generator=generator(0, "v"), dtype=torch.float64)
    ms = timer({by: partial(operator, v) for by, operator in products.items()})
    timer.row(f"{name}, a Hessian product", ms["roperator"], "double backward, kept graph", ms["autograd"], 0.85)


def _torch_cell(p: Problem) -> Callable[[], dict[str, Tensor]]:
    """Forward and backward by torch.nn.GRU or torch.nn.LSTM; gradients by the names of the weights."""
    network, w, gru = p.network, p.params, isinstance(p.network.neuron, GRU)
    K, N = network.neuron.n_currents, network.n_rec
    cell = (nn.GRU if gru else nn.LSTM)(network.n_in, N, dtype=p.x.dtype)
    blocks = {n: list(w[n].unflatten(0, (K, N)).unbind(0)) for n in ("W_rec", "W_in", "b_rec")}
    rec, ins = ((0, 1, 3), (0, 1, 2)) if gru else (range(4), range(4))
    bias = [blocks["b_rec"][k] for k in ins]
    extra = [torch.zeros_like(b) for b in bias]
    if gru:
        extra[2] = blocks["b_rec"][3]
    given = ([blocks["W_in"][k] for k in ins], [blocks["W_rec"][k] for k in rec], bias, extra)
    readout = nn.Linear(N, network.n_out, dtype=p.x.dtype)
    with torch.no_grad():
        for weight, parts in zip(cell.parameters(), given, strict=True):
            weight.copy_(torch.cat(parts))
        readout.weight.copy_(w["W_out"])
        readout.bias.copy_(w["b_out"])
    weights = [*cell.parameters(), *readout.parameters()]

    def call() -> dict[str, Tensor]:
        for weight in weights:
            weight.grad = None
        (0.5 * (readout(cell(p.x)[0]) - p.target).square().sum() / p.batch).backward()
        return {"W_out": readout.weight.grad, "b_out": readout.bias.grad, **_named(cell, gru)}  # type: ignore[dict-item]

    return call


def _named(cell: Any, gru: bool) -> dict[str, Tensor]:
    """The gradients of a cell in the layout of a network's weights."""
    W_in, W_rec, b_in, b_rec = (weight.grad for weight in cell.parameters())
    if not gru:
        return {"W_rec": W_rec, "W_in": W_in, "b_rec": b_in}
    n = len(b_in) // 3
    none = torch.zeros_like
    return {
        "W_rec": torch.cat([W_rec[: 2 * n], none(W_rec[:n]), W_rec[2 * n :]]),
        "W_in": torch.cat([W_in, none(W_in[:n])]),
        "b_rec": torch.cat([b_in, b_rec[2 * n :]]),
    }


def table(found: Sequence[Row]) -> str:
    """One line per row."""
    lines = [f"{'work':52}{'threads':>8}{'ms':>10}  {'peer':30}{'ms':>10}{'ratio':>8}"]
    for r in found:
        goal = "" if r.goal is None else f"  ({'<=' if r.met else 'not'} {r.goal:.2f})"
        lines.append(f"{r.case:52}{r.threads:8}{r.ms:10.3f}  {r.peer:30}{r.peer_ms:10.3f}{r.ratio:8.3f}{goal}")
    goals = [r for r in found if r.goal is not None]
    return "\n".join([*lines, "", f"Less is better; goals met: {sum(bool(r.met) for r in goals)} of {len(goals)}."])
