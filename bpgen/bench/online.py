"""Online rules: is their memory flat in time, and does a step cost what theory says?

Memory: a network learns from an endless stream, ten steps a chunk, a weight change after each. At T = 100, 1,000 and
10,000 the bytes of all living tensors are added up (by a walk over Python's objects, less those that lived before the
run), and the chunk that ends there is run under a torch dispatch mode that follows every allocation and release: what
was alive, plus the highest sum of what is allocated on top of it, is the peak. Whatever grew with T would be largest
there. Everything is in it: the rule's and the network's state, the chunk's data, scratch, results. BPTT on the whole
sequence, with its data left out, is the contrast.
Cost: the time of a step, the least of a few, on dense networks of 64, 128 and 256 neurons. Doubling N should multiply
it by 2^p for a rule of cost N^p; where fixed costs per operation still count, the measured exponent is smaller, and
where the state outgrows a cache between two sizes it is larger.
"""

from __future__ import annotations

import gc
import json
import math
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bpgen.losses import Loss
from bpgen.network import Network
from bpgen.neurons import Leaky
from bpgen.problem import Problem
from bpgen.rules import Carry, Rule, RuleGradients, gradients_of_chunk, load_rule
from bpgen.streams import generator
from bpgen.tasks.delayed_recall import DelayedRecall

TIMES, CHUNK, FLAT = (100, 1_000, 10_000), 10, 0.05
SIZES = (64, 128, 256)
ORDERS = {  # rule -> p and B: cost N^p a step; enough samples that a step is more than its fixed costs
    **{rule: (4, 1) for rule in ("rtrl", "ostl")},
    **{rule: (3, 4) for rule in ("kf_rtrl", "sk_rtrl")},
    **{rule: (2, 8) for rule in ("snap", "uoro", "kernl", "dni", "eprop_online", "d_rtrl", "eprop_plus")},
    **{rule: (2, 8) for rule in ("diffusive_eprop_online", "rflo_online", "pp_prop", "ottt", "sltt")},
}
_LOSS = Loss("cross_entropy", "all")


@dataclass(frozen=True)
class Row:
    """One rule. bytes: peaks at `TIMES`; growth: the largest over the smallest, less one; flat: at most 5 %.

    order: p in theory. ms: of a step, at `SIZES`. exponents: measured between neighbours among the sizes.
    """

    rule: str
    bytes: list[int]
    growth: float
    flat: bool
    order: int | None
    ms: list[float]
    exponents: list[float]


def run(
    rules: Sequence[str] = tuple(ORDERS), times: Sequence[int] = TIMES, sizes: Sequence[int] = SIZES, rounds: int = 3
) -> list[Row]:
    """Measure every online rule, and BPTT's memory as the contrast.

    Args:
        rules: names of online rules.
        times: T at which memory is measured, multiples of ten.
        sizes: numbers of neurons at which a step is timed.
        rounds: how often a step is timed; the least counts.
    """
    rows = []
    for name in rules:
        order, batch = ORDERS[name]
        ms = [1e3 * seconds_per_step(name, N, batch, rounds) for N in sizes]
        pairs = zip(zip(sizes, ms, strict=True), zip(sizes[1:], ms[1:], strict=True), strict=False)
        exponents = [math.log(b / a) / math.log(M / N) for (N, a), (M, b) in pairs]
        rows.append(_row(name, peaks(name, times), order, ms, exponents))
    return [*rows, _row("bptt, whole sequence", [peak_of_bptt(T) for T in times], None, [], [])]


def _row(name: str, found: list[int], order: int | None, ms: list[float], exponents: list[float]) -> Row:
    growth = max(found) / min(found) - 1
    return Row(name, found, growth, growth <= FLAT, order, ms, exponents)


def peaks(rule: str | Rule, times: Sequence[int] = TIMES, n_rec: int = 16) -> list[int]:
    """Peak bytes in the chunks of a stream that end at `times`."""
    before = living()
    learner, found = _Learner(rule, n_rec, 1), []
    for t in range(CHUNK, max(times) + 1, CHUNK):
        if t in times:
            found.append(peak_of(learner.chunk, before))
        else:
            learner.chunk()
    return found


def peak_of_bptt(T: int, n_rec: int = 16) -> int:
    """Peak bytes of BPTT on one sequence of T steps, data left out."""
    network, rule = Network(Leaky(0.5, "tanh"), 4, n_rec, 4), load_rule("bptt")
    x, target = torch.randn(T, 1, 4, generator=generator(0, "bench")), torch.zeros(T, 1, dtype=torch.int64)
    problem, before = Problem(network, network.params(), x, target, _LOSS), living()
    return peak_of(lambda: rule.gradients(problem), before)


def seconds_per_step(rule: str, n_rec: int, batch: int, rounds: int) -> float:
    """The least time of a step, over a few chunks of two."""
    learner, least = _Learner(rule, n_rec, batch, steps=2), math.inf
    for _ in range(rounds + 1):
        start = time.perf_counter()
        learner.chunk()
        least = min(least, (time.perf_counter() - start) / 2)
    return least


class _Learner:
    """A network that learns from a stream by plain gradient steps."""

    def __init__(self, rule: str | Rule, n_rec: int, batch: int, steps: int = CHUNK) -> None:
        task = DelayedRecall()
        self.network = Network(Leaky(0.5, "tanh"), task.n_in, n_rec, task.n_out, bias="both", init="sompolinsky1988")
        self.rule = (load_rule(rule) if isinstance(rule, str) else rule).bind(self.network)
        self.params, self.n_chunks, self.steps = self.network.params(), 0, steps
        self.stream = task.stream(batch, 0)
        self.carry: Carry | None = None

    def chunk(self) -> RuleGradients:
        """One chunk and one weight change."""
        x, target, weight = (torch.stack(part) for part in zip(*islice(self.stream, self.steps), strict=True))
        draws = self.rule.draw(self.network, x, generator(0, "draws", self.n_chunks))
        problem = Problem(self.network, self.params, x, target, _LOSS.with_mask(weight))
        with torch.no_grad():
            self.carry, result = gradients_of_chunk(self.rule, problem, self.carry, draws, ends=False, share=1.0)
            self.rule.learn(result.aux)
            self.params = {n: p - 0.01 * result.grads[n] for n, p in self.params.items()}
        self.n_chunks += 1
        return result


def living() -> int:
    """Bytes of all tensors that Python knows, each storage once."""
    gc.collect()  # what waits in a cycle lives no longer
    storages: dict[int, int] = {}
    for thing in gc.get_objects():
        if type(thing) in (Tensor, torch.nn.Parameter) and thing.layout == torch.strided:  # sparse ones have none
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def peak_of(call: Callable[[], Any], before: int) -> int:
    """Peak bytes of living tensors during a call, less those that were there `before`."""
    base = living() - before
    with _Allocations() as allocations:
        call()
    return base + allocations.peak


class _Allocations(TorchDispatchMode):
    """Follows the storages that are made within it: how many bytes of them live, and the most that ever did."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note what it made; views and in-place results share a storage that came before."""
        kwargs = kwargs or {}
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **kwargs)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self._made(tensor.untyped_storage())
        return result

    def _made(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self.alive += size
        self.peak = max(self.peak, self.alive)

        def released(_: Any) -> None:
            self.alive -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, released)


def table(rows: Sequence[Row], times: Sequence[int] = TIMES, sizes: Sequence[int] = SIZES) -> str:
    """One line per rule."""
    head = f"{'rule':22}" + "".join(f"{f'kB at T={T:,}':>16}" for T in times) + f"{'growth':>9}{'theory':>9}"
    lines = [head + "".join(f"{f'ms, N={N}':>12}" for N in sizes) + f"{'measured':>16}"]
    for row in rows:
        line = f"{row.rule:22}" + "".join(f"{b / 1e3:16.1f}" for b in row.bytes) + f"{row.growth:9.1%}"
        line += f"{'' if row.order is None else f'N^{row.order}':>9}" + "".join(f"{ms:12.3f}" for ms in row.ms)
        lines.append(line + f"{', '.join(f'N^{p:.1f}' for p in row.exponents):>16}")
    flat = sum(row.flat for row in rows if row.order)
    lines += ["", f"Memory flat within {FLAT:.0%}: {flat} of {len(rows) - 1} online rules. Times are of one step."]
    return "\n".join(lines)


def to_json(rows: Sequence[Row]) -> str:
    """The rows as a JSON list of objects."""
    return json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False)
