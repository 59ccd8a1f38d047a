"""UORO and KF-RTRL averaged over every pattern of signs there is: RTRL to rounding error, with no statistics at all."""

from __future__ import annotations

from itertools import product

import pytest
import torch

import bpgen
from bpgen.losses import Loss
from bpgen.neurons import ALIF, Leaky
from tests.oracles import RECURRENT, asked, assert_differ, assert_equal, problem

TWO_STATES = ALIF(0.4, surrogate="fast_sigmoid", drive="plain", reset="attached")
# rule, neuron, T, N, signs of a step: 12 signs in all
CASES = {
    "uoro": ("uoro", Leaky(0.4, "tanh"), 6, 2),
    "uoro, rate": ("uoro", Leaky(0.4, "tanh", "rate"), 3, 4),
    "uoro, two states": ("uoro", TWO_STATES, 3, 2),
    "kf_rtrl": ("kf_rtrl", Leaky(0.4, "tanh"), 6, 4),
    "kf_rtrl, two states": ("kf_rtrl", TWO_STATES, 6, 4),
}


OPTIONS = {
    "plain": {},
    "leaky readout": {"kappa": 0.5},
    "sparse, under Dale's law": {"density": 0.6, "cell_types": {"E": 0.5, "I": 0.5}, "dale": True, "autapses": True},
    "learned start": {"learned": True},
}


def mean_over(patterns, rule, p):
    """The gradient averaged over patterns [M,n] of signs, one for each sequence of a batch of M copies."""
    M, T = len(patterns), len(p.x)
    shape = (2,) if type(rule).__name__ == "KFRTRL" else (p.network.neuron.n_states, p.network.n_rec)
    signs = patterns.T.reshape(T, *shape, M).movedim(-1, 1)
    copies = (p.x.expand(-1, M, -1), p.target.expand(-1, M, -1))
    draws = {"signs": signs, **({} if p.s_0 is None else {"initial_state": p.s_0.expand(M, -1, -1)})}
    return rule.gradients(*asked(p.network, p.network.params(), *copies, Loss("mse", "all"), draws)).grads


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("case", CASES)
def test_mean_over_all_signs_is_rtrl(case, option):
    name, neuron, T, N = CASES[case]
    p = problem(neuron, B=1, T=T, N=N, **OPTIONS[option])
    rule = bpgen.load_rule(name).bind(p.network)
    patterns = torch.tensor(list(product((-1.0, 1.0), repeat=12)), dtype=torch.float64)
    expected = p.rule("bptt").grads
    assert_equal(mean_over(patterns, rule, p), expected, RECURRENT, tol=1e-10)
    # control: signs that are not independent, so that one of the cross terms stays
    last_of_first_state = -1 - N * (p.network.neuron.n_states - 1)
    linked = patterns[:, [1, 2, 3]] if name == "kf_rtrl" else patterns[:, [0, last_of_first_state]]
    assert_differ(mean_over(patterns[linked.prod(1) > 0], rule, p), expected, ["b_rec"], by=1e-4)
    assert_differ(mean_over(patterns[:1], rule, p), expected, RECURRENT)
