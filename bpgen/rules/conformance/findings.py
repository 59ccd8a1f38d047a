"""What the suite finds out about a rule by itself: where it equals BPTT, which rule is next to it, what it learns.

None of it passes or fails: it is for the author, above all where the traits claim nothing that could be checked.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bpgen.errors import BpgenError
from bpgen.problem import Problem
from bpgen.registry import plugins
from bpgen.rules.api import load_rule
from bpgen.rules.base import Rule
from bpgen.rules.conformance.case import Case, Inapplicable
from bpgen.rules.conformance.limits import without_recurrence
from bpgen.rules.conformance.problem import RECURRENT, ask, gap

PLACES: dict[str, Callable[[Problem], Problem]] = {
    "always": lambda p: p,
    "W_rec = 0": without_recurrence,
    "T = 1": lambda p: p.steps(slice(1)),
}
NOT_LOCAL = ("random_gradient", "weight_perturbation", "node_perturbation", "reinforce", "rmhl", "force", "hebbian")


@dataclass(frozen=True)
class Comparison:
    """A rule's gradient of the recurrent weights against another on one problem.

    name: the place, or the other rule. difference: ‖ĝ - g‖/‖g‖. cosine: between the two.
    """

    name: str
    difference: float
    cosine: float

    @property
    def equal(self) -> bool:
        """Whether the two are the same to rounding."""
        return self.difference < 1e-9


def limits_of(case: Case) -> list[Comparison]:
    """The rule against BPTT in the common limits, its feedback weights set to W_out; none where it cannot be asked."""
    if case.traits.stochastic or case.traits.update == "step":
        return []
    try:
        p = case.problem()
    except Inapplicable:
        return []
    found = []
    for name, cut in PLACES.items():
        rule = case.with_symmetric_feedback(p)
        q = cut(case.at_its_weights(rule, p))
        got = ask(case.with_symmetric_feedback(q), q).grads
        found.append(_comparison(name, got, q.gradient()))
    return found


def nearest_rule(case: Case) -> Comparison | None:
    """The installed rule whose gradient is most alike on a generic problem with recurrent weights, by its cosine."""
    if case.traits.stochastic or case.traits.update == "step":
        return None
    try:
        p = case.problem()
        own = ask(case.bound(p), p).grads
    except Inapplicable:
        return None
    found = []
    for name in plugins("rule"):
        if name == case.name or name in NOT_LOCAL:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                other: Rule = load_rule(name).bind(p.network)
                if not other.traits.stochastic and other.traits.update == "gradient":
                    found.append(_comparison(name, own, ask(other, p).grads))
        except BpgenError:
            continue  # broken, or not defined here
    return max(found, key=lambda c: c.cosine, default=None)


def learned(case: Case, batches: int = 3) -> dict[str, float]:
    """How far `learn` moves each of the rule's tensors in a few batches: ‖new - old‖/‖old‖, or ‖new‖ from zero."""
    p = case.problem()
    rule = case.bound(p)
    before = {name: value.clone() for name, value in rule.state_dict().items()}
    for _ in range(batches):
        rule.learn(ask(rule, p).aux)
    moved = {}
    for name, value in rule.state_dict().items():
        old = before[name].double()
        by, size = float((value.double() - old).norm()), float(old.norm())
        if by > 0:
            moved[name] = by / size if size > 0 else by
    return moved


def _comparison(name: str, got: dict[str, Tensor], expected: dict[str, Tensor]) -> Comparison:
    one, other = (torch.cat([grads[n].flatten() for n in RECURRENT if n in grads]) for grads in (got, expected))
    sizes = float(one.norm() * other.norm())
    return Comparison(name, gap(one, other), float(one @ other) / sizes if sizes > 0 else 0.0)


def unchecked(case: Case) -> str:
    """Which kinds of correctness no check could look at, and what to declare; empty where the claims cover them."""
    limit = case.traits.limit
    if limit.at or case.traits.update == "step" or (limit.on_average and case.traits.unbiased):
        return ""
    return (
        f"NOT CHECKED: whether the gradient is right. exact_when={str(limit)!r} names no place where the rule equals "
        "BPTT, so that nothing knew what its feedback, slope, timing, gain and leak should be: a shifted eligibility "
        "trace or a missing leak would pass."
    )


def advice(tried: list[Comparison], near: Comparison | None) -> list[str]:
    """What was found, as sentences for the author."""
    lines = []
    for c in tried:
        if c.equal:
            lines.append(
                f'It equals BPTT {_where(c.name)}: declare exact_when="{c.name}", and that is checked in full.'
            )
            break  # what holds always holds in every limit
        lines.append(
            f"{_where(c.name).capitalize()} it differs from BPTT by {c.difference:.0%} (cosine {c.cosine:.3f})."
        )
    if near is not None:
        same = "equals" if near.equal else f"is nearest to (cosine {near.cosine:.3f})"
        lines.append(f"On a generic problem its recurrent gradient {same} that of {near.name}.")
    if tried and not any(c.equal for c in tried):
        lines.append(
            'If it is meant to keep each neuron\'s own path, declare exact_when="W_rec = 0" ("... with symmetric '
            'feedback" for random feedback): the check that fails then names the mistake.'
        )
    return lines


def _where(place: str) -> str:
    return place if place == "always" else f"at {place}"


__all__ = ["Comparison", "advice", "learned", "limits_of", "nearest_rule", "unchecked"]
