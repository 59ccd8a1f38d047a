"""Distances of activities: laws, slow independent code, netrep's numbers; each with what must not hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg, optimize

from bpgen.errors import BpgenError
from bpgen.similarity import DISTANCES, cca, cka, procrustes

rng = np.random.default_rng(17)
X, Y, Z = (rng.standard_normal((12, 20, n)) @ np.diag(np.geomspace(1, 0.1, n)) for n in (7, 7, 5))


def rotation(n, seed=0):
    return linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def copies(A):
    """Rotated, shifted by neuron, scaled as a whole: the same activity to all of them."""
    n = A.shape[-1]
    return {"rotated": A @ rotation(n), "shifted": A + np.arange(n) * 3.0, "scaled": 2.5 * A}


@pytest.mark.parametrize("name", DISTANCES)
def test_zero_to_itself_and_to_rotated_shifted_and_scaled_copies_and_to_nothing_else(name):
    D = DISTANCES[name]
    assert abs(D(X, X)) < 1e-12
    for copy in copies(X).values():
        assert abs(D(X, copy)) < 1e-12
        np.testing.assert_allclose(D(copy, Y), D(X, Y), atol=1e-12)
    assert D(X, Y) > 0.1
    assert D(X, X[:, ::-1]) > 0.1  # steps in another order
    assert D(X, X + 0.3 * Y) > 1e-3


@pytest.mark.parametrize("name", ["procrustes", "cka"])
def test_factors_on_single_neurons_are_seen_by_all_but_cca(name):
    uneven = X @ np.diag(np.geomspace(1, 30, 7))
    assert DISTANCES[name](X, uneven) > 0.05
    assert DISTANCES["cca"](X, uneven) < 1e-10


@pytest.mark.parametrize("name", DISTANCES)
def test_symmetric_and_from_0_to_1(name):
    for A, B in ((X, Y), (X, Z)):
        np.testing.assert_allclose(DISTANCES[name](A, B), DISTANCES[name](B, A), rtol=1e-10)
        assert 0 < DISTANCES[name](A, B) < 1
    t = np.arange(240)[:, None]
    apart = DISTANCES[name](np.sin(2 * np.pi * t * [1, 2] / 240), np.cos(2 * np.pi * t * [1, 2] / 240))
    assert apart == pytest.approx(1)


def test_the_angle_obeys_the_triangle_inequality_and_1_minus_its_cosine_does_not():
    """B is about half way from A to C, where a measure that is no distance is caught."""
    angles, broken = [], 0
    for seed in range(100):
        r = np.random.default_rng(seed)
        A, way, off = r.standard_normal((3, 10, 3))
        B, C = A + 0.3 * way + 0.1 * off, A + 0.6 * way
        d = procrustes(A, C), procrustes(A, B) + procrustes(B, C)
        angles.append(d[0] <= d[1] + 1e-12)
        broken += 1 - np.cos(d[0]) > 2 - np.cos(procrustes(A, B)) - np.cos(procrustes(B, C))
    assert all(angles)
    assert broken > 50


def test_the_angle_is_that_of_the_best_rotation_found_by_search():
    A, B = X.reshape(-1, 7)[:40, :2], Y.reshape(-1, 7)[:40, :2]
    B = A @ rotation(2) + 0.3 * B
    A, B = A - A.mean(0), B - B.mean(0)

    def angle(theta, flip):
        c, s = np.cos(theta), np.sin(theta)
        turned = A @ np.array([[c, -s], [s, c]]) @ np.diag([1, flip])
        return np.arccos((turned * B).sum() / np.linalg.norm(A) / np.linalg.norm(B))

    found = [
        optimize.minimize_scalar(angle, (start, start + 0.1), args=(flip,)).fun
        for flip in (1, -1)
        for start in np.linspace(0, 2 * np.pi, 9)
    ]
    np.testing.assert_allclose(procrustes(A, B), min(found), rtol=1e-7)
    assert max(found) > 1.1 * min(found)  # the search could have found another


def test_cka_is_that_of_centred_gram_matrices():
    A, B = X.reshape(-1, 7), Z.reshape(-1, 5)
    H = np.eye(len(A)) - 1 / len(A)
    K, L = H @ A @ A.T @ H, H @ B @ B.T @ H
    np.testing.assert_allclose(cka(X, Z), (K * L).sum() / np.sqrt((K * K).sum() * (L * L).sum()), rtol=1e-10)
    uncentred = ((A @ A.T) * (B @ B.T)).sum() / np.linalg.norm(A @ A.T) / np.linalg.norm(B @ B.T)
    assert abs(cka(X, Z) - uncentred) > 1e-4


@pytest.mark.parametrize("k", [3, 20])
def test_cca_is_that_of_principal_components_by_a_generalized_eigenproblem(k):
    scores = []
    for a in (X, Z):
        rows = a.reshape(-1, a.shape[-1])
        rows = rows - rows.mean(0)
        values, vectors = np.linalg.eigh(rows.T @ rows)
        scores.append(rows @ vectors[:, np.argsort(-values)[:k]])
    (p, q), (A, B) = (s.shape[1] for s in scores), scores
    left = np.block([[np.zeros((p, p)), A.T @ B], [B.T @ A, np.zeros((q, q))]])
    right = linalg.block_diag(A.T @ A, B.T @ B)
    correlations = linalg.eigh(left, right, eigvals_only=True)[::-1][: min(p, q)]
    np.testing.assert_allclose(cca(X, Z, k), correlations.mean(), rtol=1e-8)
    assert abs(cca(X, Z, 3) - cca(X, Z, 20)) > 0.01


def waves(neurons, rate):
    t, j = np.arange(24)[:, None], np.arange(1, neurons + 1)
    return np.sin(rate * t * j / 7 + j**2) + 0.1 * j


@pytest.mark.parametrize(
    ("sizes", "angle"),
    [((5, 5), 0.8473645273908403), ((5, 8), 1.0092822655691658), ((8, 5), 0.691582035480408)],
)
def test_the_angle_is_netreps(sizes, angle):
    """LinearMetric(alpha=1, center_columns=True, zero_pad=True, score_method="angular") of netrep (Williams et al.).

    netrep is in no package index; these numbers were computed with the code of its repository on these very arrays.
    """
    np.testing.assert_allclose(procrustes(waves(sizes[0], 1.0), waves(sizes[1], 1.7)), angle, rtol=1e-9)
    assert abs(procrustes(waves(sizes[0], 1.0), waves(sizes[1], 1.71)) - angle) > 1e-4


def test_small_angles_are_not_rounded_away():
    A = rng.standard_normal((50, 4))
    off = rng.standard_normal((50, 4))
    first, second = (procrustes(A, A + eps * off) for eps in (1e-9, 2e-9))
    assert second == pytest.approx(2 * first, rel=1e-4)
    assert first > 1e-10


@pytest.mark.parametrize(
    ("A", "B", "message"),
    [
        (X, Y[:-1], "share conditions and steps"),
        (X, np.where(np.arange(7) == 2, np.nan, Y), "not finite"),
        (X, np.ones((12, 20, 3)), "the same in all conditions and steps"),
        (X, np.array(["a"]), "array of numbers"),
        (X, np.zeros((12, 20, 0)), "array of numbers"),
    ],
)
@pytest.mark.parametrize("measure", [procrustes, cka, cca])
def test_bad_input_is_said(measure, A, B, message):
    for pair in ((A, B), (B, A)):
        with pytest.raises(BpgenError, match=message):
            measure(*pair)


def test_cca_that_would_be_1_whatever_the_data_is_refused():
    A, B = rng.standard_normal((2, 8, 9))
    with pytest.raises(BpgenError, match="take fewer components"):
        cca(A, B)
    assert cca(A, B, 2) < 1
    with pytest.raises(BpgenError, match="at least one component"):
        cca(A, B, 0)
