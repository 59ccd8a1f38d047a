"""Time constants that differ between neurons: each neuron is the one with its own α, and rules stay exact."""

from __future__ import annotations

import math

import pytest
import torch

import bpgen
from bpgen.cli import main
from bpgen.errors import BpgenError
from bpgen.neurons import ALIF, LIF, Leaky, Neuron
from tests.oracles import (
    RECURRENT,
    WEIGHTS,
    assert_differ,
    assert_equal,
    autograd,
    distance,
    in_blocks,
    no_hop,
    problem,
    randn,
)
from tests.seeds import assert_seeds_stack

# torch.func.jvp compiles its decompositions with a deprecated part of torch itself, at its first use
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

MAKE = {
    "potential": lambda a, **o: Leaky(a, "tanh", **o),
    "rate": lambda a, **o: Leaky(a, "tanh", "rate", **o),
    "inside": lambda a, **o: Leaky(a, "softplus", "inside", **o),
    "lif": lambda a, **o: LIF(a, threshold=0.3, **o),
    "attached lif": lambda a, **o: LIF(a, threshold=0.3, reset="attached", drive="plain", **o),
    "refractory lif": lambda a, **o: LIF(a, threshold=0.3, n_refractory=2, **o),
    "alif": lambda a, **o: ALIF(a, threshold=0.3, **o),
}
every_neuron = pytest.mark.parametrize("name", MAKE)
ALPHA = torch.tensor([0.1, 0.9, 0.35, 0.6, 0.2, 1.0, 0.5, 0.75], dtype=torch.float64)


def mixed(name, alpha=ALPHA, **options):
    return problem(MAKE[name](alpha), N=len(alpha), **options)


@every_neuron
def test_each_neuron_is_the_one_with_its_own_alpha(name):
    neuron = mixed(name).network.neuron
    s, I = randn(0, 3, neuron.n_states, 8), randn(1, 3, 1, 8)
    for j, alpha in enumerate(ALPHA.tolist()):
        alone = MAKE[name](alpha)
        here = slice(j, j + 1)
        torch.testing.assert_close(neuron.f(s, I)[..., here], alone.f(s[..., here], I[..., here]), rtol=1e-14, atol=0)
        torch.testing.assert_close(neuron.g(s)[..., here], alone.g(s[..., here]), rtol=0, atol=0)
        noise = neuron.noise_scale[j] if isinstance(neuron.noise_scale, torch.Tensor) else neuron.noise_scale
        assert float(noise) == pytest.approx(float(alone.noise_scale), rel=1e-14)


@every_neuron
@pytest.mark.parametrize("rule", ["bptt", "three_factor", "rflo", "tbptt", "sliding"])
def test_equal_numbers_are_one_number(name, rule):
    same, one = mixed(name, torch.full((8,), 0.4, dtype=torch.float64)), mixed(name)
    one.network.neuron = MAKE[name](0.4)
    options = {"window": 3, "style": "sliding"} if rule == "sliding" else {}
    rule = {"sliding": "tbptt"}.get(rule, rule)
    got, expected = same.rule(rule, **options), one.rule(rule, **options)
    torch.testing.assert_close(got.outputs, expected.outputs, rtol=1e-12, atol=1e-14)
    assert_equal(got.grads, expected.grads, WEIGHTS)
    assert distance(mixed(name).rule(rule, **options).grads["W_rec"], expected.grads["W_rec"]) > 0.01


@pytest.mark.parametrize("leak", ["potential", "rate", "inside"])
@pytest.mark.parametrize("rule", sorted(set(bpgen.list_rules()) - {"eprop"}))
def test_every_rule_takes_them(rule, leak):
    """Or says that it does not; the literal traces of Murray are tested below."""
    same, one = mixed(leak, torch.full((8,), 0.4, dtype=torch.float64)), mixed(leak)
    one.network.neuron = MAKE[leak](0.4)
    try:
        expected = one.rule(rule)
    except BpgenError:
        with pytest.raises(BpgenError):
            same.rule(rule)
        return
    got, other = same.rule(rule), mixed(leak).rule(rule)
    alive = [name for name in WEIGHTS if expected.grads[name].any()]  # some rules leave some weights alone
    assert alive
    assert_equal(got.grads, expected.grads, alive, tol=1e-9)
    assert all(distance(other.grads[name], expected.grads[name]) > 1e-3 for name in alive)


@every_neuron
def test_rules_equal_autograd(name):
    p = mixed(name, kappa=0.3)
    bptt, three_factor = p.rule("bptt").grads, p.rule("three_factor").grads
    assert_equal(bptt, autograd(p), WEIGHTS)
    assert_equal(three_factor, autograd(p, **no_hop()), WEIGHTS)
    assert_equal(p.rule("tbptt", window=3).grads, autograd(p, **in_blocks(3)), WEIGHTS)
    assert_differ(three_factor, bptt, RECURRENT)


@every_neuron
def test_closed_forms_equal_forward_mode_and_both_loops_agree(name):
    p = mixed(name)
    general = p.network.run(p.network.params(), p.x, initial_state=p.s_0, in_place=False)
    closed, default = p.network.neuron.local(general), Neuron.local(p.network.neuron, general)
    for gain, first, rows in (("A", 1, p.network.neuron.n_states), ("C", 1, p.network.neuron.n_states), ("D", 0, 1)):
        times, u = slice(first, 8), randn(7, 8 - first, 3, rows, 8)
        v = randn(8, *u.shape[:2], 1 if gain == "C" else p.network.neuron.n_states, 8)
        ours, theirs = getattr(closed, gain), getattr(default, gain)
        torch.testing.assert_close(ours.pull(u, times), theirs.pull(u, times))
        torch.testing.assert_close(ours.add_pull(v, u, times), theirs.add_pull(v, u, times))
        assert theirs.pull(u, times).norm() > 0.1
        assert not ours.is_zero
    if p.network.neuron.n_states == 1:
        fast = p.network.run(p.network.params(), p.x, initial_state=p.s_0)
        assert fast.in_place
        for what in ("h", "states", "outputs", "currents"):
            torch.testing.assert_close(getattr(fast, what), getattr(general, what))


def test_the_literal_trace_of_murray_takes_them_too():
    equal = torch.full((8,), 0.4, dtype=torch.float64)
    for name in ("potential", "rate", "inside"):
        same, one = mixed(name, equal), mixed(name, equal)
        one.network.neuron = MAKE[name](0.4)
        for rule in ("rflo", "rflo_online"):
            grads = [q.rule(rule, trace="murray").grads for q in (same, one)]
            assert_equal(*grads, RECURRENT)
    rate = mixed("rate")
    for rule in ("rflo", "rflo_online"):
        assert_equal(rate.rule(rule, trace="murray").grads, rate.rule("rflo").grads, RECURRENT)


@every_neuron
@pytest.mark.parametrize("rule", ["bptt", "three_factor"])
def test_stacked_seeds_are_the_seeds_alone(name, rule):
    assert_seeds_stack(mixed(name), rule)


def test_a_pair_is_drawn_from_the_seed_uniform_in_the_logarithm():
    neuron = Leaky((0.01, 0.5))

    def alphas(seed=0, n_rec=2000, dtype=torch.float64):
        return bpgen.Network(neuron, 4, n_rec, 3, seed=seed, dtype=dtype).neuron.alpha

    alpha = alphas()
    assert neuron.alpha == (0.01, 0.5)  # the neuron handed in serves any number of networks
    assert alphas(n_rec=7).shape == (7,)
    assert torch.equal(alphas(), alpha)
    assert not torch.equal(alphas(1), alpha)
    assert torch.equal(alphas(dtype=torch.float32), alpha.float())
    share = (alpha.log() - math.log(0.01)) / math.log(50)
    assert 0 <= share.min() < share.max() <= 1
    assert share.mean().item() == pytest.approx(0.5, abs=4 / math.sqrt(12 * 2000))
    assert share.std().item() == pytest.approx(math.sqrt(1 / 12), rel=0.05)
    plain = bpgen.Network(Leaky(0.5), 4, 2000, 3)
    assert torch.equal(bpgen.Network(neuron, 4, 2000, 3).W_rec, plain.W_rec)


def test_float32_agrees_with_float64():
    nets = [bpgen.Network(Leaky((0.1, 0.9), "tanh"), 4, 9, 3, dtype=t) for t in (torch.float32, torch.float64)]
    x, y = randn(0, 12, 5, 4), randn(1, 12, 5, 3)
    single, double = (
        bpgen.gradients("bptt", n, x.to(n.W_rec.dtype), y.to(n.W_rec.dtype), "mse", "all").grads for n in nets
    )
    assert_equal({n: g.double() for n, g in single.items()}, double, tol=1e-5)


def test_noise_gives_every_neuron_the_asked_standard_deviation():
    network = bpgen.Network(Leaky((0.02, 0.2), "linear"), 1, 40, 1, sigma_rec=0.3, dtype=torch.float64)
    noise = network.draw_noise(6000, 4, torch.Generator().manual_seed(0))
    params = {n: torch.zeros_like(p) for n, p in network.params().items()}
    h = network.run(params, torch.zeros(6000, 4, 1).double(), current_noise=noise).h[500:]
    expected = 0.3 * (2 / (2 - network.neuron.alpha)).sqrt()  # exact for the discrete process
    assert ((h.std((0, 1)) / expected - 1).abs() < 0.15).all()


def test_time_constants_in_milliseconds():
    pair = Leaky.from_tau((20.0, 100.0), dt=2.0)
    assert pair.alpha == pytest.approx((1 - math.exp(-0.02), 1 - math.exp(-0.1)), rel=1e-14)
    each = LIF.from_tau(torch.tensor([20.0, 40.0, 100.0]), dt=2.0)
    torch.testing.assert_close(each.alpha, 1 - torch.exp(-2 / torch.tensor([20.0, 40.0, 100.0]).double()))
    assert ALIF.from_tau((20.0, 40.0), 200.0).rho == pytest.approx(math.exp(-1 / 200))


def test_a_run_from_the_command_line_is_restored(tmp_path):
    small = "--sharpness.samples 16 --alignment.samples 16 --gap.train_samples 32 --gap.test_samples 32 --wandb off"
    run = "--rule eprop --network.n_rec 12 --trainer.max_steps 4 --threads 1 --neuron.alpha"
    assert main(["fit", *small.split(), *run.split(), "[0.05, 0.9]", "--out", str(tmp_path)]) == 0
    (folder,) = tmp_path.iterdir()
    network = bpgen.load_run(folder).network
    expected = bpgen.Network(Leaky((0.05, 0.9)), network.n_in, 12, network.n_out).neuron.alpha
    assert torch.equal(network.neuron.alpha, expected)
    assert expected.std() > 0.1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Leaky((0.5, 0.1)), r"pair is \[lowest, highest\]"),
        (lambda: Leaky((0.0, 0.1)), r"alpha must be in \(0, 1\]"),
        (lambda: LIF(torch.tensor([0.5, 1.5])), r"alpha must be in \(0, 1\]"),
        (lambda: Leaky([0.1, 0.2, 0.3]), "a number, a pair or a tensor"),
        (lambda: bpgen.Network(Leaky(torch.full((3,), 0.5)), 4, 5), "holds 3 values for the 5 neurons"),
        (lambda: Leaky.from_tau((20.0, 0.0)), "tau and dt must be positive"),
        (lambda: LIF.from_tau(torch.tensor([1.0, -1.0])), "tau and dt must be positive"),
        (lambda: Leaky.from_tau(20.0, discretisation="eulr"), "unknown discretisation 'eulr'.*'euler'"),
    ],
)
def test_bad_options_name_what_was_expected(build, message):
    with pytest.raises(BpgenError, match=message):
        build()
