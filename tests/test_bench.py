"""The benchmark measures what it says: floors compute their rule's gradient, peers the same loss. Nothing is timed."""

import ast
import json
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import pytest
import torch

import bpgen
from bpgen import bench
from bpgen.bench import FLOOR, LOOP, PEERS, RNN, TUNED, contestants, seeds, trainer
from bpgen.bench.floor import Floor
from bpgen.bench.peers import RULES, Workload, autograd_loop, rule_call, torch_rnn

SIZES = (12, 3, 6, 4, 5)  # T, B, N, I, O
every_alpha = pytest.mark.parametrize("alpha", [1.0, 0.5])
every_loss = pytest.mark.parametrize("when", ["last", "all"])


def problem(alpha, when, n_steps=12):
    """A problem in float64 whose network is stirred, so that nothing vanishes by accident."""
    p = Workload(alpha, when, (n_steps, *SIZES[1:]), torch.float64)
    stir = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in p.network.parameters():
            weight.add_(0.4 * torch.randn(weight.shape, generator=stir, dtype=weight.dtype))
    return p


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-10, atol=1e-13, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("n_steps", [7, 10, 12, 20, 25])  # below, at, above and at multiples of the window of 10
@every_alpha
@every_loss
@pytest.mark.parametrize("rule", RULES)
def test_a_floor_computes_the_gradient_of_its_rule(rule, when, alpha, n_steps):
    p = problem(alpha, when, n_steps)
    expected, floor = rule_call(rule, p)(), Floor(rule, p)
    assert (expected.grads["W_rec"].norm() > 1e-4) == (rule != "readout_only")
    assert expected.grads["W_out"].norm() > 1e-4
    for _ in range(2):  # the second call finds the buffers full
        loss, grads = floor()
        torch.testing.assert_close(loss, expected.loss, rtol=1e-12, atol=0)
        assert_same(grads, expected.grads)


@every_alpha
@every_loss
def test_floors_of_different_rules_differ(when, alpha):
    p = problem(alpha, when, n_steps=25)
    W_rec = {rule: Floor(rule, p)()[1]["W_rec"] for rule in RULES}
    for a, b in combinations(RULES, 2):
        assert (W_rec[a] - W_rec[b]).norm() > 1e-5 * W_rec["bptt"].norm(), (a, b)


@every_alpha
@every_loss
def test_peers_compute_loss_and_gradient_of_the_same_model(when, alpha):
    p = problem(alpha, when)
    expected = rule_call("bptt", p)()
    peers = {LOOP: autograd_loop(p, tuned=False), TUNED: autograd_loop(p, tuned=True)}
    if alpha == 1:
        peers[RNN] = torch_rnn(p)
    for name, peer in peers.items():
        for _ in range(2):  # gradients do not pile up
            loss, grads = peer()
            torch.testing.assert_close(loss, expected.loss, rtol=1e-12, atol=0)
            if name == RNN:  # it has no autapse mask: its gradient alone has a diagonal
                grads["W_rec"] = grads["W_rec"] * p.network.masks()["W_rec"]
            assert_same(grads, expected.grads)


@every_alpha
@every_loss
def test_all_contestants_see_one_loss(when, alpha):
    losses = {key: call()[0] for key, call in contestants(Workload(alpha, when, SIZES)).items()}
    assert {peer for _, peer in losses} == {"", *PEERS} - (set() if alpha == 1 else {RNN})
    for key, loss in losses.items():
        torch.testing.assert_close(loss, losses["bptt", ""], msg=lambda m, k=key: f"{k}: {m}")


@pytest.fixture(scope="module")
def rows():
    before = torch.get_num_threads()
    result = bench.run((1, 2), 1, *SIZES)
    assert torch.get_num_threads() == before
    return result


def test_rows_are_complete(rows):
    keys = {(row.threads, row.case, row.peer) for row in rows}
    expected = {
        (threads, f"{rule}, α = {alpha}, loss at {when}", peer)
        for threads in (1, 2)
        for rule in RULES
        for alpha in ("1", "0.5")
        for when in ("last", "all")
        for peer in PEERS
        if alpha == "1" or peer != RNN
    }
    assert keys == expected
    assert len(rows) == len(keys)
    for row in rows:
        assert row.ms > 0
        assert row.peer_ms > 0
        assert row.ratio == row.ms / row.peer_ms
        assert (row.met is None) == (row.goal is None)
        assert row.goal is None or row.met == (row.ratio <= row.goal)


def test_goals_are_stated_for_two_threads(rows):
    assert all(row.goal is None for row in rows if row.threads == 1)
    goals = {(row.case, row.peer): row.goal for row in rows if row.goal is not None and row.peer != FLOOR}
    assert goals == {(f"{r}, α = {a:g}, loss at {w}", peer): goal for (r, a, w, peer), goal in bench.GOALS.items()}
    assert all(row.goal == bench.FLOOR_GOAL for row in rows if row.threads == 2 and row.peer == FLOOR)


def test_table_and_json_show_every_row(rows):
    assert json.loads(bench.to_json(rows)) == [asdict(row) for row in rows]
    text = bench.table(rows)
    for row in rows:
        assert sum(line.startswith(row.case + " ") for line in text.splitlines()) == 2  # once for each thread count
    goals = [row for row in rows if row.goal is not None]
    assert f"goals met: {sum(row.met for row in goals)} of {len(goals)}" in text


def test_threads_are_restored_after_an_error(monkeypatch):
    before = torch.get_num_threads()

    def broken(problem):
        raise RuntimeError("broken")

    monkeypatch.setattr(bench, "contestants", broken)
    with pytest.raises(RuntimeError, match="broken"):
        bench.run((before + 1,), 1, *SIZES)
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_trainer_rows_time_the_same_batch_in_the_trainer_and_bare():
    found = trainer.rows((2,), rounds=1)
    assert [row.peer for row in found] == [trainer.PEER] * len(trainer._CASES)
    assert all(0 < row.peer_ms < float("inf") and 0 < row.ms < float("inf") for row in found)
    assert all(row.goal is not None and row.met == (row.ratio <= row.goal) for row in found)
    assert all(row.case in trainer.table(found) for row in found)


def test_no_module_takes_the_name_of_a_function_of_its_package():
    """Importing the module would put it in the place of the function."""
    taken = []
    for package in (p for p in Path(bpgen.__file__).parent.rglob("__init__.py")):
        own = {n.name for n in ast.parse(package.read_text()).body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        taken += [(package.parent.name, p.stem) for p in package.parent.iterdir() if p.stem in own]
    assert not taken


def test_seeds_are_measured_beside_seeds_alone(monkeypatch):
    monkeypatch.setattr(seeds, "CASES", (("digits", "rflo", 3, 4, 5, 2, 0.5),))
    (found,) = seeds.rows((8,), rounds=1, steps=3)
    assert found.ms > 0
    assert found.ratio == pytest.approx(found.ms / found.peer_ms)
    assert found.goal == 0.4
    assert found.met == (found.ratio <= 0.4)
    assert "8 seeds, rflo, digits: `fit` takes them at once" in seeds.table([found])
