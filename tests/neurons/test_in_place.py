"""LIF and ALIF in buffers, forwards and back, are what they are as pure functions; a planted error is seen."""

from __future__ import annotations

import pytest
import torch

from bpgen.neurons import ALIF, LIF, integrate_and_fire, lif
from bpgen.rules import propagate
from tests.oracles import problem, randn

NEURONS = {
    "detached": lambda: ALIF(0.4, 0.3),
    "attached": lambda: ALIF(0.4, 0.3, reset="attached", surrogate="fast_sigmoid"),
    "scaled": lambda: ALIF(0.4, 0.3, reset="attached", adaptation="scaled", drive="plain"),
    "each neuron its own": lambda: ALIF((0.3, 0.6), (0.2, 0.4), (0.2, 0.6), (0.6, 0.9), adaptive=0.6),
    "each its own, attached": lambda: ALIF(
        (0.3, 0.6), (0.2, 0.4), (0.2, 0.6), (0.6, 0.9), 0.6, "scaled", reset="attached"
    ),
    "refractory": lambda: ALIF(0.4, 0.2, n_refractory=2),
    "refractory, attached": lambda: ALIF((0.3, 0.6), 0.2, reset="attached", surrogate="gaussian", n_refractory=1),
    "lif": lambda: LIF(0.4, 0.3),
    "lif, refractory": lambda: LIF(0.4, (0.1, 0.3), surrogate="fast_sigmoid", n_refractory=2),
    "lif, refractory, attached": lambda: LIF((0.3, 0.6), 0.2, "attached", n_refractory=1),
}
PATHS = {"no hops": {"hops": 0}, "all hops": {}, "blocks": {"blocks": 3}, "reach": {"reach": 4}, "one hop": {"hops": 1}}


def apart(neuron: str, path: str, learned: bool = False) -> float:
    """The largest relative difference of activities, states and credit between the two paths."""
    p = problem(NEURONS[neuron](), T=9, N=6, learned=learned)
    q, params = randn(3, 9, 3, 6), {**p.network.params()}
    params["W_in"] = 2 * params["W_in"]
    fast, slow = (p.network.run(params, p.x, initial_state=p.s_0, in_place=way) for way in (True, False))
    assert 0.05 < slow.h.mean() < 0.95
    pairs = [(fast.h, slow.h), (fast.states, slow.states)]
    a, b = (propagate(run, q, carrier=run.params["W_rec"], **PATHS[path]) for run in (fast, slow))
    pairs.append((a.currents, b.currents))
    if b.initial is not None:
        pairs.append((a.initial, b.initial))
    return max(float((x - y).norm() / y.norm()) for x, y in pairs)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("neuron", NEURONS)
def test_both_paths_give_the_same_numbers(neuron, path):
    for learned in (False, True):
        assert apart(neuron, path, learned) < 1e-12


PLANTED = {
    "a sum": (lif, "plus", lambda right: lambda a, b, factor, out: right(a, b, 1.01 * factor, out), "attached"),
    "a silence too long": (
        lif,
        "count_into",
        lambda right: lambda c_0, z, c, n: right(c_0, z, c, n + 1),
        "refractory",
    ),
    "a silence that ends never": (
        integrate_and_fire,
        "keep_ready",
        lambda right: lambda values, c, spare: values.zero_(),
        "lif, refractory",
    ),
    "credit through silence": (
        integrate_and_fire,
        "keep_ready",
        lambda right: lambda values, c, spare: values,
        "refractory, attached",
    ),
}


BOTH_WAYS = [(e, m) for e in PLANTED for m in ("advance_into", "retreat_into")]
BOTH_WAYS.remove(("a silence too long", "retreat_into"))  # silence is counted forwards only


@pytest.mark.parametrize(("error", "method"), BOTH_WAYS)
def test_a_planted_error_is_seen(error, method, monkeypatch):
    module, name, wrong, neuron = PLANTED[error]
    right, kind = getattr(module, name), type(NEURONS[neuron]())
    assert apart(neuron, "all hops") < 1e-12

    def planted(self, *given):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, wrong(right))
            whole(self, *given)

    whole = getattr(kind, method)
    monkeypatch.setattr(kind, method, planted)
    assert apart(neuron, "all hops") > 1e-4


@pytest.mark.parametrize("kind", [LIF, ALIF])
def test_another_f_or_g_goes_the_general_way(kind):
    class OtherF(kind):
        def f(self, s, I):
            return super().f(s, 2 * I)

    class OtherG(kind):
        def g(self, s):
            return 2 * super().g(s)

    for neuron, expected in ((kind(), True), (kind(n_refractory=2), True), (OtherF(), False), (OtherG(), False)):
        p = problem(neuron)
        assert p.network.run(p.network.params(), p.x).in_place is expected


@pytest.mark.parametrize("neuron", ["refractory", "lif, refractory"])
def test_a_start_within_a_silence_and_one_that_never_was(neuron):
    """The steps of silence left at the start may be any number; none is left where it is not positive."""
    p = problem(NEURONS[neuron](), T=9, N=6)
    for left in (-1.5, 0.0, 0.5, 3.0):
        start = p.s_0.clone()
        start[:, -1] = left
        fast, slow = (
            p.network.run(p.network.params(), p.x, initial_state=start, in_place=way) for way in (True, False)
        )
        assert torch.equal(fast.h, slow.h)
        assert torch.allclose(fast.states, slow.states, rtol=0, atol=1e-12)
