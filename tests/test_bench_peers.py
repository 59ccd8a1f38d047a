"""Peers that are timed beside online rules, spiking and gated networks compute the same gradients. Nothing is timed."""

from __future__ import annotations

import json

import pytest
import torch

from bpgen.bench import side_by_side
from bpgen.bench.eager_step import eager_steps
from bpgen.bench.side_by_side import SIZES, chunk_call, problem, require_equal, rule_call
from bpgen.cli import main
from bpgen.errors import BpgenError
from bpgen.neurons import ALIF, GRU, LIF, LSTM, Leaky
from tests.oracles import assert_equal

TINY = (12, 3, 7)
SCANS = {
    "snap_1": ("snap", Leaky(0.3, "tanh")),
    "snap_1_presynaptic": ("snap", Leaky(0.3, "tanh")),
    "rtrl": ("rtrl", Leaky(0.3, "tanh")),
    "lif_bptt": ("bptt", LIF()),
    "lif_eprop": ("eprop", LIF()),
    "alif_bptt": ("bptt", ALIF()),
    "alif_eprop": ("eprop", ALIF()),
}


@pytest.mark.parametrize("scan", SCANS)
def test_a_jax_scan_computes_the_gradient_of_its_rule(scan):
    pytest.importorskip("jax")
    rule, neuron = SCANS[scan]
    p = problem(neuron, TINY, torch.float64)
    theirs = side_by_side.scan_call(scan, p)()
    require_equal(rule_call(rule, p)().grads, theirs, scan)
    other = rule_call("bptt" if rule != "bptt" else "eprop", p)().grads
    if rule != "rtrl":
        with pytest.raises(BpgenError, match="another gradient"):
            require_equal(other, theirs, scan)


@pytest.mark.parametrize("neuron", [GRU(), LSTM()])
def test_torchs_cells_compute_the_gradient_of_bptt(neuron):
    p = problem(neuron, TINY, torch.float64, autapses=True)
    cell = side_by_side._torch_cell(p)
    for _ in range(2):  # gradients do not pile up
        assert_equal(cell(), rule_call("bptt", p)().grads, tol=1e-12)


@pytest.mark.parametrize("k", [1, 4])
def test_the_eager_calls_are_a_chunk_of_snap_1(k):
    p = problem(Leaky(0.3, "tanh"), (8, 3, 7), torch.float64)
    loss, grads, trace = eager_steps(p, k)()
    given = p.steps(slice(0, k))
    result = rule_call("snap", given)()
    torch.testing.assert_close(loss, result.loss)
    names = [n for n in grads if k > 1 or n != "W_rec"]  # h_0 = 0
    assert_equal(grads, result.grads, names, tol=1e-12)
    bound = chunk_call("snap", p, k)  # goes on for k more steps
    assert bound()[0].t == 2 * k
    carry = side_by_side.load_rule("snap").bind(p.network)
    after = carry.advance(given, carry.begin(given), {}, ends=False)[0]
    torch.testing.assert_close(after.state["vector"].view_as(trace), trace)


def test_every_row_is_there(monkeypatch, capsys):
    pytest.importorskip("jax")
    found = side_by_side.rows(1, 1, {name: (20, 2, 8) for name in SIZES})
    cases = " ".join(row.case for row in found)
    for word in (
        "snap",
        "eprop_online",
        "rflo_online",
        "rtrl",
        "LIF",
        "ALIF",
        "GRU",
        "LSTM",
        "Hessian",
        "chunks of 10",
    ):
        assert word in cases
    assert all(row.ratio == row.ms / row.peer_ms for row in found)
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(side_by_side, "rows", lambda *given: found)
    assert main(["bench", "--peers", "--threads", "1", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(found)
    assert main(["bench", "--peers", "--threads", "1"]) == 0
    assert capsys.readouterr().out.count("three_factor") >= 6


def test_without_jax_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "jax", None)
    with pytest.raises(BpgenError, match="pip install jax"):
        side_by_side.scan_call("rtrl", problem(Leaky(0.3, "tanh"), TINY))
