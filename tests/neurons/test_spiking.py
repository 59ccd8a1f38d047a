"""Spiking neurons: their dynamics against plain numpy, their surrogate in every mode of differentiation, their
gradients against autograd and against the published eligibility traces."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch.func import grad, jvp, vmap

from bpgen import Network, load_rule
from bpgen.callbacks import Evaluation, Sharpness
from bpgen.cli import main
from bpgen.curvature.products import HessianProducts
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.neurons import ALIF, LIF, Leaky, Neuron
from bpgen.neurons.surrogate import SURROGATES, Surrogate
from bpgen.registry import find
from bpgen.training.module import RuleTraining
from tests.curvature.dense import asked
from tests.oracles import (
    RECURRENT,
    WEIGHTS,
    assert_differ,
    assert_equal,
    autograd,
    distance,
    no_hop,
    problem,
    randn,
    run_slow,
)
from tests.seeds import assert_seeds_stack

# torch.func.jvp compiles its decompositions with a deprecated part of torch itself, at its first use
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

OPTIONS = {"alpha": 0.4, "threshold": 0.8, "dampening": 0.6, "width": 1.5}
ADAPTIVE = {**OPTIONS, "beta": 0.5, "rho": 0.85}
MAKE = {"lif": lambda **o: LIF(**{**OPTIONS, **o}), "alif": lambda **o: ALIF(**{**ADAPTIVE, **o})}
every_neuron = pytest.mark.parametrize("name", MAKE)
every_reset = pytest.mark.parametrize("reset", ["detached", "attached"])
every_drive = pytest.mark.parametrize("drive", ["scaled", "plain"])
every_surrogate = pytest.mark.parametrize("shape", SURROGATES)


def spiking(name, T=9, **options):
    """A problem in which neurons fire, fall silent, and stand near enough to the threshold to have a slope."""
    network_options = {k: options.pop(k) for k in ("kappa", "autapses", "learned", "when") if k in options}
    p = problem(MAKE[name](**options), T=T, N=8, **network_options)
    if network_options.get("learned"):
        with torch.no_grad():
            p.network.initial_state.abs_()
    slow = run_slow(p, p.network.params())
    z = torch.stack(slow.h)
    assert set(z.unique().tolist()) == {0, 1}
    assert 0.05 < z.mean() < 0.8
    assert len((z[1:] != z[:-1]).nonzero()) > T  # not simply always on or always off
    psi = slopes(p.network.neuron, torch.stack(slow.states))
    assert (psi > 0).flatten(1).double().mean(1).min() > 0.2  # at every step
    return p


def above(neuron, states):
    u = states[..., 0, :] - neuron.threshold
    return u - neuron.beta * states[..., 1, :] if isinstance(neuron, ALIF) else u


def slopes(neuron, states):
    return neuron.surrogate.slope(above(neuron, states), neuron.threshold)


# The spike function


@every_surrogate
def test_values_are_steps_and_slopes_the_published_formulas(shape):
    thr, gamma, delta = 0.7, 0.4, 0.6
    u = 2 * randn(0, 500)
    expected = {
        "piecewise_linear": gamma / thr * np.maximum(0, 1 - np.abs(u.numpy() / (delta * thr))),
        "fast_sigmoid": gamma / thr / (1 + np.abs(u.numpy()) / (delta * thr)) ** 2,
        "gaussian": gamma / thr * np.exp(-(u.numpy() ** 2) / (2 * (delta * thr) ** 2)),
    }[shape]
    surrogate, leaf = Surrogate(shape, gamma, delta), u.clone().requires_grad_()
    z = surrogate.spike(leaf, thr)
    assert (z.detach().numpy() == (u.numpy() > 0)).all()  # exactly
    (psi,) = torch.autograd.grad(z.sum(), leaf)
    for got in (psi, surrogate.slope(u, thr), jvp(lambda u: surrogate.spike(u, thr), (u,), (torch.ones_like(u),))[1]):
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12, atol=1e-15)
    others = [Surrogate(s, gamma, delta).slope(u, thr) for s in SURROGATES if s != shape]
    assert all(distance(other, psi) > 0.05 for other in others)


def test_defaults_are_those_of_lsnn_and_e_prop():
    v, thr = randn(1, 200), 0.6
    psi = 0.3 / thr * np.maximum(0, 1 - np.abs((v.numpy() - thr) / thr))
    np.testing.assert_allclose(LIF(threshold=thr).surrogate.slope(v - thr, thr).numpy(), psi, rtol=1e-13)
    assert (psi > 0).any()
    beta = 4.0  # SuperSpike to the letter
    superspike = Surrogate("fast_sigmoid", dampening=thr, width=1 / (beta * thr))
    np.testing.assert_allclose(superspike.slope(v, thr).numpy(), (1 + beta * np.abs(v.numpy())) ** -2, rtol=1e-13)


@every_surrogate
def test_every_mode_of_differentiation_agrees(shape):
    u, tangent, h = 0.5 * randn(2, 3, 40), randn(3, 3, 40), 1e-6
    spike, slope = (partial(f, threshold=0.7) for f in (Surrogate(shape).spike, Surrogate(shape).slope))

    def total(u):
        return spike(u).sum()

    psi = slope(u)
    curve = (slope(u + h) - slope(u - h)) / (2 * h)  # ψ' by finite differences of the formula
    leaf = u.clone().requires_grad_()
    (first,) = torch.autograd.grad(total(leaf), leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), leaf)
    value, forward = jvp(spike, (u,), (tangent,))
    assert torch.equal(value, (u > 0).double())
    torch.testing.assert_close(first.detach(), psi)
    torch.testing.assert_close(forward, psi * tangent)
    torch.testing.assert_close(jvp(grad(total), (u,), (tangent,))[1], second * tangent)  # forward over reverse
    torch.testing.assert_close(vmap(spike)(u), value)
    torch.testing.assert_close(vmap(grad(total))(u), psi)
    torch.testing.assert_close(vmap(lambda a, b: jvp(spike, (a,), (b,))[1])(u, tangent), forward)
    smooth = (slope(u + h) > 0) & (slope(u - h) > 0) & (u.abs() > 2 * h)
    torch.testing.assert_close(second[smooth], curve[smooth], rtol=1e-5, atol=1e-6)
    assert smooth.double().mean() > 0.5
    assert second.norm() > 0.1


# Dynamics


def simulate(p):
    """Equations of the neuron in plain numpy, number by number: spikes [T+1,B,N], v, a, slopes."""
    net, neuron = p.network, p.network.neuron
    W, U, b = (getattr(net, n).detach().numpy() for n in RECURRENT)
    beta, rho = (neuron.beta, neuron.rho) if isinstance(neuron, ALIF) else (0.0, 0.0)
    thr, decay = neuron.threshold, 1 - neuron.alpha
    G = neuron.alpha if neuron.drive == "scaled" else 1.0
    gamma, delta = OPTIONS["dampening"], OPTIONS["width"]
    (T, B), N, x, s_0 = p.x.shape[:2], net.n_rec, p.x.numpy(), p.s_0.numpy()
    v, a, z, psi = (np.zeros((T + 1, B, N)) for _ in range(4))
    for k in range(B):
        for t in range(T + 1):
            for j in range(N):
                if t == 0:
                    v[t, k, j], a[t, k, j] = s_0[k, 0, j], s_0[k, 1, j] if beta else 0.0
                else:
                    current = U[j] @ x[t - 1, k] + b[j] + sum(W[j, i] * z[t - 1, k, i] for i in range(N) if i != j)
                    v[t, k, j] = decay * v[t - 1, k, j] + G * current - thr * z[t - 1, k, j]
                    a[t, k, j] = rho * a[t - 1, k, j] + z[t - 1, k, j]
                u = v[t, k, j] - thr - beta * a[t, k, j]
                z[t, k, j] = 1.0 if u > 0 else 0.0
                psi[t, k, j] = gamma / thr * max(0.0, 1 - abs(u / (delta * thr)))
    return z, v, a, psi


@every_neuron
@every_drive
@every_reset
def test_dynamics_are_a_plain_loop(name, drive, reset):
    p = spiking(name, drive=drive, reset=reset)
    z, v, a, _ = simulate(p)
    for in_place in (False, True) if name == "lif" else (False,):
        run = p.network.run(p.network.params(), p.x, when="all", initial_state=p.s_0, in_place=in_place)
        np.testing.assert_array_equal(run.h.numpy(), z)
        np.testing.assert_allclose(run.states[..., 0, :].numpy(), v, atol=1e-13)
        if name == "alif":
            np.testing.assert_allclose(run.states[..., 1, :].numpy(), a, atol=1e-13)
    other = spiking(name, drive={"scaled": "plain", "plain": "scaled"}[drive], reset=reset)
    assert np.abs(simulate(other)[1] - v).max() > 0.1


def test_adaptation_without_effect_is_lif():
    p, q = spiking("lif"), spiking("alif", beta=0.0)
    s_0 = torch.cat([p.s_0, torch.zeros_like(p.s_0)], dim=-2)
    run = {n: r.network.run(r.network.params(), p.x, initial_state=s) for n, r, s in (("l", p, p.s_0), ("a", q, s_0))}
    assert torch.equal(run["l"].h, run["a"].h)
    adaptive = spiking("alif").network
    assert not torch.equal(adaptive.run(adaptive.params(), p.x, initial_state=s_0).h, run["l"].h)


# Gradients


@every_reset
@every_surrogate
def test_closed_forms_equal_forward_mode(reset, shape):
    p = spiking("lif", reset=reset, surrogate=shape)
    path = p.network.run(p.network.params(), p.x, initial_state=p.s_0, in_place=False)
    closed, default = p.network.neuron.local(path), Neuron.local(p.network.neuron, path)
    for name, first in (("A", 1), ("C", 1), ("D", 0)):
        times, u = slice(first, 10), randn(7, 10 - first, 3, 1, 8)
        pulled = getattr(default, name).pull(u, times)
        torch.testing.assert_close(getattr(closed, name).pull(u, times), pulled)
        assert pulled.norm() > 0.1


@every_neuron
@every_reset
@pytest.mark.parametrize(
    "options",
    [
        *({}, {"drive": "plain"}, {"surrogate": "fast_sigmoid"}, {"surrogate": "gaussian"}),
        *({"kappa": 0.6}, {"autapses": True}, {"learned": True}, {"when": "last"}),
    ],
)
def test_rules_equal_autograd(name, reset, options):
    p = spiking(name, reset=reset, **options)
    names = (*WEIGHTS, *(["initial_state"] if "learned" in options else []))
    bptt, three_factor = p.rule("bptt").grads, p.rule("three_factor").grads
    assert_equal(bptt, autograd(p), names)
    assert_equal(three_factor, autograd(p, **no_hop()), names)
    assert_differ(three_factor, bptt, RECURRENT)


@every_neuron
def test_the_reset_path_is_part_of_the_gradient_and_not_of_the_dynamics(name):
    detached, attached = spiking(name, reset="detached"), spiking(name, reset="attached")
    assert torch.equal(detached.rule("bptt").outputs, attached.rule("bptt").outputs)
    for rule in ("bptt", "three_factor"):
        assert_differ(attached.rule(rule).grads, detached.rule(rule).grads, RECURRENT, by=0.05)
    assert_differ(autograd(attached), autograd(detached), RECURRENT, by=0.05)


def published_traces(p, trace="published"):
    """e-prop of Bellec 2020 forwards in time, from arrays; ALIF with the detached reset (β = 0: LIF)."""
    net, neuron = p.network, p.network.neuron
    z, _, _, psi = simulate(p)
    R, c, x, target = net.W_out.detach().numpy(), net.b_out.detach().numpy(), p.x.numpy(), p.target.numpy()
    beta, rho = (neuron.beta, neuron.rho) if isinstance(neuron, ALIF) else (0.0, 0.0)
    decay, kappa = 1 - neuron.alpha, net.kappa
    G = neuron.alpha if neuron.drive == "scaled" else 1.0
    (T, B, I), N = x.shape, net.n_rec
    total = np.zeros((N, N + I + 1))
    for k in range(B):
        eps_v, eps_a, e_bar = (np.zeros((N, N + I + 1)) for _ in range(3))
        r = np.zeros(N)
        for t in range(1, T + 1):
            if t > 1:
                slope = psi[t - 1, k][:, None]
                eps_a = slope * eps_v + (rho - (0 if trace == "no threshold in adaptation" else slope * beta)) * eps_a
            eps_v = decay * eps_v + G * np.concatenate([z[t - 1, k], x[t - 1, k], [1.0]])[None, :]
            e = psi[t, k][:, None] * (eps_v - (0 if trace == "no adaptation" else beta) * eps_a)
            e_bar = kappa * e_bar + (1 - kappa) * e
            r = kappa * r + (1 - kappa) * z[t, k]
            total += (R.T @ (R @ r + c - target[t - 1, k]))[:, None] * e_bar / B
    W, U, b = np.split(total, [N, N + I], axis=1)
    np.fill_diagonal(W, 0)
    return {n: torch.tensor(g) for n, g in zip(RECURRENT, (W, U, b[:, 0]), strict=True)}


@every_neuron
@every_drive
@pytest.mark.parametrize("kappa", [0.0, 0.6])
def test_three_factor_is_the_published_trace(name, drive, kappa):
    p = spiking(name, T=12, drive=drive, kappa=kappa)
    got, expected = p.rule("three_factor").grads, published_traces(p)
    assert_equal(got, expected, RECURRENT, tol=1e-11)
    assert_equal(p.rule("eprop").grads, expected, RECURRENT, tol=1e-11)
    assert_differ(p.rule("bptt").grads, expected, RECURRENT)
    attached = spiking(name, T=12, drive=drive, kappa=kappa, reset="attached")
    assert_differ(attached.rule("three_factor").grads, expected, RECURRENT)
    if name == "alif":
        for wrong in ("no adaptation", "no threshold in adaptation"):
            assert_differ(published_traces(p, wrong), expected, RECURRENT, by=1e-3)


@every_neuron
@every_reset
@pytest.mark.parametrize("rule", ["bptt", "three_factor"])
def test_stacked_seeds_are_the_seeds_alone(name, reset, rule):
    assert_seeds_stack(spiking(name, reset=reset), rule)


# Curvature


@every_neuron
@every_reset
def test_curvature_is_that_of_the_smooth_network_around_the_present_point(name, reset):
    p = spiking(name, reset=reset, surrogate="gaussian")
    net, neuron = p.network, p.network.neuron
    slow = run_slow(p, net.params())
    at = above(neuron, torch.stack(slow.states)).detach()  # u at the present weights
    H, area, scale = (at > 0).double(), OPTIONS["dampening"] * OPTIONS["width"], OPTIONS["width"] * neuron.threshold

    def S(u):
        return area * math.sqrt(math.pi / 2) * torch.erf(u / scale / math.sqrt(2))

    def gradient(W):
        """Of the smooth network, in which z_t = H_t + S(u_t) - S(u_t at the present weights)."""
        W = W.clone().requires_grad_()
        masked = W * (1 - torch.eye(8, dtype=torch.float64))
        v, a = p.s_0[:, 0], p.s_0[:, 1] if name == "alif" else torch.zeros_like(p.s_0[:, 0])
        beta, rho = (neuron.beta, neuron.rho) if name == "alif" else (0.0, 0.0)
        z, value = H[0] + S(v - neuron.threshold - beta * a) - S(at[0]), 0.0
        for t in range(1, len(p.x) + 1):
            I = z @ masked.T + p.x[t - 1] @ net.W_in.detach().T + net.b_rec.detach()
            v = (1 - neuron.alpha) * v + neuron.alpha * I - neuron.threshold * (z if reset == "attached" else H[t - 1])
            a = rho * a + z
            z = H[t] + S(v - neuron.threshold - beta * a) - S(at[t])
            y = z @ net.W_out.detach().T + net.b_out.detach()
            value = value + 0.5 * (y - p.target[t - 1]).square().sum() / 3
        return torch.autograd.grad(value, W)[0]

    W = net.W_rec.detach()
    torch.testing.assert_close(gradient(W), p.rule("bptt").grads["W_rec"])  # the same at the present weights
    products = HessianProducts(asked(p, Loss("mse", "all")))
    free = ~torch.eye(8, dtype=torch.bool)
    v, w = randn(5, products.size), randn(6, products.size)
    direction = torch.zeros(8, 8, dtype=torch.float64).masked_scatter(free, v)
    Hv = (gradient(W + 1e-5 * direction) - gradient(W - 1e-5 * direction))[free] / 2e-5
    assert Hv.norm() > 1e-3
    assert distance(products(v), Hv) < 1e-6
    assert float(w @ products(v)) == pytest.approx(float(v @ products(w)), rel=1e-10)  # symmetric
    assert distance(products(w), Hv) > 0.1


@every_neuron
def test_sharpness_of_spiking_networks_has_its_own_name(name):
    from bpgen.training.splits import TaskSplits
    from tests.callbacks.test_measurements import Toy

    def measured(neuron):
        network = Network(neuron, 3, 8, 4, seed=1)
        module = RuleTraining(network, load_rule("rflo"), Loss("cross_entropy", "last"), seed=0)
        return Sharpness(samples=20, released=True).measure(Evaluation(module, TaskSplits(Toy(), module.loss)))

    columns = {"lambda_max", "residual", "products", "released"}
    row = measured(MAKE[name](threshold=0.2))
    assert set(row) == {f"sharpness/surrogate/{c}" for c in columns}
    assert row["sharpness/surrogate/released"] > 0
    assert set(measured(Leaky(0.5))) == {f"sharpness/{c}" for c in columns}


# Options and runs


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LIF(0.0), r"alpha must be in \(0, 1\]"),
        (lambda: LIF(threshold=0.0), "threshold must be a positive number"),
        (lambda: LIF(dampening=-0.3), "dampening must be a positive number"),
        (lambda: LIF(width=0.0), "width must be a positive number"),
        (lambda: LIF(reset="atached"), "unknown reset 'atached'.*Did you mean 'attached'"),
        (lambda: LIF(drive="raw"), "unknown drive"),
        (lambda: LIF(surrogate="gausian"), "unknown surrogate 'gausian'.*Did you mean 'gaussian'"),
        (lambda: ALIF(beta=-1.0), "beta must be >= 0"),
        (lambda: ALIF(rho=1.0), r"rho must be in \[0, 1\)"),
        (lambda: LIF.from_tau(-1.0), "tau and dt must be positive"),
        (lambda: ALIF.from_tau(20.0, 0.0), "tau_adaptation and dt must be positive"),
    ],
)
def test_bad_options_name_what_was_expected(build, message):
    with pytest.raises(BpgenError, match=message):
        build()


def test_time_constants():
    assert LIF.from_tau(20.0, dt=2.0).alpha == pytest.approx(1 - math.exp(-0.1), rel=1e-14)
    neuron = ALIF.from_tau(20.0, 200.0, dt=2.0, beta=1.6)
    assert (neuron.alpha, neuron.rho) == pytest.approx((1 - math.exp(-0.1), math.exp(-0.01)), rel=1e-14)
    assert neuron.beta == 1.6


@every_drive
def test_noise_gives_the_potential_the_asked_standard_deviation(drive):
    neuron = LIF(0.05, drive=drive, threshold=1e6)
    noise, v, seen = randn(0, 4000, 1, 50) * 0.3 * neuron.noise_scale, torch.zeros(1, 50, dtype=torch.float64), []
    for xi in noise:
        v = neuron.f(v, xi)
        seen.append(v)
    assert torch.stack(seen[200:]).std().item() == pytest.approx(0.3, rel=0.05)


@pytest.mark.pictures
@every_neuron
def test_a_run_learns_and_leaves_the_columns_of_the_true_loss_empty(name, tmp_path):
    assert find("neuron", name).load().spiking
    small = "--sharpness.samples 32 --alignment.samples 32 --gap.train_samples 64 --gap.test_samples 64"
    run = f"--neuron {name} --rule eprop --network.n_rec 32 --trainer.max_epochs 2 --wandb off --threads 1"
    assert main(["fit", *small.split(), *run.split(), "--optimizer.lr", "0.05", "--out", str(tmp_path)]) == 0
    (folder,) = tmp_path.iterdir()
    table = pd.read_csv(folder / "metrics.csv")
    own = [c for c in table if c.startswith("sharpness/surrogate/")]
    assert {c.rsplit("/")[-1] for c in own} == {"lambda_max", "residual", "products"}
    assert table[own].notna().all(axis=None)
    assert table[["sharpness/lambda_max", "sharpness/residual", "sharpness/products"]].isna().all(axis=None)
    assert table["train/loss"].iloc[-1] < 0.9 * table["train/loss"].iloc[0]
    assert 0 < table["alignment/cosine"].iloc[0] < 1
    assert (folder / "figures" / "sharpness.png").is_file()
