"""Both ends of a spectrum, its density, its trace, and who takes part in an eigenvector, against dense matrices."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bpgen
from bpgen.curvature import (
    HessianProducts,
    ModuleProducts,
    density,
    lanczos,
    module_sharpness,
    participation,
    trace,
)
from bpgen.errors import BpgenError
from bpgen.neurons import Leaky
from tests.curvature.dense import asked, dense_hessian
from tests.curvature.matrices import SPECTRA, Matrix, symmetric
from tests.oracles import distance, problem, randn


def test_the_largest_eigenvalue_of_a_thousand_problems_is_right_in_all():
    """Indefinite, negative, repeated, low-rank, wide and degenerate spectra, a third of them with a planted crossing:
    the warm start is an exact eigenvector that has been overtaken."""
    for i in range(1000):
        P = 2 + i * 7 % 23
        spectrum = SPECTRA[i % len(SPECTRA)](P, i)
        H, start = symmetric(spectrum, i), None
        if i % 3 == 0:
            values, vectors = torch.linalg.eigh(H)
            overtaken = vectors[:, -1]
            riser = vectors[:, -2]
            H = H + (values[-1] - values[-2] + 0.05 * values.abs().max().clamp_min(1e-3)) * torch.outer(riser, riser)
            start = overtaken.unsqueeze(0)
        exact = torch.linalg.eigvalsh(H)[-1]
        got = lanczos(Matrix(H), tol=1e-6, seed=i, start=start)
        assert got.converged
        assert abs(got.eigenvalues[0] - exact) <= 1e-6 * exact.abs() + 1e-12 * H.abs().max(), i


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_smallest_and_both_ends(spectrum):
    for P, k in ((4, 2), (12, 1), (30, 3)):
        H = symmetric(spectrum(P, P), P)
        exact, size = torch.linalg.eigvalsh(H), H.abs().max()
        low, ends = (lanczos(Matrix(H), k, which=which, tol=1e-8) for which in ("smallest", "both"))
        assert low.converged
        assert ends.converged
        torch.testing.assert_close(low.eigenvalues, exact[:k], rtol=1e-7, atol=1e-12 * float(size))
        both = torch.cat([exact[-k:].flip(0), exact[:k].flip(0)])
        torch.testing.assert_close(ends.eigenvalues, both, rtol=1e-7, atol=1e-12 * float(size))
        for pairs in (low, ends):
            r = (pairs.vectors @ H - pairs.eigenvalues[:, None] * pairs.vectors).norm(dim=1)
            assert torch.allclose(r, pairs.residuals, atol=1e-12 * size)


def test_density_integrates_to_one_and_its_moments_match():
    values = torch.cat([torch.linspace(-1, 1, 180), torch.tensor([10.0] * 12 + [5.0] * 8)]).double()
    got = density(Matrix(symmetric(values, 0)), probes=16, steps=20, seed=1)
    assert torch.allclose(got.weights.sum(1), torch.ones(16, dtype=torch.float64), atol=1e-12)
    grid = torch.linspace(-5, 15, 4001, dtype=torch.float64)
    phi, error = got.on(grid)
    assert torch.trapezoid(phi, grid).item() == pytest.approx(1, abs=1e-6)
    assert (error >= 0).all()
    for q in range(5):
        mean, spread = got.moment(q)
        exact = values.pow(q).mean().item()
        assert abs(mean - exact) <= 4 * spread + 1e-12, q
        assert spread < 0.2 * exact + 0.05
    count, spread = got.count(3.0)
    assert abs(count - 20) <= 4 * spread
    assert 0 < spread < 5
    assert got.products == 16 * 20
    again, other = (density(Matrix(symmetric(values, 0)), 16, 20, seed=s) for s in (1, 2))
    assert torch.equal(got.nodes, again.nodes)
    assert not torch.equal(got.nodes, other.nodes)


def test_quadrature_is_exact_for_each_probes_own_moments():
    values = randn(0, 40)
    H, got = symmetric(values, 3), density(Matrix(symmetric(values, 3)), probes=2, steps=5)
    z = torch.randint(0, 2, (2, 40), generator=bpgen.streams.generator(0, "density")).double() * 2 - 1
    for q in range(10):
        exact = torch.stack([v @ torch.linalg.matrix_power(H, q) @ v / 40 for v in z])
        torch.testing.assert_close((got.weights * got.nodes**q).sum(1), exact, rtol=1e-9, atol=1e-9)
    assert (got.weights * got.nodes**10).sum(1).sub(exact).abs().max() > 1e-6


@pytest.mark.parametrize("rank", [0, 3])
def test_density_of_a_matrix_of_low_rank_survives_the_end_of_the_krylov_space(rank):
    values = torch.where(torch.arange(50) < rank, 5.0, 0.0).double()
    got = density(Matrix(symmetric(values, 0)), probes=4, steps=30)
    assert torch.allclose(got.weights.sum(1), torch.ones(4, dtype=torch.float64), atol=1e-10)
    assert got.moment(1)[0] == pytest.approx(values.mean().item(), abs=4 * got.moment(1)[1] + 1e-10)


def test_intervals_of_the_trace_cover_as_often_as_they_say():
    values = torch.cat([torch.tensor([50.0, 20, -10]), randn(0, 200)])
    H, covered = symmetric(values, 0), 0
    for seed in range(200):
        got = trace(Matrix(H), products=36, seed=seed)
        covered += got.low <= values.sum() <= got.high
        assert got.products == 36
    assert 180 <= covered < 200


def test_hutch_plus_plus_is_exact_at_low_rank_and_better_than_hutchinson_where_few_dominate():
    low = torch.where(torch.arange(100) < 4, randn(1, 100), 0.0)
    got = trace(Matrix(symmetric(low, 0)), products=30)
    assert got.value == pytest.approx(low.sum().item(), abs=1e-9)
    assert got.high - got.low < 1e-9
    small = trace(Matrix(symmetric(randn(0, 5), 0)), products=30)
    assert small.value == pytest.approx(randn(0, 5).sum().item())
    assert small.products == 5
    values = 100.0 / torch.arange(1, 301).double() ** 2
    H = symmetric(values, 0)
    z = torch.randint(0, 2, (60, 40, 300), generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    hutchinson = torch.einsum("sni,ij,snj->s", z, H, z) / 40
    ours = torch.tensor([trace(Matrix(H), 40, seed=s).value for s in range(60)], dtype=torch.float64)
    assert (ours - values.sum()).square().mean() < 0.1 * (hutchinson - values.sum()).square().mean()


def test_spectra_of_a_network_are_those_of_its_dense_hessian():
    p = problem(Leaky(0.4, "tanh"), N=6)
    H = dense_hessian(p, "all")
    operator = HessianProducts(asked(p), "all")
    exact = torch.linalg.eigvalsh(H)
    got = bpgen.sharpness(
        p.network, p.x, p.target, p.loss, p.when, p.mask, p.s_0, block="all", definition="both", top=2
    )
    torch.testing.assert_close(
        got.eigenvalues, torch.cat([exact[-2:].flip(0), exact[:2].flip(0)]), rtol=1e-6, atol=1e-9
    )
    assert (got.free, got.products_by, got.block) == (len(H), "roperator", "all")
    estimate = trace(operator, products=3 * len(H))
    assert estimate.value == pytest.approx(H.trace().item(), rel=1e-10)
    mean, spread = density(operator, probes=12, steps=10).moment(1)
    assert abs(mean - H.trace().item() / len(H)) <= 4 * spread


def test_participation_counts_the_weights_onto_and_from_each_neuron():
    network = bpgen.Network(Leaky(), 3, 4, 2, bias="both", dtype=torch.float64)
    free = sum(w.numel() for w in network.parameters()) - 4
    names = list(network.params())
    W = torch.zeros(4, 4, dtype=torch.float64)
    W[2, 0], W[2, 1], W[1, 3] = 0.6, 0.0, 0.8
    off = ~torch.eye(4, dtype=torch.bool)
    got = participation(network, W[off])
    assert got.incoming.tolist() == pytest.approx([0, 0.64, 0.36, 0])
    assert got.outgoing.tolist() == pytest.approx([0.36, 0, 0, 0.64])
    assert got.effective[0] == pytest.approx(1 / (0.64**2 + 0.36**2))
    assert len(names) == 5
    whole = participation(network, torch.full((free,), free**-0.5, dtype=torch.float64), "all")
    assert whole.incoming.tolist() == pytest.approx([(3 + 3 + 1) / free] * 4)
    assert whole.outgoing.tolist() == pytest.approx([(3 + 2) / free] * 4)


def test_any_module_is_measured_and_left_as_found():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 2)).double()
    x, y = randn(1, 20, 3), torch.arange(20) % 2
    model.eval()

    def loss(m: nn.Module) -> torch.Tensor:
        return F.cross_entropy(m(x), y)

    names = [n for n, _ in model.named_parameters()]
    sizes = [p.numel() for p in model.parameters()]

    def value(theta: torch.Tensor) -> torch.Tensor:
        parts = {n: t.view(p.shape) for n, t, p in zip(names, theta.split(sizes), model.parameters(), strict=True)}
        return F.cross_entropy(torch.func.functional_call(model, parts, (x,)), y)

    theta = torch.cat([p.detach().flatten() for p in model.parameters()])
    H = torch.autograd.functional.hessian(value, theta)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    got = module_sharpness(model, loss, top=2, definition="both", tol=1e-9)
    exact = torch.linalg.eigvalsh(H)
    torch.testing.assert_close(got.eigenvalues, exact[[-1, -2, 1, 0]], rtol=1e-7, atol=1e-10)
    assert got.products_by == "autograd"
    some = ModuleProducts(model, loss, ["3.weight"])
    inside = torch.cat([torch.full((s,), n == "3.weight") for n, s in zip(names, sizes, strict=True)])
    assert distance(some(torch.eye(8, dtype=torch.float64)), H[inside][:, inside]) < 1e-12
    model.train()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    drawn = ModuleProducts(model, loss)
    v = randn(0, drawn.size)
    assert torch.equal(drawn(v), drawn(v))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(w, before[n]) for n, w in model.state_dict().items())
    with pytest.raises(BpgenError, match=r"unknown block '3.weigth'. Did you mean '3.weight'"):
        ModuleProducts(model, loss, "3.weigth")


def test_numbers_out_of_range_are_named():
    operator = Matrix(torch.eye(5, dtype=torch.float64))
    with pytest.raises(BpgenError, match="products must be at least 6"):
        trace(operator, products=5)
    with pytest.raises(BpgenError, match="confidence"):
        trace(operator, confidence=1.0)
    with pytest.raises(BpgenError, match="probes and steps must be positive"):
        density(operator, probes=0)
