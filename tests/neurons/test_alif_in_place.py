"""ALIF in buffers, forwards and back, is ALIF as a pure function; an error planted in either is seen."""

from __future__ import annotations

import pytest
import torch

from bpgen.neurons import ALIF, lif
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


@pytest.mark.parametrize("method", ["advance_into", "retreat_into"])
def test_a_planted_error_is_seen(method, monkeypatch):
    right = lif.plus
    assert apart("attached", "all hops") < 1e-12

    def planted(self, *given):
        monkeypatch.setattr(lif, "plus", lambda a, b, factor, out: right(a, b, 1.01 * factor, out))
        whole(self, *given)
        monkeypatch.setattr(lif, "plus", right)

    whole = getattr(ALIF, method)
    monkeypatch.setattr(ALIF, method, planted)
    assert apart("attached", "all hops") > 1e-4


def test_a_refractory_period_and_another_f_go_the_general_way():
    class Other(ALIF):
        def f(self, s, I):
            return super().f(s, 2 * I)

    assert ALIF().in_place
    assert not ALIF(n_refractory=2).in_place
    assert not Other().in_place
    run = problem(ALIF(n_refractory=2)).network.run(
        problem(ALIF(n_refractory=2)).network.params(), torch.zeros(3, 2, 4).double()
    )
    assert not run.in_place
