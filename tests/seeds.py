"""Seeds stacked in one network by `torch.func.vmap` are the seeds alone."""

from __future__ import annotations

import torch
from torch.func import vmap

from bpgen.losses import Loss
from bpgen.rules import load_rule
from tests.oracles import WEIGHTS, Grads, Problem, asked, assert_differ, assert_equal, randn


def assert_seeds_stack(p: Problem, rule_name: str) -> None:
    """The problem's weights and others near them give the same gradients together and one by one, and not each other's.

    The loss is the squared error at all steps; structure and neurons are shared by the seeds.
    """
    rule, loss = load_rule(rule_name).bind(p.network), Loss("mse", "all")
    first = p.network.params()
    seeds = [first, {n: w + 0.3 * randn(i, *w.shape) for i, (n, w) in enumerate(first.items())}]

    def gradients(params: Grads) -> Grads:
        grads: Grads = rule.gradients(*asked(p.network, params, p.x, p.target, loss, {"initial_state": p.s_0})).grads
        return grads

    stacked = vmap(gradients)({n: torch.stack([s[n] for s in seeds]) for n in WEIGHTS})
    for i, params in enumerate(seeds):
        assert_equal({n: g[i] for n, g in stacked.items()}, gradients(params), WEIGHTS)
    assert_differ({n: g[0] for n, g in stacked.items()}, {n: g[1] for n, g in stacked.items()}, WEIGHTS)
