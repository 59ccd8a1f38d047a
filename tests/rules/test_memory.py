"""A gradient that no machine could hold is refused before anything is allocated."""

import pytest
import torch

import bpgen
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.problem import Problem
from bpgen.rules import load_rule
from bpgen.rules.memory import least_bytes, require_room


def problem(n_steps: int, batch: int, n_rec: int = 4) -> Problem:
    network = bpgen.Network(bpgen.neurons.Leaky(alpha=0.5), n_in=1, n_rec=n_rec, n_out=2)
    x = torch.zeros(1, 1, 1).expand(n_steps, batch, 1)  # of one number
    return Problem(network, network.params(), x, torch.zeros(1).long().expand(batch), Loss())


def test_rtrl_of_a_large_network_says_how_much_it_needs_and_what_to_take() -> None:
    big = problem(3, 256, n_rec=3000)
    with pytest.raises(BpgenError, match=r"order N³.*25,749 GiB at B=256, T=3, N=3000.*`snap`"):
        bpgen.gradients("rtrl", big.network, big.x, big.target)
    require_room(load_rule("snap"), big)
    require_room(load_rule("three_factor"), big)


def test_a_long_batch_is_refused_for_what_is_kept_over_time_only() -> None:
    long = problem(10**7, 10**6)
    for name in ("bptt", "three_factor", "readout_only"):
        with pytest.raises(BpgenError, match=r"order T N.*smaller batches"):
            require_room(load_rule(name), long)
    require_room(load_rule("eprop_online"), long)


@pytest.mark.parametrize(("rule", "numbers"), [("bptt", 7 * 5), ("rtrl", 5**3), ("snap", 0), ("rflo_online", 0)])
def test_the_bound_is_the_declared_order(rule: str, numbers: int) -> None:
    assert least_bytes(load_rule(rule), problem(7, 3, n_rec=5)) == 3 * numbers * 4
