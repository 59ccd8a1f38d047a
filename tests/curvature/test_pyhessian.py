"""PyHessian as a second opinion, and one test for every fence around it."""

from __future__ import annotations

import gc
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import bpgen
from bpgen.curvature import HessianProducts, SharpnessResult, density, trace
from bpgen.curvature.pyhessian import model_of, pyhessian
from bpgen.errors import BpgenError
from bpgen.losses import L2, Activity
from bpgen.neurons import Leaky
from tests.curvature.dense import BLOCKS, asked, dense_hessian, objective, spectrum
from tests.curvature.matrices import Matrix
from tests.oracles import Problem, problem

STRICT = {"tol": 1e-6, "max_products": 1000, "backend": "pyhessian"}
every_block = pytest.mark.parametrize("block", BLOCKS)


def sharpness(p: Problem, **options) -> SharpnessResult:
    return bpgen.sharpness(p.network, p.x, p.target, p.loss, p.when, p.mask, p.s_0, **{**STRICT, **options})


def generic(**options) -> Problem:
    """T = 7 and B = 3 differ, steps are weighted, and 3 samples split unevenly."""
    return problem(Leaky(0.4, "tanh"), **{"masked": True, **options})


def mostly_negative() -> Problem:
    return problem(Leaky(0.4, "tanh", "rate"), seed=2, when="last")


@every_block
@pytest.mark.parametrize("make", [generic, mostly_negative, lambda: generic(loss="cross_entropy", seed=2)])
def test_agrees_with_lanczos_and_the_dense_spectrum_on_the_largest_magnitude(make, block):
    p = make()
    got, ours = (
        sharpness(p, block=block, definition="magnitude"),
        sharpness(p, block=block, definition="magnitude", backend="lanczos", max_products=300),
    )
    exact = spectrum(p, block)
    exact = exact[exact.abs().argmax()]
    assert got.eigenvalues.item() == pytest.approx(exact.item(), rel=1e-4)
    assert got.eigenvalues.item() == pytest.approx(ours.eigenvalues.item(), rel=1e-4)
    assert abs(torch.dot(got.vectors[0], ours.vectors[0])) > 0.99
    assert got.backend == "pyhessian"
    H, v = dense_hessian(p, block), got.vectors[0]
    assert v.norm().item() == pytest.approx(1, abs=1e-12)
    assert got.residuals.item() == pytest.approx((H @ v - got.eigenvalues * v).norm().item(), rel=1e-6)
    assert got.products < 1000


def test_the_sign_of_the_largest_magnitude_is_kept_and_the_largest_found_beside_it():
    p = mostly_negative()
    exact = spectrum(p, "W_rec")
    assert exact[-1] < -1.2 * exact[0]
    assert sharpness(p, definition="magnitude").eigenvalues.item() == pytest.approx(exact[-1].item(), rel=1e-4)
    assert sharpness(p, definition="released").eigenvalues.item() == pytest.approx(-exact[-1].item(), rel=1e-4)
    assert sharpness(p).eigenvalues.item() == pytest.approx(exact[0].item(), rel=1e-3)
    got = sharpness(p, top=2, regulariser=0.3)
    torch.testing.assert_close(got.eigenvalues, exact[:2] + 0.3, rtol=1e-3, atol=0)


def test_a_regulariser_of_the_activity_is_seen():
    p, activity = generic(), Activity(20.0, "square")
    mine = sharpness(p, activity=activity, backend="lanczos").eigenvalues.item()
    assert sharpness(p, activity=activity).eigenvalues.item() == pytest.approx(mine, rel=1e-3)
    assert abs(sharpness(p).eigenvalues.item() - mine) > 0.01 * mine


def test_residuals_are_those_of_the_loss_and_convergence_means_the_same_as_for_lanczos():
    loose = sharpness(generic(), tol=1e-3, max_products=100)
    assert loose.residuals.item() > 1e-3 * loose.eigenvalues.item()
    assert not loose.converged
    tight = sharpness(generic(), tol=1e-15, max_products=2000)
    assert tight.residuals.item() < 1e-4
    assert not tight.converged
    ours = sharpness(generic(), tol=1e-10, backend="lanczos")
    assert tight.eigenvalues.item() == pytest.approx(ours.eigenvalues.item(), rel=1e-5)


def test_fence_budget():
    assert sharpness(generic(), tol=1e-15, max_products=7).products == 7 + 1


def test_fence_mode():
    p = generic()
    for training in (True, False):
        p.network.train(training)
        sharpness(p)
        assert p.network.training is training
        assert p.network.neuron.training is training


def test_fence_gradients_of_the_network_are_neither_read_nor_written():
    clean = sharpness(generic())
    p = generic()
    p.network.W_rec.grad = grad = torch.full_like(p.network.W_rec, 1e3)
    got = sharpness(p)
    assert p.network.W_rec.grad is grad
    assert (grad == 1e3).all()
    assert p.network.W_in.grad is None
    assert torch.equal(got.eigenvalues, clean.eigenvalues)


def test_fence_no_graph_stays_in_memory():
    p = generic()

    def tensors() -> int:
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    sharpness(p)
    gc.collect()
    gc.disable()
    try:
        before = tensors()
        for _ in range(3):
            sharpness(p)
        assert tensors() <= before
    finally:
        gc.enable()


def test_fence_global_random_state_is_neither_used_nor_moved():
    p = generic()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = sharpness(p, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(sharpness(p, seed=3).vectors, first.vectors)
    assert not torch.equal(sharpness(p, seed=4).vectors, first.vectors)


def test_fence_time_major_batches_are_weighted_by_samples():
    """Loader batches of 2 and 1 samples would be weighted T : T; here the batch is whole, whatever its order."""
    p = problem(Leaky(0.4, "tanh"), T=9, B=3, loss="cross_entropy", when="last")
    exact = spectrum(p, "W_rec")
    exact = exact[exact.abs().argmax()].item()
    parts = [spectrum(p.part(s), "W_rec") for s in (slice(0, 2), slice(2, 3))]
    assert sharpness(p, definition="magnitude").eigenvalues.item() == pytest.approx(exact, rel=1e-4)
    assert all(abs(part[part.abs().argmax()].item() / exact - 1) > 0.05 for part in parts)


def negative_trace() -> tuple[HessianProducts, torch.Tensor]:
    p = mostly_negative()
    H = dense_hessian(p, "W_rec")
    assert H.trace() < 0
    return HessianProducts(asked(p)), H


def raw(operator: HessianProducts):
    """PyHessian without a fence, on a model of ours."""
    from pyhessian import hessian

    model = model_of(operator)
    return hessian(model, model.criterion, data=(model.problem.x, model.problem.target), cuda=False)


@pytest.mark.filterwarnings("ignore:Using backward")
def test_fence_a_negative_trace_is_not_cut_off_after_two_probes():
    operator, H = negative_trace()
    assert len(raw(operator).trace(maxIter=300, tol=1e-3)) == 2
    got = trace(operator, 300, backend="pyhessian")
    assert got.products == 300
    assert got.low < H.trace().item() < got.high
    assert got.high - got.low < 0.6 * abs(H.trace().item())
    assert trace(operator).low - 1e-9 < got.high
    assert got.products_by == "autograd"


@pytest.mark.filterwarnings("ignore:Using backward")
def test_fence_density_works_without_torch_eig_and_nobody_else_is_given_one():
    operator, H = negative_trace()
    with pytest.raises((AttributeError, RuntimeError)):
        raw(operator).density(iter=3)
    torch.manual_seed(1)
    state, before = torch.get_rng_state(), getattr(torch, "eig", None)
    got = density(operator, 20, 20, backend="pyhessian")
    assert getattr(torch, "eig", None) is before
    assert sys.modules["pyhessian.hessian"].torch is torch
    assert torch.equal(torch.get_rng_state(), state)
    exact = torch.linalg.eigvalsh(H)
    torch.testing.assert_close(got.weights.sum(1), torch.ones(20, dtype=torch.float64), rtol=1e-6, atol=0)
    assert got.nodes.min().item() == pytest.approx(exact[0].item(), rel=1e-3)
    assert got.nodes.max().item() == pytest.approx(exact[-1].item(), rel=1e-3)
    for q in (1, 2):
        mean, error = got.moment(q)
        assert abs(mean - (exact**q).mean().item()) < 4 * error
    ours = density(operator, 20, 20)
    assert abs(ours.count(0)[0] - got.count(0)[0]) < 4 * (ours.count(0)[1] + got.count(0)[1])


def test_fence_trace_and_density_know_their_operators():
    p = generic()
    part = HessianProducts(asked(p), part="residual")
    for operator in (part, Matrix(torch.eye(8, dtype=torch.float64))):
        for measure in (trace, density):
            with pytest.raises(BpgenError, match="takes HessianProducts of the whole Hessian"):
                measure(operator, backend="pyhessian")
            with pytest.raises(BpgenError, match="unknown backend 'theirs'"):
                measure(operator, backend="theirs")


def test_fence_trace_and_density_contain_the_regularisers():
    p = generic()
    plain, l2 = objective(p), replace(objective(p), regulariser=L2.of(0.5))
    operators = [HessianProducts(asked(p, loss)) for loss in (plain, l2)]
    bare, shifted = (density(o, 2, 8, backend="pyhessian") for o in operators)
    torch.testing.assert_close(shifted.nodes, bare.nodes + 0.5, rtol=1e-4, atol=1e-5)


def test_fence_runs_on_the_cpu(monkeypatch):
    def refused(*args, **kwargs):
        raise AssertionError("CUDA was asked for")

    monkeypatch.setattr(torch.Tensor, "cuda", refused)
    sharpness(generic())


def test_fence_parameters_outside_the_block_are_constants():
    p = generic()
    got = pyhessian(asked(p), tol=1e-6)
    assert got.vectors.shape == (1, 20)
    assert all(w.requires_grad for w in p.network.parameters())


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_fence_gradients_may_be_disabled_outside(guard):
    p = generic()
    expected = sharpness(p)
    with guard():
        got = sharpness(p)
    assert torch.equal(got.eigenvalues, expected.eigenvalues)


def test_fence_it_is_imported_only_when_used():
    code = "import sys, bpgen.curvature; assert 'pyhessian' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
