"""The check of online rules that take many steps at once: a fast path is a shorter way to the same numbers."""

from __future__ import annotations

from dataclasses import replace

import torch

from bpgen.conformance.check import Inapplicable
from bpgen.conformance.compare import assert_same
from bpgen.conformance.problem import neurons
from bpgen.conformance.rules.case import Case, ask, draws_of, prop, steps_are_no_gradients
from bpgen.problem import Problem
from bpgen.rules.base import Draws, as_rules_see_it
from bpgen.rules.online import OnlineRule


@prop(
    "many steps at once equal step after step",
    "`block` is a shorter way to the same sums: gradient and state after it are those of `step`.",
    lambda t: steps_are_no_gradients(t) or ("" if t.online else "its traits say that it is not online"),
)
def _block(case: Case) -> None:
    compared = 0
    for name, neuron in neurons().items():
        if not case.defined_for(name):
            continue
        for kappa in (0.0, 0.5):
            try:
                p = case.accepts(neuron, trainable_initial_state=True, kappa=kappa)
            except Inapplicable:
                continue
            rule = case.bound(p)
            if not isinstance(rule, OnlineRule) or not rule.at_once:
                raise Inapplicable("it has no `block`")
            compared += 1
            for batch in range(2):  # a rule that learns has learned something
                rule.learn(ask(rule, p, draws_of(rule, p, batch)).aux)
            with torch.no_grad():
                _same_at_once(rule, as_rules_see_it(p), draws_of(rule, p), f"on {name}, κ = {kappa:g}")
    if not compared:
        raise Inapplicable("no neuron of the suite is in its traits")


class StepByStep(OnlineRule):
    """A rule without its `block`."""

    def __init__(self, rule: OnlineRule) -> None:
        super().__init__()
        self.step = rule.step  # type: ignore[method-assign]
        self.start = rule.start  # type: ignore[method-assign]


def _same_at_once(rule: OnlineRule, p: Problem, draws: Draws, where: str) -> None:
    """Blocks at the start, in the middle and of the whole against single steps; blocks with errors late or never."""
    carry, late = rule.begin(p), p
    if p.loss.mask is not None:
        mask = torch.cat([torch.zeros_like(p.loss.mask[:5]), p.loss.mask[5:]])
        late = replace(p, loss=p.loss.with_mask(mask))
    parts = ((p, 0, 3), (p, 3, 7), (p, 0, 7), (late, 0, 7))
    for i, (at, first, last) in enumerate(parts):
        part, ends = slice(first, last), i > 1
        here = at.steps(part)
        drawn = {name: draw[part] for name, draw in draws.items()}
        before = carry if first else rule.begin(p)
        steps = f"steps {first + 1} to {last}"
        after, slow = StepByStep(rule).advance(here, before, drawn, ends)
        carry, fast = rule.advance(here, before, drawn, ends)
        assert_same(fast.grads, slow.grads, f"{where}, {steps} at once differ", 1e-12)
        if slow.aux:
            assert_same(fast.aux, slow.aux, f"{where}, what {steps} at once teach differs", 1e-12)
        if not ends:
            assert_same(carry.state, after.state, f"{where}, the state after {steps} at once differs", 1e-12)
