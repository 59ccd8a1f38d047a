"""Measures beyond λ_1: closed forms on quadratics and homogeneous networks, and rescalings that change no function."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

import bpgen
from bpgen.curvature import HessianProducts, lanczos
from bpgen.curvature.block import BlockProblem
from bpgen.curvature.measures import (
    adaptive,
    fisher_rao,
    lambda_theta,
    top_mass,
    under_noise,
    worst_case,
)
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.neurons import Leaky
from bpgen.problem import Problem
from tests.curvature.dense import PROBLEMS, asked, dense_hessian, free_entries, objective
from tests.oracles import autograd, problem, randn


def quadratic(P=8, seed=0, lowest=0.1):
    """L = ½ θᵀ H θ + bᵀ θ with known H."""
    Q = torch.linalg.qr(randn(seed, P, P))[0]
    H = Q @ torch.diag(torch.linspace(lowest, 5, P, dtype=torch.float64)) @ Q.T
    b = randn(seed + 1, P)
    return (lambda theta: 0.5 * theta @ H @ theta + b @ theta), H, b, randn(seed + 2, P)


def largest_rise(H, g, r):
    """max of gᵀε + ½ εᵀHε over ‖ε‖ <= r by the secular equation: (μ - H) ε = g, μ > λ_1."""
    values, vectors = np.linalg.eigh(H)
    c = vectors.T @ g
    excess = brentq(lambda s: np.sum((c / (values[-1] + np.exp(s) - values)) ** 2) - r**2, -30, 30, xtol=1e-14)
    epsilon = vectors @ (c / (values[-1] + np.exp(excess) - values))
    return g @ epsilon + 0.5 * epsilon @ H @ epsilon


@pytest.mark.parametrize("r", [0.01, 0.3, 3.0])
@pytest.mark.parametrize("elementwise", [False, True])
def test_worst_case_on_a_quadratic_is_the_solution_of_the_secular_equation(r, elementwise):
    value, H, b, theta = quadratic()
    T = torch.diag(theta.abs()) if elementwise else torch.eye(8, dtype=torch.float64)
    true = largest_rise((T @ H @ T).numpy(), (T @ (H @ theta + b)).numpy(), r)
    found = worst_case(value, theta, r, elementwise=elementwise, steps=300)
    assert found == pytest.approx(true, rel=1e-6)
    g = T @ (H @ theta + b)
    sam = T @ (r * g / g.norm())
    once = worst_case(value, theta, r, elementwise=elementwise, steps=1)
    assert once == pytest.approx((value(theta + sam) - value(theta)).item(), rel=1e-9)
    assert once < found
    assert worst_case(value, theta, r, elementwise=not elementwise, steps=300) != pytest.approx(true, rel=1e-4)


def test_worst_case_at_a_minimum_is_half_lambda_r_squared():
    value, H, b, _ = quadratic()
    minimum = torch.linalg.solve(H, -b)
    assert worst_case(value, minimum, 0.2, steps=300) == pytest.approx(0.5 * 5 * 0.04, rel=1e-6)
    assert worst_case(lambda theta: 0.5 * theta.square().sum(), torch.zeros(3).double(), 0.2) == pytest.approx(0.02)


@pytest.mark.parametrize("elementwise", [False, True])
def test_loss_under_noise_on_a_quadratic_is_half_sigma_squared_times_the_trace(elementwise):
    value, H, _, theta = quadratic()
    T = torch.diag(theta.abs()) if elementwise else torch.eye(8, dtype=torch.float64)
    true = 0.5 * 0.3**2 * torch.trace(T @ H @ T).item()
    found = under_noise(value, theta, 0.3, elementwise=elementwise, draws=2000)
    assert abs(found.mean - true) < 4 * found.error
    assert found.error < 0.03 * true
    exact = 0.5 * 0.3**2 * np.sqrt(2) * torch.linalg.matrix_norm(T @ H @ T).item() / 2000**0.5
    assert found.error == pytest.approx(exact, rel=0.2)  # the gradient's share is gone
    assert under_noise(value, theta, 0.3, elementwise=elementwise, draws=2000, seed=1).mean != found.mean
    assert abs(under_noise(value, theta, 0.3, elementwise=not elementwise, draws=2000).mean - true) > 10 * found.error


@pytest.mark.parametrize("name", PROBLEMS)
def test_objective_against_the_slow_network(name):
    p = PROBLEMS[name]()
    params = p.network.params()
    whole, bare = (BlockProblem(asked(p, objective(p, l2)), "all", torch.float64) for l2 in (0.1, 0.0))
    penalty = 0.05 * sum(params[n].square().sum() for n in ("W_in", "W_rec", "W_out"))
    result = p.rule("bptt")
    assert torch.isclose(bare.value(bare.theta), result.loss, rtol=1e-12)
    assert torch.isclose(whole.value(whole.theta), result.loss + penalty, rtol=1e-12)
    losses = whole.per_sample(whole.theta)
    each = torch.stack([p.part(slice(b, b + 1)).rule("bptt").loss for b in range(p.x.shape[1])])
    assert torch.allclose(losses, each, rtol=1e-12)
    theta = torch.cat([params[n][entries] for n, entries in free_entries(p, "all").items()])
    along = []
    for b in range(p.x.shape[1]):
        grads = autograd(p.part(slice(b, b + 1)))
        g = torch.cat([grads[n][entries] for n, entries in free_entries(p, "all").items()])
        along.append((g @ theta) ** 2)
    assert fisher_rao(whole.per_sample, whole.theta) == pytest.approx(torch.stack(along).mean().item(), rel=1e-10)


@pytest.mark.parametrize("block", ["W_rec", "all"])
def test_adaptive_sharpness_against_a_dense_matrix(block):
    p = problem(Leaky(0.4, "tanh"), loss="cross_entropy")
    H = dense_hessian(p, block)
    theta = BlockProblem(asked(p), block).theta
    true = torch.linalg.eigvalsh(theta.abs().diag() @ H @ theta.abs().diag())[-1].item()
    products = HessianProducts(asked(p), block)
    found, residual = adaptive(products, theta, tol=1e-8)
    assert found == pytest.approx(true, rel=1e-8)
    assert residual <= 1e-8 * found
    values = torch.linalg.eigvalsh(H).flip(0)
    assert found != pytest.approx(values[0].item(), rel=0.01)
    assert lambda_theta(2.0, theta) == pytest.approx(2 * theta.norm().item() ** 2)
    assert top_mass(values, H.trace().item()) == pytest.approx(1)
    assert top_mass(values[:2], H.trace().item()) == pytest.approx((values[0] + values[1]).item() / H.trace().item())
    assert np.isnan(top_mass(values, -1.0))


def test_fisher_rao_of_a_homogeneous_network():
    """One step of ReLU neurons without biases: outputs of degree 2 in the weights, Liang et al. 2019."""
    net = bpgen.Network(Leaky(1.0), 4, 6, 3, bias="none", dtype=torch.float64, seed=1)
    x, y = randn(0, 1, 9, 4), torch.randint(3, (9,), generator=torch.Generator().manual_seed(0))
    outputs = net(x).detach().requires_grad_()
    torch.nn.functional.cross_entropy(outputs, y, reduction="sum").backward()
    closed = 4 * (outputs.grad * outputs).sum(1).square().mean().item()
    at = BlockProblem(Problem(net, net.params(), x, y, Loss()), "all")
    assert fisher_rao(at.per_sample, at.theta) == pytest.approx(closed, rel=1e-12)
    longer = randn(1, 2, 9, 4)  # two steps: the degree is no longer the same for all paths
    outputs = net(longer).detach().requires_grad_()
    torch.nn.functional.cross_entropy(outputs, y, reduction="sum").backward()
    closed = 4 * (outputs.grad * outputs).sum(1).square().mean().item()
    at = BlockProblem(Problem(net, net.params(), longer, y, Loss()), "all")
    assert fisher_rao(at.per_sample, at.theta) != pytest.approx(closed, rel=0.01)


def flatness(p, l2=None):
    """All measures of one network, over all weights."""
    problem = asked(replace(p, s_0=None), Loss.of(p.loss, p.when, p.mask, l2))
    at, products = BlockProblem(problem, "all"), HessianProducts(problem, "all")
    sharp = lanczos(products, tol=1e-8).eigenvalues[0].item()
    return {
        "adaptive": adaptive(products, at.theta, tol=1e-8)[0],
        "fisher_rao": fisher_rao(at.per_sample, at.theta),
        "elementwise ball": worst_case(at.value, at.theta, 0.1, elementwise=True, steps=5),
        "elementwise noise": under_noise(at.value, at.theta, 0.1, elementwise=True, draws=3).mean,
        "lambda": sharp,
        "lambda_theta": lambda_theta(sharp, at.theta),
        "ball": worst_case(at.value, at.theta, 0.1, steps=5),
        "noise": under_noise(at.value, at.theta, 0.1, draws=3).mean,
    }


INVARIANT = ("adaptive", "fisher_rao", "elementwise ball", "elementwise noise")


def rescaled(p):
    """c_i on the currents of neuron i, 1/c_i on what it sends: the same function where φ is a ReLU."""
    before = p.network(p.x).detach()
    c = randn(9, p.network.n_rec).exp()
    with torch.no_grad():
        p.network.W_rec *= c.unsqueeze(1) / c
        p.network.W_in *= c.unsqueeze(1)
        p.network.b_rec *= c
        p.network.W_out /= c
    return (p.network(p.x) - before).abs().max().item()


def at_rest(activation):
    return replace(problem(Leaky(0.4, activation), loss="cross_entropy", when="last", N=4, T=4), s_0=None)


def test_rescaling_relu_neurons_changes_lambda_but_not_the_invariant_measures():
    p = at_rest("relu")
    before = flatness(p)
    with_l2 = flatness(p, 0.1)
    assert rescaled(p) < 1e-12
    after = flatness(p)
    for name, value in before.items():
        if name in INVARIANT:
            assert after[name] == pytest.approx(value, rel=1e-6), name
        else:
            assert after[name] != pytest.approx(value, rel=0.05), name
    assert flatness(p, 0.1)["adaptive"] != pytest.approx(with_l2["adaptive"], rel=0.01)  # a regulariser notices


def test_the_same_scaling_of_tanh_neurons_is_another_network():
    p = at_rest("tanh")
    before = flatness(p)
    assert rescaled(p) > 0.01
    after = flatness(p)
    assert all(after[name] != pytest.approx(before[name], rel=0.01) for name in INVARIANT)


def test_bad_options():
    value, _, _, theta = quadratic()
    for call in (
        lambda: worst_case(value, theta, 0),
        lambda: worst_case(value, theta, steps=0),
        lambda: under_noise(value, theta, 0),
        lambda: under_noise(value, theta, draws=1),
    ):
        with pytest.raises(BpgenError):
            call()
