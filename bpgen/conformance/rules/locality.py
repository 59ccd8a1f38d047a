"""The locality audit: what the update of one synapse depends on, measured, beside what the rule's traits say.

Everything that a synapse's own two neurons i and j have is held fixed: their currents, states and activities, the
inputs, the error at the outputs, the rule's draws and what it has learned. Then one thing is changed, and the updates
are looked at that may depend on i and j alone: of the synapses between them and of the inputs to them.
    other synapses           all other weights W_rec and W_in; noise in the currents makes up for what they deliver
    other neurons' states    the currents of all other neurons; i and j are kept as they were by noise
    readout weights          the sizes of W_out, signs kept; the target makes up for it
An update that changes by one factor for all these synapses follows a number that is told to all of them, such as the
loss of a perturbed run: it is broadcast, and called so.
    later errors             the error of one step t alone, in each direction of the outputs. The updates of neuron i's
                             synapses that it makes are a matrix [O, synapses], whose rank R_t is the number of traces a
                             synapse would have to keep of its past to do without them later: 1 for an eligibility trace
                             times a learning signal. If R_t grows with t, no such trace will do, and the error goes
                             back in time, or, in a rule that is written forward in time (`OnlineRule`), is met by
                             sensitivities to other neurons.
The question of where signals come from is Ororbia's (2023, arXiv 2312.09257); the measurement is ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from bpgen.conformance.check import Inapplicable
from bpgen.conformance.problem import randn
from bpgen.conformance.rules.case import Case, ask, draws_of
from bpgen.conformance.rules.clamped import other_neurons, other_readout, other_synapses
from bpgen.errors import BpgenError
from bpgen.problem import Problem
from bpgen.registry import find
from bpgen.rules.api import load_rule
from bpgen.rules.base import Rule, RuleGradients
from bpgen.rules.online import OnlineRule
from bpgen.rules.traits import Traits

Answer = Literal["no", "yes", "broadcast"]
STORED = "locality.json"
_MEASURES = {
    "needs_future": ("later errors",),
    "recurrence": ("other synapses", "other neurons' states"),
    "weight_transport": ("readout weights",),
}
I, N, O, T = 4, 6, 6, 8
PAIRS = ((0, 1), (2, 3), (4, 5))
STEPS = (3, 5, 8)  # those whose error comes alone
_SAME, _RANK = 1e-8, 1e-10


@dataclass(frozen=True)
class Dependence:
    """What was measured of one thing that an update may depend on.

    on: the thing. declared: whether the traits say so. measured: the answer. by: the largest relative change of an
    update; with later errors, 0. traces: R_t at `STEPS`, with later errors alone.
    """

    on: str
    declared: bool
    measured: Answer
    by: float = 0.0
    traces: tuple[int, ...] = ()

    @property
    def denied(self) -> bool:
        """Whether the rule says it is local here, and is not."""
        return self.measured == "yes" and not self.declared

    @property
    def agrees(self) -> bool:
        """Whether it is as declared; what is broadcast is no knowledge of the others."""
        return (self.measured == "yes") == self.declared


@dataclass(frozen=True)
class Audit:
    """A rule's audit: its dependences, or why there are none to measure."""

    rule: str
    cls: str
    found: tuple[Dependence, ...] = ()
    reason: str = ""

    def plain(self) -> dict[str, Any]:
        """As it is stored."""
        if self.reason:
            return {"class": self.cls, "not measured": self.reason}
        measured = {d.on: d.measured for d in self.found}
        return {"class": self.cls, "measured": measured, "traces": [t for d in self.found for t in d.traces]}


def audit(rule: str | type[Rule], options: Mapping[str, Any] = MappingProxyType({})) -> Audit:
    """Measure what an update of a rule depends on.

    Args:
        rule: its name, FILE.py:Class, or its class.
        options: of its constructor.

    Raises:
        BpgenError: an unknown rule or option.
    """
    if isinstance(rule, str):
        name, first = find("rule", rule).name, load_rule(rule, **options)
        case = Case(name, lambda **given: load_rule(name, **given), type(first), options, first.traits)
    else:
        name, case = rule.__name__, Case(rule.__name__, rule, rule, options, rule(**options).traits)
    cls = f"{case.cls.__module__}:{case.cls.__qualname__}"
    try:
        return Audit(name, cls, _measured(case))
    except (Inapplicable, BpgenError) as reason:
        return Audit(name, cls, reason=str(reason))


def _measured(case: Case) -> tuple[Dependence, ...]:
    if case.traits.signal_origin == "local readouts":
        raise Inapplicable("it compares readouts of its own with the targets, which cannot be held fixed from outside.")
    p = case.problem(sizes=(I, N, O), T=T, B=1)
    if (p.loss.kind, p.loss.when) != ("mse", "all"):
        raise Inapplicable("it takes no squared errors at all steps, whose targets could hold the error fixed.")
    rule = case.bound(p)
    for batch in range(3):  # a synthesiser or baseline that knows nothing yet depends on nothing
        other = replace(p, x=randn(95 + batch, *p.x.shape))
        rule.learn(ask(rule, other, draws_of(rule, other, batch)).aux)
    look = _Look(rule, p, _eventful_draws(rule, p))
    if not torch.allclose(ask(rule, p, look.draws).outputs, p.outputs()):
        raise Inapplicable("its updates are made of noisy runs of its own, which cannot be held fixed from outside.")
    if not ask(rule, p, look.draws).grads["W_rec"].any():
        raise Inapplicable("it leaves W_rec as it is: there is no update of a synapse between two neurons.")
    said, traces = _declared(case.traits), look.traces()
    back = traces[-1] > traces[0] and not isinstance(rule, OnlineRule)
    found = [Dependence("later errors", said["later errors"], "yes" if back else "no", 0.0, traces)]
    for on, change in _CHANGES.items():
        found.append(Dependence(on, said[on], *look.after(change)))
    return tuple(found)


def _eventful_draws(rule: Rule, p: Problem) -> dict[str, Tensor]:
    """Draws with something in all of them, where they may be rare events."""
    for seed in range(200):
        draws = draws_of(rule, p, seed)
        if all(bool(draw.any()) for draw in draws.values()):
            break
    return draws


def _declared(traits: Traits) -> dict[str, bool]:
    crosses = traits.recurrence not in ("none", "diagonal")
    return {
        "later errors": traits.needs_future,
        "other synapses": crosses,
        "other neurons' states": crosses,
        "readout weights": traits.weight_transport,
    }


class _Look:
    """A rule's updates under changes of a problem."""

    def __init__(self, rule: Rule, p: Problem, draws: Mapping[str, Tensor]) -> None:
        self.rule, self.p, self.draws = rule, p, draws
        self.currents = p.run(in_place=False).currents[1:]  # [T,B,K,N]

    def after(self, change: Any) -> tuple[Answer, float]:
        """The answer about one change, and the largest relative change of an update."""
        answers: list[Answer] = ["no"]
        largest = seen = 0.0
        for pair in PAIRS:
            q = change(self.p, self.currents, pair)
            before, after = (_own(ask(self.rule, r, self.draws), r, pair) for r in (self.p, q))
            seen = max(seen, _apart(*(_own_of(r.gradient(), r, pair) for r in (self.p, q))))
            by = _apart(before, after)
            if by > _SAME:
                factor = float(after @ before) / max(float(before @ before), 1e-300)
                answers.append("broadcast" if _apart(factor * before, after) < 1e-6 else "yes")
            largest = max(largest, by)
        if seen < 1e-4:
            raise Inapplicable("not even BPTT's updates change on these neurons, so that nothing can be seen.")
        return ("yes" if "yes" in answers else answers[-1]), largest

    def traces(self) -> tuple[int, ...]:
        """R_t at `STEPS`: the most that any neuron needs."""
        return tuple(max(self._traces_at(step, i) for i in range(N)) for step in STEPS)

    @cache  # noqa: B019  (as short-lived as the audit)
    def _updates_at(self, step: int) -> Tensor:
        """Updates [O,K·N,N+I] by an error of 1 in each output at one step."""
        p = self.p
        mask = torch.zeros(p.n_steps, p.batch, dtype=p.x.dtype)
        mask[step - 1] = 1.0
        one, rows = replace(p, loss=p.loss.with_mask(mask)), []
        for unit in torch.eye(p.network.n_out, dtype=p.x.dtype):
            target = p.outputs() - unit
            grads = ask(self.rule, replace(one, target=target), self.draws).grads
            rows.append(torch.cat([grads["W_rec"], grads["W_in"]], dim=1))
        return torch.stack(rows)

    def _traces_at(self, step: int, neuron: int) -> int:
        updates = self._updates_at(step)
        own = updates.unflatten(1, (-1, N))[:, :, neuron].flatten(1)
        values = torch.linalg.svdvals(own)
        return int((values > _RANK * torch.linalg.svdvals(updates.flatten(1))[0]).sum()) if values[0] > 0 else 0


def _own(result: RuleGradients, p: Problem, pair: tuple[int, int]) -> Tensor:
    return _own_of(result.grads, p, pair)


def _own_of(grads: Mapping[str, Tensor], p: Problem, pair: tuple[int, int]) -> Tensor:
    """The updates of the synapses between two neurons and of the inputs to them."""
    K, N = p.network.neuron.n_currents, p.network.n_rec
    rec, into = grads["W_rec"].unflatten(0, (K, N)), grads["W_in"].unflatten(0, (K, N))
    i, j = pair
    return torch.cat([rec[:, i, j], rec[:, j, i], into[:, i].flatten(), into[:, j].flatten()])


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / one.norm().clamp_min(1e-300))


_CHANGES = {
    "other synapses": other_synapses,
    "other neurons' states": other_neurons,
    "readout weights": other_readout,
}


@cache
def stored() -> dict[str, dict[str, Any]]:
    """The audits of the built-in rules at their defaults, by name: `bpgen check --locality all --json` wrote them."""
    text = files("bpgen.conformance").joinpath(STORED).read_text(encoding="utf-8")
    read: dict[str, dict[str, Any]] = json.loads(text)
    return read


def confirmed(name: str, cls: type[Rule]) -> set[str]:
    """Names of a rule's traits that a stored audit found as they are declared; none for a stranger's rule."""
    kept = stored().get(name, {})
    if kept.get("class") != f"{cls.__module__}:{cls.__qualname__}":
        return set()
    said, measured = _declared(cls.traits), kept.get("measured", {})
    agreed = {on for on, answer in measured.items() if (answer == "yes") == said[on]}
    return {trait for trait, things in _MEASURES.items() if agreed >= set(things)}
