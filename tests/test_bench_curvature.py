"""The curvature benchmark: contestants find one eigenvalue at the error that is claimed. Nothing is timed."""

from __future__ import annotations

import json
import sys

import pytest
import torch
import torch.nn.functional as F

from bpgen.bench import curvature, eigensolvers
from bpgen.network import Network
from bpgen.neurons import Leaky
from bpgen.streams import generator

SIZES = {"n_rec": 10, "samples": 30, "T": 9}


@pytest.fixture(scope="module")
def short():
    return eigensolvers.trained(1.0, 2, 20, **SIZES)


def test_training_moves_the_weights_between_evaluations(short):
    assert len(short.weights) == 2
    assert (short.weights[1]["W_rec"] - short.weights[0]["W_rec"]).norm() > 1e-3
    assert short.x.shape == (9, 30, 9)


def test_training_is_gradient_descent_on_the_loss_with_its_regulariser_once(short):
    split = eigensolvers.Digits().load()["train"]
    images = split.x.permute(1, 0, 2).unsqueeze(1)
    x = F.interpolate(images, size=(9, 9), mode="bilinear").squeeze(1).transpose(0, 1)
    network = Network(Leaky(1.0), 9, 10, 10)
    optimizer, draws = torch.optim.SGD(network.parameters(), lr=0.01, weight_decay=0.0), generator(0, "data order")
    for _ in range(20):
        batch = torch.randint(x.shape[1], (128,), generator=draws)
        penalty = sum(0.005 * w.square().sum() for n, w in network.named_parameters() if n.startswith("W"))
        optimizer.zero_grad()
        (F.cross_entropy(network(x[:, batch]), split.target[batch]) + penalty).backward()
        optimizer.step()
    for name, w in network.named_parameters():
        torch.testing.assert_close(short.weights[-1][name], w.detach(), rtol=1e-5, atol=1e-6)
        assert name == "b_out" or (0.01 * 0.01 * 20 * w).abs().max() > 1e-5, "a second regulariser would not be seen"


@pytest.mark.parametrize("find", [eigensolvers.ours, eigensolvers.theirs])
def test_the_tolerance_is_the_largest_that_attains_the_error_everywhere(short, find):
    exact = [eigensolvers.truth(short, params) for params in short.weights]
    tol = eigensolvers.tolerance_for(find, short, 2, exact)

    def worst(tol: float) -> float:
        return max(abs(find(short, p, tol).value / e - 1) for p, e in zip(short.weights, exact, strict=True))

    assert worst(tol) <= eigensolvers.ERROR
    assert tol == 0.1 or worst(10**0.5 * tol) > eigensolvers.ERROR
    assert find(short, short.weights[0], tol).products > 1


def test_rows_and_table_say_what_was_compared():
    before = torch.get_num_threads()
    rows = curvature.rows(1, 1, evaluations=2, steps=10, **SIZES)
    assert torch.get_num_threads() == before
    assert [row.goal for row in rows] == [0.85, 0.85, 0.30, 0.15, 0.15, 0.15]
    text = curvature.table(rows, {"ours": 1.0, "PyHessian": 25.0})
    assert all(row.case in text and row.peer in text for row in rows)
    assert "PyHessian: 25.0 MiB (not < 20)" in text
    assert len(json.loads(curvature.to_json(rows, {"ours": 1.0}))["rows"]) == 6


def test_who_knows_when_to_stop_needs_the_fewest_products(short):
    """And starting from the answer, one."""
    exact = [eigensolvers.truth(short, params) for params in short.weights]
    cold, warm = curvature.limit_rows(short, exact, 1, curvature._eigenvalue_row(short, exact, 2, 1, 1, 0.15))
    tol = eigensolvers.tolerance_for(eigensolvers.ours, short, 2, exact)
    ours = sum(eigensolvers.ours(short, params, tol).products for params in short.weights)
    counted = {row: int(row.case.split()[-2]) for row in (cold, warm)}
    assert ours / 2 < counted[cold] <= ours + 2  # other random vectors
    assert counted[warm] <= counted[cold]
    twice = short._replace(weights=[short.weights[-1]] * 2)
    cold, warm = curvature.limit_rows(twice, [exact[-1]] * 2, 1, cold)
    assert "(overlap 1.00)" in warm.case
    assert int(warm.case.split()[-2]) <= int(cold.case.split()[-2]) / 2 + 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow():
    growth = curvature.memory_growth(evaluations=30, warm_ups=10, **SIZES)
    assert set(growth) == {"ours", "PyHessian"}
    assert all(MiB < curvature.MEMORY_GOAL for MiB in growth.values())
