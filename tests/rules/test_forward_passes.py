"""What an update costs in runs of the network: every built-in rule says how many, and they are counted."""

from __future__ import annotations

import pytest
import torch

import bpgen
from bpgen.network import Network
from bpgen.neurons import Leaky
from tests.rules.test_options import ELSEWHERE, ROWS

T, B = 12, 4
OPTIONS = {
    "causal_credit": [
        {"segments": 3},
        {"host": "bptt", "form": "clipped"},
        {"control": "inverted"},
        {"control": "random"},
    ],
    "node_perturbation": [{"antithetic": False, "repeats": 3}],
    "weight_perturbation": [{"repeats": 2}, {"antithetic": False}],
    "rmhl": [{"repeats": 3}],
    "norm_matched": [{"reference": "node_perturbation"}],
}
CASES = [(name, options) for name in (*ROWS, *ELSEWHERE) for options in ({}, *OPTIONS.get(name, ()))]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_rule_runs_the_network_as_often_as_it_says(name, options, monkeypatch):
    network = Network(Leaky(0.4, "tanh"), 3, 5, 2, seed=0, dtype=torch.float64)
    rule = bpgen.load_rule(name, **options).bind(network)
    steps, run = 0, Network.run

    def counted(self, params, x, **told):
        nonlocal steps
        steps += x.shape[0] * x.shape[1]  # a batch may stand several times side by side, or come in blocks of steps
        return run(self, params, x, **told)

    monkeypatch.setattr(Network, "run", counted)
    x, classes = torch.randn(T, B, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    if name == "force":
        bpgen.gradients(rule, network, x, torch.nn.functional.one_hot(classes).double(), loss="mse")
    else:
        bpgen.gradients(rule, network, x, classes)
    assert steps == rule.forward_passes * T * B
