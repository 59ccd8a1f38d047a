"""Lanczos on matrices whose spectrum is known."""

from __future__ import annotations

import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from bpgen.curvature import eigenpairs, lanczos
from bpgen.errors import BpgenError
from tests.curvature.matrices import SPECTRA, Matrix, symmetric
from tests.oracles import randn


def check(H: Tensor, top: int, which: str, seed: int = 0, tol: float = 1e-8, **options) -> None:
    operator = Matrix(H)
    got = lanczos(operator, top, which=which, tol=tol, seed=seed, **options)
    exact = torch.linalg.eigvalsh(H) if H.ndim == 2 else H
    exact = exact[(exact if which == "largest" else exact.abs()).argsort(descending=True)][:top]
    size = H.abs().max()
    if which == "magnitude":  # a tie of +λ and -λ has no order
        assert torch.allclose(got.eigenvalues.abs(), exact.abs(), rtol=1e-7, atol=1e-12 * size)
    else:
        assert torch.allclose(got.eigenvalues, exact, rtol=1e-7, atol=1e-12 * size)
    assert got.converged
    assert got.products == operator.count
    u = got.vectors
    assert torch.allclose(u @ u.T, torch.eye(top, dtype=u.dtype), atol=1e-10)
    Hu = u @ H if H.ndim == 2 else u * H
    assert torch.allclose((Hu - got.eigenvalues[:, None] * u).norm(dim=1), got.residuals, atol=1e-12 * size + 1e-300)


@pytest.mark.parametrize("which", ["largest", "magnitude"])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_small_matrices_of_every_kind(spectrum, which):
    for P in (1, 2, 3, 4, 7, 12, 30):
        for seed in range(4):
            H = symmetric(spectrum(P, 10 * seed + P), seed)
            for top in {1, min(3, P), min(5, P)}:
                check(H, top, which, seed)


@pytest.mark.parametrize("top", [1, 3])
def test_zero_matrix_has_zero_eigenvalues_at_once(top):
    got = lanczos(Matrix(torch.zeros(50, 50, dtype=torch.float64)), top)
    assert got.eigenvalues.tolist() == [0.0] * top
    assert got.residuals.tolist() == [0.0] * top
    assert got.converged
    assert got.products == top


def test_repeated_eigenvalues_come_with_their_multiplicity_in_a_large_matrix():
    H = torch.linspace(-1, 1, 600, dtype=torch.float64)
    H[[5, 80, 300]], H[[7, 90]] = 3.0, 2.0
    check(H, 3, "largest")
    check(H, 5, "largest")
    check(-H, 3, "magnitude")


def test_converged_eigenvalues_have_no_ghost_copies():
    H = torch.cat([torch.tensor([1e4, 1e3, 1e2, 10.0]), torch.linspace(-1, 1, 400)]).double()
    check(H, 4, "largest", tol=1e-11)


@pytest.mark.parametrize("top", [1, 4])
def test_agrees_with_arpack(top):
    P = 400
    H = randn(0, P, P)
    H = (H + H.T) / 2
    arpack = eigsh(LinearOperator((P, P), lambda v: H.numpy() @ v, dtype="float64"), top, which="LA", tol=1e-12)[0]
    got = lanczos(Matrix(H), top, tol=1e-8)
    torch.testing.assert_close(got.eigenvalues, torch.tensor(arpack).flip(0), rtol=1e-10, atol=0)


def test_largest_keeps_its_sign_and_magnitude_looks_at_both_ends():
    H = symmetric(torch.tensor([3.0, 1, 0.5, -1, -5], dtype=torch.float64), 0)
    assert lanczos(Matrix(H)).eigenvalues.item() == pytest.approx(3)
    assert lanczos(Matrix(H), which="magnitude").eigenvalues.item() == pytest.approx(-5)
    assert lanczos(Matrix(-H)).eigenvalues.item() == pytest.approx(5)


@pytest.mark.parametrize("gap", [0.2, 0.05, 0.02])
def test_largest_magnitude_is_found_where_both_ends_nearly_tie(gap):
    H = torch.cat([torch.linspace(-1, 1, 500), torch.tensor([5.0, -5 - gap])]).double()
    for seed in range(10):
        got = lanczos(Matrix(H), which="magnitude", seed=seed)
        assert got.eigenvalues.item() == pytest.approx(-5 - gap, rel=1e-6)


def test_largest_magnitude_waits_for_the_slower_end():
    """The positive end is isolated and settles early, the negative one belongs to a continuum."""
    H = torch.cat([torch.linspace(-5.02, 2, 3000), torch.tensor([5.0])]).double()
    for seed in range(10):
        got = lanczos(Matrix(H), which="magnitude", tol=1e-3, seed=seed)
        assert got.eigenvalues.item() == pytest.approx(-5.02, rel=1e-3)


def test_a_breakdown_is_left_in_a_new_direction_and_lengths_are_kept():
    extend = eigenpairs._extend
    random = torch.Generator().manual_seed(0)
    Q = torch.eye(7, 9, dtype=torch.float64)
    rest = torch.zeros(3, 9, dtype=torch.float64)
    rest[:2, 3:] = randn(0, 2, 6)
    width, R = extend(Q, 3, rest, 1e-12, random)
    assert width == 3
    assert torch.allclose(Q[:6] @ Q[:6].T, torch.eye(6, dtype=torch.float64), atol=1e-14)
    for seed in range(3):
        z = randn(seed, 3)
        assert (R @ z).norm().item() == pytest.approx((z @ rest).norm().item())
    assert extend(Q, 6, rest, 1e-12, random)[0] == 1


@pytest.mark.parametrize("rounding", [0.0, 1e-7])
@pytest.mark.parametrize("gap", [0.005, 0.02, 0.1, 1.0])
def test_a_warm_start_finds_an_eigenvalue_that_crossed(gap, rounding):
    """The start is the exact eigenvector of 9; another one has risen to 9 + gap since."""
    P = 3000
    H = torch.cat([torch.tensor([9.0, 9 + gap, 8, 6, 5, 4, 3]), torch.linspace(-2, 2, P - 7)]).double()
    crossed = torch.eye(1, P, dtype=torch.float64)
    misses = 0
    for seed in range(20):
        got = lanczos(Matrix(H, rounding), seed=seed, start=crossed)
        assert got.converged
        misses += abs(got.eigenvalues.item() - 9 - gap) > 2e-4 * 9
    assert misses <= (1 if gap < 0.02 else 0)


def test_a_warm_start_finds_crossings_among_several():
    P = 1000
    H = torch.cat([torch.tensor([9.0, 8, 10, 8.5]), torch.linspace(-2, 2, P - 4)]).double()
    start = torch.eye(2, P, dtype=torch.float64)
    for seed in range(10):
        got = lanczos(Matrix(H), 2, seed=seed, start=start)
        torch.testing.assert_close(got.eigenvalues, torch.tensor([10.0, 9.0], dtype=torch.float64), rtol=1e-6, atol=0)


def test_useless_starts_do_no_harm():
    P = 200
    H = torch.linspace(-1, 1, P, dtype=torch.float64)
    H[0] = 2
    for start in (torch.zeros(1, P), torch.full((2, P), torch.nan), torch.full((1, P), torch.inf), torch.ones(3, P)):
        check(H, 1, "largest", start=start)
        check(H, 2, "largest", start=start.double())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_product_that_is_not_finite_gives_nan_and_not_converged(bad):
    H = torch.eye(20, dtype=torch.float64)
    H[3, 4] = H[4, 3] = bad
    got = lanczos(Matrix(H), 2)
    assert got.eigenvalues.isnan().tolist() == [True, True]
    assert got.residuals.isnan().all()
    assert got.vectors.shape == (2, 20)
    assert got.converged is False


@pytest.mark.parametrize(("top", "budget"), [(1, 1), (1, 5), (3, 6), (3, 20)])
def test_a_spent_budget_is_kept_and_said(top, budget):
    H = torch.linspace(0, 1, 2000, dtype=torch.float64)
    operator = Matrix(H)
    got = lanczos(operator, top, tol=1e-6, max_products=budget)
    assert got.products == operator.count <= budget
    assert not got.converged
    assert (got.residuals > 1e-6).all()
    torch.testing.assert_close(got.residuals, (H * got.vectors - got.eigenvalues[:, None] * got.vectors).norm(dim=1))


def test_rounded_products_end_the_iteration_with_an_honest_residual():
    H = torch.cat([torch.tensor([10.0, 9]), torch.linspace(-1, 1, 500)]).double()
    got = lanczos(Matrix(H, 1e-6), tol=1e-10)
    assert got.products < 40
    assert not got.converged
    assert 0.3e-5 < got.residuals.item() < 3e-5
    assert got.eigenvalues.item() == pytest.approx(10, abs=1e-4)
    assert lanczos(Matrix(H, 1e-6), tol=1e-4).converged


def test_the_seed_decides_and_the_global_random_state_does_not():
    H = torch.linspace(-1, 1, 300, dtype=torch.float64)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = lanczos(Matrix(H), 2, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = lanczos(Matrix(H), 2, seed=3), lanczos(Matrix(H), 2, seed=4)
    assert torch.equal(first.vectors, again.vectors)
    assert torch.equal(first.residuals, again.residuals)
    assert not torch.equal(first.vectors, other.vectors)
    torch.testing.assert_close(first.eigenvalues, other.eigenvalues, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0}, r"top must be in 1\.\.5"),
        ({"top": 6}, r"top must be in 1\.\.5"),
        ({"tol": 0.0}, "tol must be > 0"),
        ({"top": 2, "max_products": 1}, "at least 2 for top=2, got 1"),
        ({"which": "lowest"}, "unknown which 'lowest'"),
        ({"start": torch.ones(1, 4)}, r"vectors of 5 entries, got \[1, 4\]"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(BpgenError, match=message):
        lanczos(Matrix(torch.eye(5, dtype=torch.float64)), **options)
