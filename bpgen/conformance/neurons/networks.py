"""Checks of networks of the neuron: the path in place, stacked seeds."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.func import vmap

from bpgen.conformance.compare import assert_apart, assert_same, gap
from bpgen.conformance.neurons.case import SUITE, Case, bptt
from bpgen.problem import Problem


@SUITE.prop(
    "the path in place gives the same numbers",
    "training overwrites buffers by `advance_into` where a neuron is `in_place`; everything else takes f and g.",
    lambda case: "" if case.simple else "it has d = K = 1, or neurons with a way back",
)
def _in_place(case: Case) -> None:
    for from_rest in (False, True):
        p = case.problem(from_rest=from_rest)
        with torch.no_grad():
            fast, general = p.run(in_place=True), p.run(in_place=False)
            names = ("h", "states", "outputs", "currents")
            for name in names:
                distance = gap(getattr(fast, name), getattr(general, name))
                assert distance < 1e-10, f"{name} of the path in place differ by {distance:.2g} from those of f and g."
            assert_same(bptt(p, fast), bptt(p, general), "gradients along the path in place differ")


@SUITE.prop(
    "stacked seeds equal seeds alone",
    "a sweep runs its seeds as one batch under torch.func.vmap; writing into fresh buffers, `.item()` or an `if` on "
    "data breaks that.",
)
def _seeds(case: Case) -> None:
    problems = [case.problem(seed) for seed in (0, 1)]
    shared = problems[0]

    def one(params: dict[str, Tensor], x: Tensor, target: Tensor, start: Tensor) -> dict[str, Tensor]:
        p = replace(shared, params=params, x=x, target=target, initial_state=start)
        return bptt(p, p.run(in_place=False))

    def asked(p: Problem) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        assert p.initial_state is not None
        return dict(p.params), p.x, p.target, p.initial_state

    with torch.no_grad():
        alone = [one(*asked(p)) for p in problems]
        stacked = torch.utils._pytree.tree_map(lambda *pair: torch.stack(pair), *map(asked, problems))
        both = vmap(one)(*stacked)
    assert_apart(alone[0], alone[1], ["W_rec", "W_in"], "another seed")
    for s in (0, 1):
        assert_same({n: g[s] for n, g in both.items()}, alone[s], f"seed {s} in the stack is not seed {s} alone")
