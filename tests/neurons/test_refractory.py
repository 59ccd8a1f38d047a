"""The refractory period: dynamics and gradients against a plain loop that shares nothing with bpgen's neurons."""

from __future__ import annotations

import pytest
import torch

import bpgen
from bpgen.cli import main
from bpgen.curvature.products import HessianProducts
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.neurons import ALIF, LIF, Neuron
from tests.curvature.dense import asked
from tests.oracles import (
    RECURRENT,
    WEIGHTS,
    assert_differ,
    assert_equal,
    distance,
    leaves,
    problem,
    randn,
    true_loss,
)
from tests.seeds import assert_seeds_stack

# torch.func.jvp compiles its decompositions with a deprecated part of torch itself, at its first use
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

THR, GAMMA, DELTA, ALPHA, BETA, RHO = 0.6, 0.6, 1.5, 0.4, 0.5, 0.85
OPTIONS = {"alpha": ALPHA, "threshold": THR, "dampening": GAMMA, "width": DELTA}
MAKE = {"lif": lambda **o: LIF(**OPTIONS, **o), "alif": lambda **o: ALIF(beta=BETA, rho=RHO, **OPTIONS, **o)}
every_neuron = pytest.mark.parametrize("name", MAKE)
every_reset = pytest.mark.parametrize("reset", ["detached", "attached"])


class Spike(torch.autograd.Function):
    """H(u), with the piecewise linear ψ in place of its derivative."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, above):
        (u,) = ctx.saved_tensors
        return above * GAMMA / THR * (1 - (u / (DELTA * THR)).abs()).clamp(min=0)


def refractory(name, n=2, **options):
    network = {k: options.pop(k) for k in ("kappa", "learned") if k in options}
    p = problem(MAKE[name](n_refractory=n, **options), T=14, N=8, **network)
    counts = p.s_0[:, -1] if p.s_0 is not None else p.network.initial_state.data[-1]
    counts.copy_(torch.randint(0, n + 1, counts.shape, generator=torch.Generator().manual_seed(3)))
    return p


def plain(p, params, hop=lambda z: z):
    """Equations of the neuron as a loop in which steps of silence are counted in a list of whole numbers."""
    neuron, adaptive, n = p.network.neuron, isinstance(p.network.neuron, ALIF), p.network.neuron.n_refractory
    mask, kappa = 1 - torch.eye(8, dtype=torch.float64), p.network.kappa
    s = p.start(params)
    v, a = s[:, 0], s[:, 1] if adaptive else torch.zeros_like(s[:, 0])
    left = s[:, -1].detach().long().tolist()
    zs, vs, counts, outputs, r = [], [], [left], [], torch.zeros_like(v)

    def fire():
        free = torch.tensor([[float(c == 0) for c in row] for row in left], dtype=torch.float64)
        return Spike.apply(v - THR - (BETA * a if adaptive else 0)) * free

    z = fire()
    zs.append(z)
    for x in p.x:
        I = hop(z) @ (params["W_rec"] * mask).T + x @ params["W_in"].T + params["b_rec"]
        fired = z.detach().bool().tolist()
        v = (1 - ALPHA) * v + ALPHA * I - THR * (z if neuron.reset == "attached" else z.detach())
        a = RHO * a + z
        left = [
            [n if f else max(c - 1, 0) for f, c in zip(*rows, strict=True)] for rows in zip(fired, left, strict=True)
        ]
        z = fire()
        r = kappa * r + (1 - kappa) * z
        outputs.append(r @ params["W_out"].T + params["b_out"])
        zs.append(z)
        vs.append(v)
        counts.append(left)
    return torch.stack(outputs), torch.stack(zs), torch.stack(vs), torch.tensor(counts)


def autograd(p, **paths):
    params = leaves(p)
    value = true_loss(plain(p, params, **paths)[0], p.target, p.loss, p.when, p.mask)
    grads = torch.autograd.grad(value, list(params.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(params, grads, strict=True))


@every_neuron
@every_reset
@pytest.mark.parametrize("n", [1, 3])
def test_dynamics_are_a_plain_loop(name, reset, n):
    p = refractory(name, n, reset=reset)
    run = p.network.run(p.network.params(), p.x, when="all", initial_state=p.s_0)
    outputs, z, v, counts = plain(p, p.network.params())
    torch.testing.assert_close(run.h, z, rtol=0, atol=0)
    torch.testing.assert_close(run.states[1:, :, 0], v)
    torch.testing.assert_close(run.states[:, :, -1], counts.double(), rtol=0, atol=0)
    torch.testing.assert_close(run.outputs, outputs)
    assert p.network.neuron.n_states == (2 if name == "lif" else 3)
    fired = z.bool()
    assert 0.02 < z.mean() < 1 / (n + 1)
    for t in range(len(z) - 1):
        assert not (fired[t] & fired[t + 1 : t + n + 1].any(0)).any()
    above = run.states[1:, :, 0] > THR
    assert (above & (counts[1:] > 0)).any()  # the period did silence a neuron whose potential had reached the threshold
    again = [(fired[t] & fired[t + n + 1]).any() for t in range(len(z) - n - 1)]
    assert any(again)  # and no longer than n steps


@every_neuron
@every_reset
@pytest.mark.parametrize("options", [{}, {"kappa": 0.6}, {"learned": True}])
def test_rules_equal_autograd_with_the_silence_held_fixed(name, reset, options):
    p = refractory(name, reset=reset, **options)
    bptt, three_factor = p.rule("bptt").grads, p.rule("three_factor").grads
    exact = autograd(p)
    assert_equal(bptt, exact, WEIGHTS)
    assert_equal(three_factor, autograd(p, hop=lambda z: z.detach()), WEIGHTS)
    assert_differ(three_factor, bptt, RECURRENT)
    if "learned" in options:
        torch.testing.assert_close(bptt["initial_state"], exact["initial_state"])
        assert exact["initial_state"][0].norm() > 1e-3
        assert not bptt["initial_state"][-1].any()  # nobody can learn a count
    free = problem(MAKE[name](reset=reset), T=14, N=8, **options)
    if free.s_0 is not None:
        assert_differ(free.rule("bptt").grads, bptt, RECURRENT)


@every_neuron
@every_reset
@pytest.mark.parametrize("n", [0, 2])
def test_closed_forms_equal_forward_mode(name, reset, n):
    p = refractory(name, n, reset=reset)
    neuron = p.network.neuron
    path = p.network.run(p.network.params(), p.x, initial_state=p.s_0, in_place=False)
    closed, default = neuron.local(path), Neuron.local(neuron, path)
    for gain, first, rows in (("A", 1, neuron.n_states), ("C", 1, neuron.n_states), ("D", 0, 1)):
        times, u = slice(first, 15), randn(7, 15 - first, 3, rows, 8)
        expected = getattr(default, gain).pull(u, times)
        torch.testing.assert_close(getattr(closed, gain).pull(u, times), expected)
        assert expected.norm() > 0.1


@every_neuron
@every_reset
def test_stacked_seeds_are_the_seeds_alone(name, reset):
    assert_seeds_stack(refractory(name, reset=reset), "bptt")


@every_neuron
def test_curvature_is_symmetric_and_alive(name):
    p = refractory(name, surrogate="gaussian")
    products = HessianProducts(asked(p, Loss("mse", "all")))
    v, w = randn(1, products.size), randn(2, products.size)
    assert float(w @ products(v)) == pytest.approx(float(v @ products(w)), rel=1e-9)
    assert products(v).norm() > 1e-3


def test_float32_fires_the_same_spikes():
    nets = [bpgen.Network(MAKE["alif"](n_refractory=2), 4, 9, 3, dtype=t) for t in (torch.float32, torch.float64)]
    x = randn(0, 20, 5, 4)
    single, double = (n.run(n.params(), x.to(n.W_rec.dtype)) for n in nets)
    assert single.states.dtype == torch.float32
    assert torch.equal(single.h.double(), double.h)
    assert 0.05 < double.h.mean() < 0.34


def test_a_run_from_the_command_line(tmp_path):
    small = "--sharpness.samples 16 --alignment.samples 16 --gap.train_samples 32 --gap.test_samples 32 --wandb off"
    run = "--neuron alif --neuron.n_refractory 2 --neuron.reset attached --rule eprop --network.n_rec 16 --threads 1"
    steps = "--trainer.max_steps 5"
    assert main(["fit", *small.split(), *run.split(), *steps.split(), "--out", str(tmp_path)]) == 0
    (folder,) = tmp_path.iterdir()
    neuron = bpgen.load_run(folder).network.neuron
    assert (neuron.n_refractory, neuron.reset, neuron.n_states) == (2, "attached", 3)


def test_bad_options():
    with pytest.raises(BpgenError, match="n_refractory must be a number of steps >= 0, got -1"):
        LIF(n_refractory=-1)
    assert distance(*(refractory("lif", n).rule("bptt").outputs for n in (1, 2))) > 0.01
