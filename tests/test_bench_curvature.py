"""The curvature benchmark: contestants find one eigenvalue at the error that is claimed. Nothing is timed."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from bpgen.bench import curvature

SIZES = {"n_rec": 10, "samples": 30, "T": 9}


@pytest.fixture(scope="module")
def short():
    return curvature.trained(1.0, 2, 20, **SIZES)


def test_training_moves_the_weights_between_evaluations(short):
    assert len(short.weights) == 2
    assert (short.weights[1]["W_rec"] - short.weights[0]["W_rec"]).norm() > 1e-3
    assert short.x.shape == (9, 30, 9)


@pytest.mark.parametrize("find", [curvature.ours, curvature.theirs])
def test_the_tolerance_is_the_largest_that_attains_the_error_everywhere(short, find):
    exact = [curvature.truth(short, params) for params in short.weights]
    tol = curvature.tolerance_for(find, short, 2, exact)

    def worst(tol: float) -> float:
        return max(abs(find(short, p, tol).value / e - 1) for p, e in zip(short.weights, exact, strict=True))

    assert worst(tol) <= curvature.ERROR
    assert tol == 0.1 or worst(10**0.5 * tol) > curvature.ERROR
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


def test_who_is_told_when_to_stop_needs_the_fewest_products(short):
    """And starting from the answer, one."""
    exact = [curvature.truth(short, params) for params in short.weights]
    cold, warm = curvature.limit_rows(short, exact, 1, curvature._eigenvalue_row(short, exact, 2, 1, 1, 0.15))
    tol = curvature.tolerance_for(curvature.ours, short, 2, exact)
    ours = sum(curvature.ours(short, params, tol).products for params in short.weights)
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
