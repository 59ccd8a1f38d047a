"""The network against plain numpy loops, and what its options promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import bpgen
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.neurons import ALIF, GRU, LIF, LSTM, Leaky
from bpgen.streams import generator
from tests.oracles import (
    WEIGHTS,
    asked,
    assert_differ,
    assert_equal,
    autograd,
    distance,
    leaves,
    problem,
    randn,
    run_slow,
    true_loss,
)

LEAKS = ("potential", "rate", "inside")
every_leak = pytest.mark.parametrize("leak", LEAKS)


def numpy_outputs(p, leak, alpha, kappa, noise=None):
    """Equations (1) to (3) of the network, neuron by neuron and sample by sample, φ = tanh."""
    w = {n: v.numpy(force=True) for n, v in p.network.params().items()}
    x, (T, B, _), N = p.x.numpy(), p.x.shape, p.network.n_rec
    y = np.zeros((T, B, p.network.n_out))
    for b in range(B):
        s = p.start(p.network.params())[b, 0].numpy().copy()
        h = np.tanh(s) if leak == "potential" else s.copy()
        r = np.zeros(N)
        for t in range(T):
            before, h_before = s.copy(), h.copy()
            for i in range(N):
                I = w["b_rec"][i] + sum(w["W_in"][i, j] * x[t, b, j] for j in range(x.shape[2]))
                I += sum(w["W_rec"][i, j] * h_before[j] for j in range(N) if j != i)  # no autapses
                I += 0 if noise is None else noise[t, b, i]
                if leak == "potential":
                    s[i] = (1 - alpha) * before[i] + alpha * I
                    h[i] = math.tanh(s[i])
                elif leak == "rate":
                    h[i] = s[i] = (1 - alpha) * before[i] + alpha * math.tanh(I)
                else:
                    h[i] = s[i] = math.tanh((1 - alpha) * before[i] + alpha * I)
                r[i] = kappa * r[i] + (1 - kappa) * h[i]
            y[t, b] = w["W_out"] @ r + w["b_out"]
    return torch.from_numpy(y)


def run(p, in_place, noise=None, when="all", **weights):
    params = {**p.network.params(), **weights}
    return p.network.run(params, p.x, when=when, initial_state=p.s_0, current_noise=noise, in_place=in_place)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("kappa", [0.0, 0.6])
@pytest.mark.parametrize("noisy", [False, True])
@every_leak
def test_forward_equals_numpy_loop(leak, kappa, in_place, noisy):
    p = problem(Leaky(0.35, "tanh", leak), kappa=kappa)
    noise = randn(9, 7, 3, 5) if noisy else None
    expected = numpy_outputs(p, leak, 0.35, kappa, None if noise is None else noise.numpy())
    torch.testing.assert_close(run(p, in_place, noise).outputs, expected)
    torch.testing.assert_close(run(p, in_place, noise, when="last").outputs, expected[-1])
    assert distance(numpy_outputs(p, leak, 0.3, kappa), expected) > 0.01


@pytest.mark.parametrize("alpha", [0.35, 1.0])
@pytest.mark.parametrize("learned", [False, True])
@every_leak
def test_in_place_path_equals_general_path(leak, alpha, learned):
    p, noise = problem(Leaky(alpha, "softplus", leak), kappa=0.3, learned=learned), randn(9, 7, 3, 5)
    fast, general = run(p, True, noise), run(p, False, noise)
    for name in ("h", "states", "outputs", "currents", "r"):
        torch.testing.assert_close(getattr(fast, name), getattr(general, name))
        assert getattr(fast, name).norm() > 0
    u = randn(8, 7, 3, 1, 5)
    for gain in "ACD":
        pulls = [getattr(trajectory.local, gain).pull(u, slice(1, 8)) for trajectory in (fast, general)]
        torch.testing.assert_close(*pulls)
    assert distance(run(p, True).outputs, fast.outputs) > 0.01  # control: the noise matters


def test_forward_is_differentiable_and_run_takes_the_traced_path_by_itself():
    p = problem()
    y = p.network(p.x, when="all", initial_state=p.s_0)
    torch.testing.assert_close(y.detach(), run(p, True).outputs)
    assert y.requires_grad
    assert p.network.run(p.network.params(), p.x).in_place
    assert not p.network.run(dict(p.network.named_parameters()), p.x).in_place


def test_params_are_all_that_is_read():
    """Else vmapped seeds would silently see the module's own weights."""
    p = problem(learned=True)
    other = {n: w + 0.1 * randn(20 + i, *w.shape) for i, (n, w) in enumerate(p.network.params().items())}
    expected = run_slow(p, other).outputs
    for in_place in (True, False):
        got = run(p, in_place, **other).outputs
        torch.testing.assert_close(got, expected)
        assert distance(run(p, in_place).outputs, got) > 0.01


def test_stored_diagonal_is_ignored_and_has_no_gradient():
    p, shifted = problem(), problem()
    with torch.no_grad():
        shifted.network.W_rec.fill_diagonal_(7.0)
    free = problem(autapses=True)
    for rule in ("bptt", "three_factor"):
        masked, same, unmasked = (q.rule(rule) for q in (p, shifted, free))
        torch.testing.assert_close(masked.outputs, same.outputs, rtol=0, atol=0)
        assert_equal(masked.grads, same.grads, WEIGHTS, tol=1e-15)
        assert not masked.grads["W_rec"].diagonal().any()
        assert distance(unmasked.outputs, masked.outputs) > 0.01
        assert (unmasked.grads["W_rec"].diagonal() != 0).all()


@pytest.mark.parametrize("bias", ["none", "rec", "out", "both"])
def test_bias_options(bias):
    p = problem(bias=bias)
    assert (p.network.b_rec is not None) == (bias in ("rec", "both"))
    assert (p.network.b_out is not None) == (bias in ("out", "both"))
    result = p.rule("bptt")
    torch.testing.assert_close(result.outputs, run_slow(p, p.network.params()).outputs)
    assert set(result.grads) == {n for n, _ in p.network.named_parameters()}
    fresh = bpgen.Network(Leaky(), 4, 5, 3, bias=bias)
    assert not any(b.any() for b in (fresh.b_rec, fresh.b_out) if b is not None)


def test_given_initial_state_takes_precedence_over_a_learned_one():
    p, s_0 = problem(learned=True), randn(11, 3, 1, 5)
    learned = run(p, True).outputs
    given = p.network.run(p.network.params(), p.x, when="all", initial_state=s_0).outputs
    assert distance(given, learned) > 0.01
    zero = p.network.run({**p.network.params(), "initial_state": torch.zeros(1, 5, dtype=torch.float64)}, p.x)
    none = p.network.run({n: w for n, w in p.network.params().items() if n != "initial_state"}, p.x)
    torch.testing.assert_close(zero.outputs, none.outputs, rtol=0, atol=0)
    assert p.network.initial_state.shape == (1, 5)


@pytest.mark.parametrize(("alpha", "sigma"), [(0.2, 0.1), (1.0, 0.5)])
def test_noise_has_the_documented_strength(alpha, sigma):
    network = bpgen.Network(Leaky(alpha), 4, 20, 3, sigma_rec=sigma)
    noise = network.draw_noise(50, 40, generator(0, "test"))
    assert noise.shape == (50, 40, 20)
    assert noise.dtype == network.W_rec.dtype
    assert float(noise.std()) == pytest.approx(sigma * math.sqrt(2 / alpha), rel=0.02)  # 4.5 standard errors
    assert abs(float(noise.mean())) < 5 * float(noise.std()) / math.sqrt(noise.numel())
    assert abs(float((noise[1:] * noise[:-1]).mean() / noise.var())) < 0.03  # white in time
    assert bpgen.Network(Leaky(alpha), 4, 20, 3).draw_noise(5, 4, generator(0, "test")) is None


def test_noise_is_handed_in_and_reaches_every_gradient():
    p, noise = problem(Leaky(0.4, "tanh", "rate"), sigma_rec=0.5), randn(9, 7, 3, 5)
    rule, loss = bpgen.load_rule("bptt"), Loss("mse", "all")
    params = leaves(p)
    value = true_loss(run_slow(p, params, noise=noise).outputs, p.target, "mse", "all", None)
    expected = dict(zip(params, torch.autograd.grad(value, list(params.values())), strict=True))
    draws = {"initial_state": p.s_0}

    def gradients(**more):
        return rule.gradients(*asked(p.network, p.network.params(), p.x, p.target, loss, {**draws, **more})).grads

    assert_equal(gradients(current_noise=noise), expected, WEIGHTS)
    assert_equal(gradients(), autograd(p), WEIGHTS)  # nothing is drawn inside, although sigma_rec > 0
    assert_differ(gradients(), expected, WEIGHTS)


def test_noise_is_a_function_of_the_seed_alone():
    p = problem(sigma_rec=0.5)

    def outputs(seed):
        return bpgen.gradients("bptt", p.network, p.x, p.target, "mse", "all", seed=seed).outputs

    before = torch.get_rng_state()
    torch.testing.assert_close(outputs(1), outputs(1), rtol=0, atol=0)
    assert distance(outputs(2), outputs(1)) > 0.01
    assert torch.equal(torch.get_rng_state(), before)


# name: standard deviation of W_rec, W_in, W_out at N=400, I=100, O=50
STATISTICS = {
    "liu2022": (math.sqrt(2 / 400), math.sqrt(2 / 100), math.sqrt(2 / 450)),
    "glorot2010": (math.sqrt(2 / 800), math.sqrt(2 / 500), math.sqrt(2 / 450)),
    "saxe2014": (math.sqrt(1 / 400), math.sqrt(2 / 500), math.sqrt(2 / 450)),
    "sompolinsky1988": (1.5 / math.sqrt(400), 1 / math.sqrt(100), 1 / math.sqrt(400)),
}


@pytest.mark.parametrize("init", STATISTICS)
def test_initial_weights_have_their_published_spread(init):
    network = bpgen.Network(Leaky(), 100, 400, 50, init=init, dtype=torch.float64)
    for name, sd in zip(("W_rec", "W_in", "W_out"), STATISTICS[init], strict=True):
        weight = getattr(network, name).detach()
        assert float(weight.std()) == pytest.approx(sd, rel=0.02), name
        assert abs(float(weight.mean())) < 5 * sd / math.sqrt(weight.numel()), name
    if init == "saxe2014":
        torch.testing.assert_close(network.W_rec @ network.W_rec.T, torch.eye(400, dtype=torch.float64))
    if init in ("liu2022", "glorot2010", "saxe2014"):
        limit = math.sqrt(6 / 450)
        assert 0.99 * limit < float(network.W_out.detach().abs().max()) <= limit


def test_initialisation_table_covers_every_scheme():
    from bpgen.network.initialisation import INITIALISATIONS

    assert set(STATISTICS) == set(INITIALISATIONS)


@pytest.mark.parametrize("init", STATISTICS)
def test_one_seed_is_one_network_in_every_dtype(init):
    def network(**options):
        return bpgen.Network(Leaky(), 4, 5, 3, init=init, **options)

    single, double, other = network(seed=3), network(seed=3, dtype=torch.float64), network(seed=4)
    for name, w in single.named_parameters():
        assert w.dtype == torch.float32
        assert torch.equal(double.get_parameter(name).float(), w), name
    assert distance(other.W_rec, single.W_rec) > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_rec": 0}, "n_rec must be a positive"),
        ({"kappa": 1.0}, r"kappa must be in \[0, 1\)"),
        ({"sigma_rec": -0.1}, "sigma_rec must be >= 0"),
        ({"bias": "outt"}, "unknown bias 'outt'.*'out'"),
        ({"init": "liu2023"}, "unknown init 'liu2023'.*'liu2022'"),
    ],
)
def test_bad_options_name_what_was_expected(options, message):
    with pytest.raises(BpgenError, match=message):
        bpgen.Network(Leaky(), 4, **{"n_rec": 5, "n_out": 3, **options})


WIRINGS = {
    "plain": {},
    "dale": {"cell_types": {"E": 0.5, "I": 0.5}, "dale": True, "density": 0.7},
    "ring": {"ring": 2, "trainable_initial_state": True},
    "areas": {"areas": {"a": {"size": 3, "input": True}, "b": {"size": 5, "readout": True, "from": {"a": 0.5}}}},
    "fed back": {"output_feedback": 0.5, "bias": "both", "sigma_rec": 0.1},
}
CELLS = (Leaky((0.2, 0.6), "tanh"), LIF((0.2, 0.5), (0.2, 0.4)), ALIF(adaptive=0.5, n_refractory=1), GRU(), LSTM())


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("neuron", CELLS, ids=lambda n: type(n).__name__)
def test_the_default_dtype_of_torch_changes_nothing(neuron, wiring):
    if wiring == "dale" and neuron.n_currents > 1:
        pytest.skip("a gate is neither excited nor inhibited")

    def everything(dtype):
        network = bpgen.Network(neuron, 4, 8, 3, dtype=dtype, **WIRINGS[wiring])
        x, target = randn(0, 6, 5, 4).to(dtype), torch.arange(5) % 3
        result = bpgen.gradients("bptt", network, x, target)
        noise = network.draw_noise(6, 5, torch.Generator().manual_seed(0))
        return [*network.state_dict().values(), *network.buffers(), *result.grads.values(), result.outputs, noise]

    before = torch.get_default_dtype()
    try:
        found = []
        for default in (torch.float32, torch.float64):
            torch.set_default_dtype(default)
            found.append([everything(dtype) for dtype in (torch.float32, torch.float64)])
    finally:
        torch.set_default_dtype(before)
    for one, other in zip(*found, strict=True):
        for a, b in zip(one, other, strict=True):
            assert (a is b is None) or (a.dtype == b.dtype and torch.equal(a, b))


@pytest.mark.parametrize("size", [0, -1, 2.5, "12"])
def test_sizes_are_whole_numbers(size):
    with pytest.raises(BpgenError, match="n_rec must be a positive number"):
        bpgen.Network(Leaky(), 4, size, 3)
