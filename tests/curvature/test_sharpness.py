"""Sharpness of networks against dense spectra, ARPACK and the literal power iteration of the released code."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

import bpgen
from bpgen.curvature import HessianProducts, SharpnessResult, eigenvalues
from bpgen.errors import BpgenError
from bpgen.losses import L2, Loss
from bpgen.neurons import Leaky
from tests.curvature.dense import BLOCKS, PROBLEMS, asked, dense_hessian, spectrum
from tests.oracles import Problem, leaves, problem, randn, run_slow, true_loss

every_block = pytest.mark.parametrize("block", BLOCKS)


def sharpness(p: Problem, **options) -> SharpnessResult:
    return bpgen.sharpness(p.network, p.x, p.target, p.loss, p.when, p.mask, p.s_0, **options)


def mostly_negative() -> Problem:
    """λ of W_rec goes from -2.9 to 2.1: the largest magnitude is not the largest."""
    return problem(Leaky(0.4, "tanh", "rate"), seed=2, when="last")


@every_block
@pytest.mark.parametrize("name", PROBLEMS)
def test_top_three_are_those_of_the_dense_hessian(name, block):
    p = PROBLEMS[name]()
    exact = spectrum(p, block)
    got = sharpness(p, block=block, top=3, tol=1e-8)
    assert exact[0] > 0.01
    torch.testing.assert_close(got.eigenvalues, exact[:3], rtol=1e-9, atol=1e-12)
    assert got.eigenvalues.dtype == got.residuals.dtype == got.vectors.dtype == torch.float64
    assert got.converged
    H = dense_hessian(p, block)
    residuals = (got.vectors @ H - got.eigenvalues[:, None] * got.vectors).norm(dim=1)
    torch.testing.assert_close(got.residuals, residuals, rtol=1e-3, atol=1e-13)
    assert (residuals <= 1e-8 * got.eigenvalues.abs()).all()


def test_the_sign_is_right_where_the_largest_magnitude_is_negative():
    p = mostly_negative()
    exact = spectrum(p, "W_rec")
    assert exact[0] > 0.1
    assert exact[-1] < -1.2 * exact[0]
    assert sharpness(p).eigenvalues.item() == pytest.approx(exact[0].item(), rel=1e-6)
    assert sharpness(p, definition="magnitude").eigenvalues.item() == pytest.approx(exact[-1].item(), rel=1e-6)
    assert sharpness(p, definition="released").eigenvalues.item() == pytest.approx(-exact[-1].item(), rel=1e-6)


def power_iteration(p: Problem, l2: float) -> float:
    """The released code's estimate, run until it stands still: ‖Hv‖ on all of W_rec, silenced diagonal included."""
    params = leaves(p)
    loss = true_loss(run_slow(p, params).outputs, p.target, p.loss, p.when, p.mask)
    loss = loss + sum(0.5 * l2 * params[n].square().sum() for n in ("W_in", "W_rec", "W_out"))
    (g,) = torch.autograd.grad(loss, params["W_rec"], create_graph=True)
    v = randn(0, *g.shape)
    size, before = 0.0, -1.0
    while abs(size - before) > 1e-10:
        v, before = v / v.norm(), size
        (v,) = torch.autograd.grad(g, params["W_rec"], v, retain_graph=True)
        size = v.norm().item()
    return size


@pytest.mark.parametrize("make", [mostly_negative, PROBLEMS["rate, cross-entropy, last"]])
def test_released_is_what_the_released_power_iteration_converges_to(make):
    p = make()
    got = sharpness(p, definition="released", regulariser=0.01)
    assert got.eigenvalues.item() == pytest.approx(power_iteration(p, 0.01), rel=1e-6)
    assert got.eigenvalues.item() != pytest.approx(power_iteration(p, 0.0), rel=1e-6)
    assert got.products < 30
    assert got.converged


def test_agrees_with_arpack_on_a_larger_network():
    p = problem(Leaky(0.4, "tanh"), T=10, B=8, I=6, N=24, loss="cross_entropy")
    H = HessianProducts(asked(p), "all")
    operator = LinearOperator((H.size, H.size), lambda v: H(torch.tensor(v.ravel())).numpy(), dtype="float64")
    arpack = eigsh(operator, 2, which="LA", tol=1e-10)[0]
    got = sharpness(p, block="all", top=2, tol=1e-6)
    torch.testing.assert_close(got.eigenvalues, torch.tensor(arpack).flip(0), rtol=1e-8, atol=0)
    assert got.vectors.shape == (2, H.size)


def test_l2_shifts_every_eigenvalue_of_w_rec_by_its_coefficient():
    p = problem(Leaky(0.4, "tanh"))
    plain, shifted = sharpness(p, top=3, tol=1e-9), sharpness(p, top=3, tol=1e-9, regulariser=0.01)
    shift = shifted.eigenvalues - plain.eigenvalues
    torch.testing.assert_close(shift, torch.full((3,), 0.01, dtype=torch.float64), rtol=1e-8, atol=0)
    assert (plain.regularised, shifted.regularised) == (False, True)
    by_weight = sharpness(p, top=3, tol=1e-9, regulariser={"W_in": 1.0})
    torch.testing.assert_close(by_weight.eigenvalues, plain.eigenvalues, rtol=1e-9, atol=0)


@every_block
def test_l2_in_both_blocks_is_the_dense_one(block):
    p = problem(Leaky(0.4, "tanh", "inside"))
    got = sharpness(p, block=block, top=3, tol=1e-8, regulariser=0.3)
    torch.testing.assert_close(got.eigenvalues, spectrum(p, block, 0.3)[:3], rtol=1e-9, atol=0)


def test_blocks_are_different_questions():
    p = problem(Leaky(0.4, "tanh"))
    assert sharpness(p, block="all").eigenvalues.item() > 1.05 * sharpness(p).eigenvalues.item()


def test_mask_initial_state_and_steps_are_part_of_the_question():
    p = problem(Leaky(0.4, "tanh"), masked=True)
    asked = sharpness(p).eigenvalues.item()
    for other in (replace(p, mask=None), replace(p, s_0=None), replace(p, x=p.x.flip(0))):
        assert sharpness(other).eigenvalues.item() != pytest.approx(asked, rel=1e-3)


def test_chunks_do_not_change_the_answer():
    p = problem(Leaky(0.4, "tanh"), B=7)
    whole, chunked = sharpness(p, regulariser=0.1), sharpness(p, regulariser=0.1, chunk_size=3)
    torch.testing.assert_close(chunked.eigenvalues, whole.eigenvalues, rtol=1e-12, atol=0)
    assert chunked.products == whole.products


def test_the_result_says_what_was_measured():
    p = problem(Leaky(0.4, "tanh"))
    got = sharpness(p, block="all", top=2, tol=1e-3, definition="magnitude", regulariser=0.1)
    assert (got.block, got.samples, got.definition, got.backend, got.tol) == ("all", 3, "magnitude", "lanczos", 1e-3)
    assert got.eigenvalues.shape == got.residuals.shape == (2,)
    assert isinstance(got.products, int)
    assert got.products > 4
    assert 0 < got.seconds < 60
    assert got.regularised is True
    with pytest.raises(AttributeError):
        got.tol = 1.0


@pytest.mark.parametrize("definition", ["largest", "magnitude", "released"])
def test_eigenvalues_descend(definition):
    values = sharpness(mostly_negative(), top=3, definition=definition).eigenvalues
    key = values if definition == "largest" else values.abs()
    assert (key.diff() < 0).all()
    assert (values > 0).all() or definition != "released"


def test_eigenvalues_take_weights_and_loss_as_handed_in():
    p, other = problem(Leaky(0.4, "tanh")), problem(Leaky(0.4, "tanh"), seed=4)
    loss = Loss(p.loss, p.when, p.mask, L2.of(0.2))
    got = eigenvalues(asked(p, loss).at(**other.network.params()))
    expected = sharpness(replace(p, network=other.network), regulariser=0.2)
    assert torch.equal(got.eigenvalues, expected.eigenvalues)
    assert got.eigenvalues.item() != pytest.approx(sharpness(p, regulariser=0.2).eigenvalues.item(), rel=1e-3)


def test_a_start_from_before_the_weights_moved_leads_to_the_same_answer():
    p = problem(Leaky(0.4, "tanh"), N=12)
    before = sharpness(p).vectors
    moved = replace(p, network=copy.deepcopy(p.network))
    with torch.no_grad():
        moved.network.W_rec += 0.3 * randn(8, 12, 12)
    cold, warm = sharpness(moved, tol=1e-6), sharpness(moved, tol=1e-6, start=before)
    assert abs(torch.dot(before[0], cold.vectors[0])) < 0.999
    torch.testing.assert_close(warm.eigenvalues, cold.eigenvalues, rtol=1e-9, atol=0)


def test_the_seed_decides_and_nothing_is_left_behind():
    p = problem(Leaky(0.4, "tanh"))
    p.network.eval()
    p.network.W_rec.grad = grad = torch.ones_like(p.network.W_rec)
    weights = copy.deepcopy(p.network.state_dict())
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = sharpness(p, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = sharpness(p, seed=3), sharpness(p, seed=4)
    assert torch.equal(first.vectors, again.vectors)
    assert not torch.equal(first.vectors, other.vectors)
    assert other.eigenvalues.item() == pytest.approx(first.eigenvalues.item(), rel=1e-6)
    assert p.network.training is False
    assert p.network.W_rec.grad is grad
    assert (grad == 1).all()
    assert p.network.W_in.grad is None
    assert all(torch.equal(w, weights[n]) for n, w in p.network.state_dict().items())


def test_single_precision_agrees_and_knows_its_limits():
    p = problem(Leaky(0.4, "tanh"), N=16, B=10, loss="cross_entropy")
    single = replace(p, network=copy.deepcopy(p.network).float(), x=p.x.float(), s_0=p.s_0.float())
    got, exact = sharpness(single), sharpness(p, tol=1e-8)
    assert got.converged
    assert got.eigenvalues.item() == pytest.approx(exact.eigenvalues.item(), rel=1e-5)
    strict = sharpness(single, tol=1e-12)
    assert not strict.converged
    assert strict.products < 100
    assert 1e-9 < strict.residuals.item() / strict.eigenvalues.item() < 1e-5


def test_weights_that_are_not_finite_give_nan_and_not_converged():
    p = problem(Leaky(0.4, "tanh"))
    with torch.no_grad():
        p.network.W_in[0, 0] = torch.nan
    got = sharpness(p, top=2)
    assert got.eigenvalues.isnan().all()
    assert not got.converged


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"definition": "biggest"}, "unknown definition 'biggest'.*largest, magnitude, released"),
        ({"backend": "arpack"}, "unknown backend 'arpack'.*lanczos, pyhessian"),
        ({"block": "W_inn"}, "unknown block 'W_inn'"),
        ({"top": 21}, r"top must be in 1\.\.20"),
        ({"regulariser": -1.0}, "must be >= 0"),
        ({"chunk_size": 0}, "chunk_size must be a positive number"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(BpgenError, match=message):
        sharpness(problem(), **options)


def test_batches_that_do_not_fit_are_refused():
    p = problem()
    for other, message in (
        (replace(p, x=p.x.transpose(0, 1)), "target must be"),
        (replace(p, x=p.x[..., :2]), r"x must be \[T,B,I\] with I=4"),
        (replace(p, s_0=p.s_0[:2]), r"initial_state must be \[B,d,N\]"),
        (replace(p, loss="hinge"), "unknown loss 'hinge'"),
    ):
        with pytest.raises(BpgenError, match=message):
            sharpness(other)
