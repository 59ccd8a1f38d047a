"""What the suite finds out about a rule by itself, and what it could not check; none of it passes or fails.

For the author: where it equals BPTT, what would be wrong first if it claimed to, which rule is next, what it learns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bpgen.conformance.check import Outcome
from bpgen.conformance.compare import gap
from bpgen.conformance.problem import RECURRENT
from bpgen.conformance.rules.case import SUITE, Case, ask
from bpgen.conformance.rules.limits import without_recurrence
from bpgen.errors import BpgenError
from bpgen.problem import Problem
from bpgen.registry import plugins
from bpgen.rules.api import load_rule
from bpgen.rules.base import Rule
from bpgen.rules.traits import Limit

PLACES: dict[str, Callable[[Problem], Problem]] = {
    "always": lambda p: p,
    "W_rec = 0": without_recurrence,
    "T = 1": lambda p: p.steps(slice(1)),
}
NOT_LOCAL = ("random_gradient", "weight_perturbation", "node_perturbation", "reinforce", "rmhl", "force", "hebbian")
AT_ONE_STEP = "equals BPTT at T = 1, on every neuron"
IN_FULL = "equals BPTT with recurrent weights, in the limit it claims"
_NO_CLAIM = "its traits do not claim it"
AS_A_WHOLE = ("equals BPTT at W_rec = 0, on every neuron", IN_FULL, "its mean over draws is the true gradient")


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


class Examined(Case):
    """A rule under examination, with what is found out about it."""

    def remarks(self, outcomes: Mapping[str, Outcome]) -> list[str]:
        """See the module."""
        return remarks(self, outcomes)


def remarks(case: Case, outcomes: Mapping[str, Outcome]) -> list[str]:
    """What was found, as sentences, and, last and loudly, what was not checked."""
    try:
        moved = learned(case) if case.traits.learns else {}
    except KeyboardInterrupt:
        raise
    except BaseException:  # what it raises, as its checks have said
        moved = {}
    lines = [f"It learns {name}, which three batches moved by {by:.2g} of its size." for name, by in moved.items()]
    lines += alignment_of_feedback(case) if moved else []
    warning = unchecked(case, outcomes)
    if warning.startswith("NOT CHECKED"):
        lines += advice(case)
    return [*lines, warning] if warning else lines


def unchecked(case: Case, outcomes: Mapping[str, Outcome]) -> str:
    """Which kinds of correctness no check could look at; empty where the checks that passed or failed cover them."""

    def looked(*names: str) -> bool:
        return any(name in outcomes and outcomes[name].status in ("pass", "fail") for name in names)

    traits, limit = case.traits, case.traits.limit
    if traits.update == "step":
        return (
            "NOT CHECKED: whether its updates are right. Finished steps are no gradients, and the suite has nothing to "
            "compare them with: test them against a slow implementation of your own."
        )
    if not looked(*AS_A_WHOLE, AT_ONE_STEP):
        reasons = {o.message for n, o in outcomes.items() if n in (*AS_A_WHOLE, AT_ONE_STEP) and o.status == "skipped"}
        why = "; ".join(sorted(reasons - {_NO_CLAIM})) if limit.at else f"traits.exact_when is {str(limit)!r}"
        return (
            f"NOT CHECKED: WHETHER THE GRADIENT IS RIGHT. No check could compare it with BPTT ({why}), so nothing knew "
            "what its feedback, slope, timing, gain and leak should be: a shifted eligibility trace or a missing leak "
            "would have passed. Declare in traits.exact_when the weakest limit in which it equals BPTT."
        )
    if not looked(*AS_A_WHOLE):
        return (
            "CHECKED IN PART ONLY: at T = 1 there is nothing to remember. Whether traces are of the right step and "
            "leak as the neuron does was NOT CHECKED."
        )
    if traits.exact_with and limit.at and ("by its options" in limit.at if looked(IN_FULL) else not limit.in_full):
        with_options = ", ".join(f"{name}={value}" for name, value in traits.exact_with.items())
        return f"CHECKED IN PART ONLY: it was compared with BPTT under {with_options} alone, not as it is used."
    if not looked(IN_FULL) and not traits.unbiased and traits.recurrence in ("sparse", "coupled"):
        return (
            f"CHECKED IN PART ONLY: its credit crosses recurrent weights (recurrence={traits.recurrence!r}), and at "
            "W_rec = 0, where it was compared with BPTT, there are none."
        )
    return ""


def advice(case: Case) -> list[str]:
    """Where it equals BPTT, what would be wrong first, and which rule is next to it, as sentences for its author."""
    if case.traits.stochastic or case.traits.update == "step":
        return []
    try:
        tried, near, wrong = limits_of(case), nearest_rule(case), first_wrong(case)
    except KeyboardInterrupt:
        raise
    except BaseException:  # not applicable; or what it raises, as its checks have said
        return []
    lines = []
    for c in tried:
        where = c.name if c.name == "always" else f"at {c.name}"
        if c.equal:
            claim = f"{c.name} with symmetric feedback" if case.has_own_feedback() else c.name
            but = " There is nothing to remember yet, so that this says nothing of its memory." * (c.name == "T = 1")
            lines.append(f'It equals BPTT {where}: declare exact_when="{claim}".{but}')
            break  # what holds always holds in every limit
        where = "With recurrent weights" if c.name == "always" else where[0].upper() + where[1:]
        lines.append(f"{where} it differs from BPTT by {c.difference:.0%} (cosine {c.cosine:.3f}).")
    if near is not None:
        same = "equals" if near.equal else f"is nearest (cosine {near.cosine:.3f}) to"
        lines.append(f"On a generic problem its recurrent gradient {same} that of {near.name}.")
    if wrong is not None:
        name, message = wrong
        meant = 'IF IT IS MEANT TO KEEP EACH NEURON\'S OWN PATH (exact_when="W_rec = 0"), IT IS WRONG'
        lines.append(f"{meant}: {name!r} would fail first: {message}")
    return lines


def limits_of(case: Case) -> list[Comparison]:
    """The rule against BPTT in the common limits, its feedback weights set to W_out."""
    p = case.problem()
    found = []
    for name, cut in PLACES.items():
        rule = case.with_symmetric_feedback(p)
        q = cut(case.at_its_weights(rule, p))
        got = ask(case.with_symmetric_feedback(q), q).grads
        found.append(_comparison(name, got, q.gradient()))
    return found


def first_wrong(case: Case) -> tuple[str, str] | None:
    """The first check, with its message, that the rule would fail if it claimed to be exact at W_rec = 0."""
    limit = Limit(("W_rec = 0",), symmetric_feedback=case.has_own_feedback())
    claim = replace(case, claimed=replace(case.traits, exact_when=limit))
    for check in SUITE.plan(claim):
        if check.examine.__module__.endswith((".ingredients", ".limits")):
            outcome = check.run()
            if outcome.status == "fail":
                return check.name, outcome.message
    return None


def nearest_rule(case: Case) -> Comparison | None:
    """The installed rule whose gradient is most alike on a generic problem with recurrent weights, by its cosine."""
    p = case.problem()
    own = ask(case.bound(p), p).grads
    found = []
    known = plugins("rule")
    itself = known[case.name].same_as or case.name if case.name in known else case.name
    for name, plugin in known.items():
        if name == itself or plugin.same_as or name in NOT_LOCAL:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                other: Rule = load_rule(name)
                other.bind(p.network)
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


def alignment_of_feedback(case: Case, batches: int = 30, lr: float = 0.02) -> list[str]:
    """Whether learned feedback comes to point along W_out while gradient descent changes W_out, as sentences.

    Feedback is what has the readout's shape, or its transpose. Of anything else that a rule learns nobody but its
    author knows where it should go.
    """
    p = case.problem()
    rule, W = case.bound(p), p.params["W_out"]
    before = {name: value.clone() for name, value in rule.state_dict().items()}
    for _ in range(batches):
        result = ask(rule, p)
        rule.learn(result.aux)
        p = p.at(W_out=p.params["W_out"] - lr * result.grads["W_out"])
    lines, new_W = [], p.params["W_out"]
    shapes, others = (W.shape, W.T.shape), []
    for name, new in rule.state_dict().items():
        old = before[name]
        if torch.equal(old, new):
            continue
        if new.shape not in shapes:
            others.append(name)
            continue
        old, new = (B if B.shape == W.shape else B.T for B in (old, new))
        along = _cosine(new - old, new_W - W)
        lines.append(
            f"{name} against W_out: cosine {_cosine(old, W):.3f} before and {_cosine(new, new_W):.3f} after {batches} "
            f"batches; what it learned against what W_out learned: {along:.3f}."
        )
        if along < 0:
            lines.append(f"SUSPICIOUS: {name} learns AWAY from W_out. Is a sign in `learn` wrong?")
    if others:
        lines.append(f"NOT CHECKED: whether `learn` moves {', '.join(others)} the right way.")
    return lines


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.cosine_similarity(one.flatten(), other.flatten(), dim=0))


def _comparison(name: str, got: dict[str, Tensor], expected: dict[str, Tensor]) -> Comparison:
    one, other = (torch.cat([grads[n].flatten() for n in RECURRENT if n in grads]) for grads in (got, expected))
    sizes = float(one.norm() * other.norm())
    return Comparison(name, gap(one, other), float(one @ other) / sizes if sizes > 0 else 0.0)
