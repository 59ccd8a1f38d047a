"""Every complexity measure against an independent one: dense Hessians, differences, closed forms, invariances."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import bpgen
from bpgen.complexity import MEASURES, SHARPNESS, Trained, measured
from bpgen.complexity import curvature as by_hessian
from bpgen.complexity.function import input_gradient, margin, state_jacobian
from bpgen.complexity.neighbourhood import RADIUS, SIGMA, under_noise, worst_case
from bpgen.complexity.trained import PROBES, sketch
from bpgen.complexity.weights import distance, effective_rank, spectral_radius
from bpgen.curvature import HessianProducts
from bpgen.losses import Loss
from bpgen.neurons import GRU, Leaky
from bpgen.problem import Problem
from tests.curvature.dense import PROBLEMS, asked, dense_hessian, free_entries, objective
from tests.oracles import problem, randn

SMOOTH = ("potential, mse, masked", "rate, cross-entropy, last", "GRU, cross-entropy, all")


def trained(p, seed=0):
    here = asked(p, objective(p))
    start = {name: w + 0.1 * randn(i, *w.shape) for i, (name, w) in enumerate(here.params.items())}
    return Trained(here, start, "all", seed)


def theta_of(p):
    params = p.network.params()
    return torch.cat([params[name][entries] for name, entries in free_entries(p, "all").items()])


@pytest.mark.parametrize("name", SMOOTH)
def test_measures_of_the_hessian_against_a_dense_one(name):
    p = PROBLEMS[name]()
    net, theta = trained(p), theta_of(p)
    H, H_rec = dense_hessian(p, "all"), dense_hessian(p, "W_rec")
    top, top_rec = (torch.linalg.eigvalsh(M)[-1].item() for M in (H, H_rec))
    assert by_hessian.lambda_all(net) == pytest.approx(top, rel=1e-5)
    assert by_hessian.lambda_rec(net) == pytest.approx(top_rec, rel=1e-5)
    assert top_rec < 0.99 * top
    assert by_hessian.lambda_theta(net) == pytest.approx(top * theta.square().sum().item(), rel=1e-5)
    T = theta.abs().diag()
    assert by_hessian.adaptive(net) == pytest.approx(torch.linalg.eigvalsh(T @ H @ T)[-1].item(), rel=1e-5)


def test_trace_and_frobenius_norm_against_a_dense_hessian():
    p = PROBLEMS["rate, cross-entropy, last"]()
    H, products = dense_hessian(p, "all"), HessianProducts(asked(p), "all")
    trace, frobenius = H.trace().item(), torch.linalg.matrix_norm(H).item()
    assert sketch(products, products.size) == pytest.approx((trace, frobenius), rel=1e-9)
    found = np.array([sketch(products, 5, seed) for seed in range(200)])
    for values, true in ((found[:, 0], trace), (found[:, 1] ** 2, frobenius**2)):
        error = values.std() / len(values) ** 0.5
        assert abs(values.mean() - true) < 4 * error
        assert error < 0.1 * true
    net, by_hand = trained(p), sketch(products, PROBES, 0)
    assert (by_hessian.trace(net), by_hessian.frobenius(net)) == pytest.approx(by_hand, rel=1e-9)
    assert by_hand != pytest.approx(sketch(HessianProducts(asked(p), "W_rec"), PROBES, 0), rel=0.2)


def test_fisher_rao_is_the_mean_square_of_a_difference_along_the_weights():
    p = PROBLEMS["rate, cross-entropy, last"]()
    net, h = trained(p), 1e-5
    losses = [net.at.per_sample((1 + s * h) * net.at.theta) for s in (1, -1)]
    assert by_hessian.fisher_rao(net) == pytest.approx(
        ((losses[0] - losses[1]) / (2 * h)).square().mean().item(), rel=1e-6
    )


def test_the_worst_case_is_no_smaller_than_what_a_search_finds_and_fits_the_quadratic():
    p = PROBLEMS["rate, cross-entropy, last"]()
    net, H = trained(p), dense_hessian(p, "all")
    directions = randn(0, 300, net.at.theta.numel())
    base = net.at.value(net.at.theta)
    rises = [float(net.at.value(net.at.theta + RADIUS * d / d.norm()) - base) for d in directions]
    theta = net.at.theta.clone().requires_grad_()
    (g,) = torch.autograd.grad(net.at.value(theta), theta)
    found = worst_case(net)
    assert max(rises) < found <= 1.02 * (RADIUS * g.norm() + 0.5 * RADIUS**2 * torch.linalg.eigvalsh(H)[-1]).item()


def test_weight_noise_raises_the_loss_by_half_its_variance_times_the_trace():
    p = PROBLEMS["rate, cross-entropy, last"]()
    true = 0.5 * SIGMA**2 * dense_hessian(p, "all").trace().item()
    found = np.array([under_noise(trained(p, seed=seed)) for seed in range(100)])
    assert abs(found.mean() - true) < 4 * found.std() / 10 + 0.01 * true
    assert found.std() / 10 < 0.2 * true


def moved(p, change):
    """A network that training has moved by so much in W_rec."""
    here = asked(p)
    start = {name: w - change if name == "W_rec" else w for name, w in here.params.items()}
    return Trained(here, start)


def test_distance_and_rank_of_a_known_change():
    p = problem(N=6, autapses=True)
    Q = torch.linalg.qr(randn(0, 6, 6))[0]
    for rank in (1, 4):
        change = 0.5 * Q[:, :rank] @ Q[:, :rank].T
        net = moved(p, change)
        assert effective_rank(net) == pytest.approx(rank, rel=1e-6)
        assert distance(net) == pytest.approx(0.5 * rank**0.5, rel=1e-12)
        assert effective_rank(moved(p, 7 * change)) == pytest.approx(rank, rel=1e-6)
    assert math.isnan(effective_rank(moved(p, 0 * change)))
    uneven = Q[:, :2] @ torch.tensor([3.0, 1.0]).double().diag() @ Q[:, 2:4].T
    assert effective_rank(moved(p, uneven)) == pytest.approx(4 / 27**0.25, rel=1e-6)  # exp of the entropy of (¾, ¼)
    whole = trained(p)
    parts = [(whole.problem.params[n] - whole.start[n]).square().sum() for n in whole.start]
    assert distance(whole) == pytest.approx(float(sum(parts)) ** 0.5, rel=1e-12)
    silenced = problem(N=6)  # no autapses: a change of the diagonal is none
    assert distance(moved(silenced, torch.eye(6).double())) == 0


def test_spectral_radius():
    p = problem(N=6)
    W = p.network.params()["W_rec"].numpy().copy()
    np.fill_diagonal(W, 0)
    true = np.abs(np.linalg.eigvals(W)).max()
    assert spectral_radius(trained(p)) == pytest.approx(true, rel=1e-10)
    scaled = replace(asked(p), params={**p.network.params(), "W_rec": 3 * p.network.params()["W_rec"]})
    assert spectral_radius(Trained(scaled, {})) == pytest.approx(3 * true, rel=1e-10)
    gru = problem(GRU(), N=3)
    blocks = (gru.network.params()["W_rec"] * gru.network.rec_mask).numpy().reshape(-1, 3, 3)
    assert spectral_radius(trained(gru)) == pytest.approx(max(np.abs(np.linalg.eigvals(b)).max() for b in blocks))


@pytest.mark.parametrize("when", ["last", "all"])
def test_margin_by_hand(when):
    p = problem(loss="cross_entropy", when=when, B=40, O=4, masked=when == "all")
    net = trained(p)
    outputs, target = net.problem.outputs().numpy().reshape(-1, 4), p.target.numpy().ravel()
    margins = np.array([y[c] - np.delete(y, c).max() for y, c in zip(outputs, target, strict=True)])
    assert margin(net) == pytest.approx(np.quantile(margins, 0.1), rel=1e-9)
    assert margin(net) < 0 < np.quantile(margins, 0.9)
    shifted = net.problem.at(b_out=net.problem.params["b_out"] + 5)
    assert margin(Trained(shifted, {})) == pytest.approx(margin(net), rel=1e-9)
    assert math.isnan(margin(trained(problem())))


def test_margin_counts_only_the_steps_of_the_mask():
    p = problem(loss="cross_entropy", B=5, O=4)
    mask = torch.zeros(7, 5, dtype=torch.float64)
    mask[-1] = 1
    last = asked(p, Loss("cross_entropy", "last"))
    last = replace(last, target=p.target[-1])
    masked, plain = (Trained(asked(p, Loss("cross_entropy", "all", m)), {}) for m in (mask, None))
    assert margin(masked) == pytest.approx(margin(Trained(last, {})), rel=1e-12)
    assert margin(plain) != pytest.approx(margin(masked), rel=0.01)


@pytest.mark.parametrize("name", [*SMOOTH, "learned initial state"])
def test_input_gradient_against_differences(name):
    p = PROBLEMS[name]()
    net, h, squares = trained(p), 1e-6, 0.0
    x = net.problem.x
    for index in np.ndindex(*x.shape):
        sides = []
        for sign in (1, -1):
            moved_x = x.clone()
            moved_x[index] += sign * h
            here = replace(net.problem, x=moved_x)
            sides.append(here.per_sample(here.run())[index[1]].item())
        squares += ((sides[0] - sides[1]) / (2 * h)) ** 2
    assert input_gradient(net) == pytest.approx((squares / x.shape[1]) ** 0.5, rel=1e-5)


NEURONS = {
    "potential": Leaky(0.4, "tanh"),
    "rate": Leaky(0.4, "tanh", "rate"),
    "GRU": GRU(),
    "LSTM": bpgen.neurons.LSTM(),
}


@pytest.mark.parametrize("name", [*NEURONS, "padded"])
def test_state_jacobian_against_a_dense_one(name):
    p = problem(NEURONS.get(name, Leaky(0.4, "tanh")), N=4, masked=name == "padded")
    last = [p.x.shape[0]] * 3
    if name == "padded":
        last = [2, 5, 7]
        for b, length in enumerate(last):
            p.mask[length:, b] = 0
            p.mask[0, b] = 0  # a step before the last one that counts is no padding
            p.x[length:, b] = 30  # neurons would saturate there
    network, params = p.network, p.network.masked(p.network.params())
    run = asked(p).run(in_place=False)
    squares = []
    for b in range(p.x.shape[1]):
        for t in range(last[b]):

            def step(s, t=t, b=b):
                s = s.view(1, -1, 4)
                return network.advance(params, s, network.neuron.g(s), p.x[t, b : b + 1])[1].flatten()

            J = torch.autograd.functional.jacobian(step, run.states[t, b].flatten())
            squares.append(J.square().sum().item())
    true = np.mean(squares)
    found = np.array([state_jacobian(trained(p, seed=seed)) ** 2 for seed in range(200)])
    assert abs(found.mean() - true) < 4 * found.std() / 200**0.5  # J v of one v: unbiased
    assert found.std() / 200**0.5 < 0.05 * true


def test_state_jacobian_of_a_linear_network():
    p = problem(Leaky(0.3, "linear"), B=400, N=5)
    W = p.network.masked(p.network.params())["W_rec"]
    closed = torch.linalg.matrix_norm(0.7 * torch.eye(5) + 0.3 * W).item()
    assert state_jacobian(trained(p)) == pytest.approx(closed, rel=0.05)
    assert torch.linalg.matrix_norm(W).item() != pytest.approx(closed, rel=0.2)


def test_what_a_rescaling_of_neurons_changes():
    """ReLU: currents of neuron i times c_i and what it sends times 1/c_i leave the function as it is."""
    net = bpgen.Network(Leaky(0.5, "relu"), 4, 6, 3, dtype=torch.float64, seed=1)
    c = torch.tensor([0.3, 2.0, 1.0, 5.0, 0.7, 1.5], dtype=torch.float64)
    params = net.params()
    scaled = {**params, "W_in": c[:, None] * params["W_in"], "W_out": params["W_out"] / c}
    scaled["W_rec"] = c[:, None] * params["W_rec"] / c
    x, y = randn(0, 5, 40, 4), torch.randint(3, (40,), generator=torch.Generator().manual_seed(0))
    before, after = (measured(Trained(Problem(net, w, x, y, Loss()), params)) for w in (params, scaled))
    kept = {"adaptive", "fisher_rao", "margin", "input_gradient", "spectral_radius"}
    for m in MEASURES:
        same = before[m.name] == pytest.approx(after[m.name], rel=1e-4)
        assert same == (m.name in kept), m.name


def test_the_table():
    names = [m.name for m in MEASURES]
    assert len(set(names)) == len(names) == 15
    assert SHARPNESS in names
    for m in MEASURES:
        text = " ".join((m.of.__doc__ or "").split())
        assert re.search(r"(19|20)\d\d|measures`", text), m.name
    p = PROBLEMS["rate, cross-entropy, last"]()
    values = measured(trained(p))
    assert list(values) == names
    assert all(map(math.isfinite, values.values()))
    broken = replace(trained(p).problem, params={**p.network.params(), "b_out": torch.full((3,), torch.nan)})
    assert all(map(math.isnan, measured(Trained(broken, p.network.params())).values()))
