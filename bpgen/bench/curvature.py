"""How fast curvature is: Hessian products and λ_1 against double backward and PyHessian, in one run.

Network, contestants and the truth are those of `bpgen.bench.eigensolvers`, compared at the same true relative error of
1e-4, each at the largest of its tolerances 10^(-k/2), k = 2..16, that attains this error; over a run one tolerance that
attains it at every evaluation, since nobody can tell in advance which needs less. Products and the worst error of the
timed calls stand beside the tolerance.
A warm start as safe as a cold one saves nothing (`bpgen.curvature.eigenpairs`), so the run is measured cold too. What
an unsafe one could save at most stands beside it (`limit_rows`).
Contestants take turns, minima count. Memory is what the process holds after collecting cycles and handing free memory
back to the system, after the evaluations less before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from bpgen.bench import Row
from bpgen.bench.eigensolvers import ERROR, Contestant, Found, Trained, ours, theirs, tolerance_for, trained, truth
from bpgen.bench.memory import growth
from bpgen.curvature import HessianProducts, lanczos
from bpgen.curvature.products import By
from bpgen.streams import generator

GOALS = {"product": 0.85, "cold": 0.30, "run": 0.15}
MEMORY_GOAL = 20.0  # MiB


def rows(threads: int = 2, rounds: int = 5, evaluations: int = 40, steps: int = 2000, **sizes: int) -> list[Row]:
    """Rows for one product (α = 1 and 0.5), λ_1 at the end of a run, and λ_1 at all evaluations of it."""
    found, before = [], torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for alpha in (0.5, 1.0):
            long = alpha == 1  # the other network is there for the cost of a product alone
            t = trained(alpha, evaluations if long else 1, steps if long else max(1, steps // 4), **sizes)
            found.append(_product_row(t, alpha, threads, 2 * rounds))
        exact = [truth(t, params) for params in t.weights]
        found.append(_eigenvalue_row(t, exact, 1, threads, rounds, GOALS["cold"]))
        found.append(_eigenvalue_row(t, exact, len(exact), threads, 1, GOALS["run"]))
        found += limit_rows(t, exact, threads, found[-1])
    finally:
        torch.set_num_threads(before)
    return found


def _eigenvalue_row(t: Trained, exact: list[float], n: int, threads: int, rounds: int, goal: float) -> Row:
    """λ_1 at the last n weights, each contestant at one tolerance of its own for all of them."""
    finders: dict[str, Contestant] = {"ours": ours, "PyHessian": theirs}
    tols = {name: tolerance_for(find, t, n, exact) for name, find in finders.items()}
    products, worst = dict.fromkeys(finders, 0), dict.fromkeys(finders, 0.0)
    ms = dict.fromkeys(finders, 0.0)
    for params, value in zip(t.weights[-n:], exact[-n:], strict=True):
        got: dict[str, Found] = {}

        def call(name: str, got: dict[str, Found] = got, params: dict[str, Tensor] = params) -> None:
            got[name] = finders[name](t, params, tols[name])

        turn = fastest({name: partial(call, name) for name in finders}, rounds)
        for name, one in got.items():
            ms[name] += turn[name]
            products[name] += one.products
            worst[name] = max(worst[name], abs(one.value / value - 1))
    said = {name: f"tol {tols[name]:.0e}, {products[name]} products, error {worst[name]:.0e}" for name in finders}
    case = f"λ_1 {'cold' if n == 1 else f'at {n} evaluations'}, {said['ours']}"
    return _row(case, threads, ms["ours"], f"PyHessian, {said['PyHessian']}", ms["PyHessian"], goal)


def _product_row(t: Trained, alpha: float, threads: int, rounds: int) -> Row:
    v = torch.randn(t.network.n_rec * (t.network.n_rec - 1), generator=generator(0, "v"), dtype=torch.float64)
    by = {name: HessianProducts(t.problem(t.weights[-1]), chunk_size=t.x.shape[1], by=name) for name in get_args(By)}
    ms = fastest({name: partial(operator, v) for name, operator in by.items()}, rounds)
    case = f"one product, α = {alpha:g}"
    return _row(case, threads, ms["roperator"], "double backward, kept graph", ms["autograd"], GOALS["product"])


def limit_rows(t: Trained, exact: list[float], threads: int, peer: Row) -> list[Row]:
    """λ_1 at all evaluations by somebody who knows it, and stops the search at the error asked.

    Cold from a random vector; warm from the top eigenvector of the evaluation before, which is trusted here, so that a
    crossing of eigenvalues would go unnoticed.
    """
    products, ms = dict.fromkeys(("cold", "warm"), 0), dict.fromkeys(("cold", "warm"), 0.0)
    random, overlaps = generator(0, "limit"), list[float]()
    before: Tensor | None = None
    for params, value in zip(t.weights, exact, strict=True):
        operator = HessianProducts(t.problem(params))
        cold = torch.randn(operator.size, generator=random, dtype=torch.float64)
        for name, start in (("cold", cold), ("warm", cold if before is None else before)):
            began = time.perf_counter()
            operator = HessianProducts(t.problem(params))  # the base pass is part of the search
            products[name] += _fewest(operator, start, value)
            ms[name] += 1e3 * (time.perf_counter() - began)
        u = lanczos(operator, tol=1e-3).vectors[0]
        overlaps += [] if before is None else [abs(float(u @ before))]
        before = u
    overlap = sum(overlaps) / max(1, len(overlaps))
    said = {"cold": "cold", "warm": f"from the eigenvector before (overlap {overlap:.2f})"}
    return [
        _row(
            f"limit: knows when to stop, {said[name]}, {products[name]} products",
            threads,
            ms[name],
            peer.peer,
            peer.peer_ms,
            GOALS["run"],
        )
        for name in said
    ]


def _fewest(operator: HessianProducts, start: Tensor, exact: float, most: int = 100) -> int:
    """Products after which the largest Ritz value of the Krylov space of `start` is near enough."""
    Q, images = (start / start.norm()).unsqueeze(0), start.new_empty(0, len(start))
    for m in range(1, most + 1):
        images = torch.cat([images, operator(Q[-1]).unsqueeze(0)])
        if abs(torch.linalg.eigvalsh(images @ Q.mT)[-1].item() / exact - 1) <= ERROR:
            return m
        new = images[-1]
        for _ in range(2):
            new = new - (Q @ new) @ Q
        Q = torch.cat([Q, new.unsqueeze(0) / new.norm()])
    return most


def fastest(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The shortest time of each call in ms, taking turns; the first turn does not count where there are several."""
    shortest = dict.fromkeys(calls, float("inf"))
    for i in range(rounds + (rounds > 1)):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if i > 0 or rounds == 1:
                shortest[name] = min(shortest[name], 1e3 * (time.perf_counter() - began))
    return shortest


def _row(case: str, threads: int, ms: float, peer: str, peer_ms: float, goal: float) -> Row:
    return Row(case, threads, ms, peer, peer_ms, ms / peer_ms, goal, ms / peer_ms <= goal)


def memory_growth(evaluations: int = 200, warm_ups: int = 20, **sizes: int) -> dict[str, float]:
    """MiB by which resident memory grows over that many evaluations of a few products each, by backend; Linux only."""
    t = trained(1.0, 1, 20, **sizes)
    backends: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(t, t.weights[0], 1e-12, max_products=3),
        "PyHessian": lambda: theirs(t, t.weights[0], 1e-12, max_iterations=3),
    }
    return {name: growth(evaluate, evaluations, warm_ups) for name, evaluate in backends.items()}


def table(found: list[Row], grown: dict[str, float]) -> str:
    """One line per row, then memory."""
    lines = [f"{'curvature':66}{'threads':>8}{'ms':>10}{'peer':>62}{'ms':>10}{'ratio':>8}"]
    for r in found:
        goal = f"  ({'<=' if r.met else 'not'} {r.goal:.2f})"
        lines.append(f"{r.case:66}{r.threads:8}{r.ms:10.1f}{r.peer:>62}{r.peer_ms:10.1f}{r.ratio:8.3f}{goal}")
    for name, MiB in grown.items():
        goal = f"({'<' if MiB < MEMORY_GOAL else 'not <'} {MEMORY_GOAL:g})"
        lines.append(f"memory growth over 200 evaluations, {name}: {MiB:.1f} MiB {goal}")
    return "\n".join(lines)


def to_json(found: list[Row], grown: dict[str, float]) -> str:
    """Rows and memory growth in MiB by backend as one JSON object."""
    return json.dumps({"rows": [asdict(row) for row in found], "memory_growth": grown}, indent=1, ensure_ascii=False)
