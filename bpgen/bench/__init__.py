"""How fast the rules are: ratios to their peers, in one process, on one model and one batch.

The model is a leaky ReLU network, memoryless (α = 1) or not (α = 0.5), with cross-entropy at the last or at all steps.
A rule is timed through `rule.gradients(...)`, as the trainer calls it. Its peers:
    torch.nn.RNN            forward and backward of the same model by PyTorch's recurrent layer; α = 1 only
    autograd loop           the same model as a time loop under autograd, as the field writes it
    autograd loop, tuned    the same with its input product taken out of the loop
    floor                   the rule's own algorithm as the least sequence of torch calls, on buffers that are kept
Every peer computes the loss of the rule, and a floor its gradient as well; `peers` and `floor` say what exactly each
does. Contestants take turns in random order and the minimum over the rounds counts: on a shared machine times say
little, ratios in one run do.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, TypeVar

import torch

from bpgen.bench.floor import Floor
from bpgen.bench.peers import RULES, Workload, autograd_loop, rule_call, torch_rnn
from bpgen.losses import When

__all__ = ["Row", "run", "shortest", "table", "to_json"]

Key = TypeVar("Key")

FLOOR, RNN, LOOP, TUNED = PEERS = ("floor", "torch.nn.RNN", "autograd loop", "autograd loop, tuned")
WHENS: tuple[When, ...] = ("last", "all")
FLOOR_GOAL = 1.15
GOALS = {  # rule, α, loss at, peer -> the largest ratio wanted, at two threads
    ("bptt", 1.0, "last", RNN): 0.85,
    ("three_factor", 1.0, "all", RNN): 0.65,
    ("rflo", 1.0, "all", RNN): 0.65,
    ("three_factor", 1.0, "last", RNN): 0.30,
    ("bptt", 0.5, "last", LOOP): 0.68,
}


@dataclass(frozen=True)
class Row:
    """One rule against one peer: ratio = ms / peer_ms, and the largest ratio wanted, where one is."""

    case: str
    threads: int
    ms: float
    peer: str
    peer_ms: float
    ratio: float
    goal: float | None
    met: bool | None


def run(
    threads: Iterable[int] = (1, 2),
    rounds: int = 15,
    n_steps: int = 28,
    batch: int = 256,
    n_rec: int = 128,
    n_in: int = 28,
    n_out: int = 10,
) -> list[Row]:
    """Time every built-in rule against every peer.

    Args:
        threads: numbers of torch threads; goals are stated for two.
        rounds: how often each contestant is called; its time is the minimum.
        n_steps: T. The other sizes are B, N, I and O.
        batch: B.
        n_rec: N.
        n_in: I.
        n_out: O.
    """
    rows, before = [], torch.get_num_threads()
    try:
        for n in threads:
            torch.set_num_threads(n)
            for alpha, when in product((1.0, 0.5), WHENS):
                problem = Workload(alpha, when, (n_steps, batch, n_rec, n_in, n_out))
                rows += _rows(problem, n, shortest(contestants(problem), rounds))
    finally:
        torch.set_num_threads(before)
    return rows


def contestants(problem: Workload) -> dict[tuple[str, str], Callable[[], Any]]:
    """What is timed, by rule and peer: (rule, "") is the rule itself, ("", peer) is shared by all rules."""
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    for rule in RULES:
        calls[rule, ""], calls[rule, FLOOR] = rule_call(rule, problem), Floor(rule, problem)
    if problem.alpha == 1:
        calls["", RNN] = torch_rnn(problem)
    calls["", LOOP], calls["", TUNED] = autograd_loop(problem, False), autograd_loop(problem, True)
    return calls


def shortest(calls: Mapping[Key, Callable[[], Any]], rounds: int) -> dict[Key, float]:
    """The shortest time of each call in ms, after one call that does not count; they take turns in random order."""
    for call in calls.values():
        call()
    found = dict.fromkeys(calls, float("inf"))
    for i in range(rounds):
        for key in random.Random(i).sample(list(calls), len(calls)):  # noqa: S311  (an order)
            start = time.perf_counter()
            calls[key]()
            found[key] = min(found[key], 1e3 * (time.perf_counter() - start))
    return found


def _rows(problem: Workload, threads: int, ms: Mapping[tuple[str, str], float]) -> list[Row]:
    rows = []
    for rule, peer in product(RULES, PEERS):
        peer_ms = ms.get((rule, peer), ms.get(("", peer)))
        if peer_ms is None:
            continue
        ratio, goal = ms[rule, ""] / peer_ms, None
        if threads == 2:
            goal = FLOOR_GOAL if peer == FLOOR else GOALS.get((rule, problem.alpha, problem.when, peer))
        case = f"{rule}, α = {problem.alpha:g}, loss at {problem.when}"
        rows.append(
            Row(case, threads, ms[rule, ""], peer, peer_ms, ratio, goal, None if goal is None else ratio <= goal)
        )
    return rows


def table(rows: Sequence[Row]) -> str:
    """One line per case: its time, its ratio to each peer, and the goals that it misses."""
    cases: dict[tuple[int, str], dict[str, Row]] = {}
    for row in rows:
        cases.setdefault((row.threads, row.case), {})[row.peer] = row
    lines, last = [], 0
    for (threads, case), peers in cases.items():
        if threads != last:
            lines += ["", f"{f'threads: {threads}':36}{'ms':>8}" + "".join(f"{peer:>22}" for peer in PEERS)]
            last = threads
        line = f"{case:36}{next(iter(peers.values())).ms:8.2f}"
        lines.append(line + "".join(f"{_cell(peers.get(peer)):>22}" for peer in PEERS))
    goals = [row for row in rows if row.goal is not None]
    missed = [f"{row.case}: {row.ratio:.3f} of {row.peer}, wanted {row.goal:.2f}" for row in goals if not row.met]
    lines += ["", f"Ratios to peers, less is better; goals met: {len(goals) - len(missed)} of {len(goals)}.", *missed]
    return "\n".join(lines[1:])


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    return f"{row.ratio:.3f}" if row.goal is None else f"{row.ratio:.3f} ({'<=' if row.met else 'not'} {row.goal:.2f})"


def to_json(rows: Sequence[Row]) -> str:
    """The rows as a JSON list of objects."""
    return json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False)
