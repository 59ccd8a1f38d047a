"""Thresholds and adaptation that differ between neurons, and networks of which a part adapts (LSNN, Bellec 2018)."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

import bpgen
import bpgen.conformance.rules.case as conformance_case
from bpgen.cli import main
from bpgen.conformance import checks
from bpgen.errors import BpgenError
from bpgen.neurons import ALIF, LIF, Neuron
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
    run_slow,
)
from tests.seeds import assert_seeds_stack

# torch.func.jvp compiles its decompositions with a deprecated part of torch itself, at its first use
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


EACH = {
    "alpha": tensor(0.1, 0.9, 0.35, 0.6, 0.2, 1.0, 0.5, 0.75),
    "threshold": tensor(0.2, 0.5, 0.35, 0.3, 0.25, 0.8, 0.4, 0.45),
    "beta": tensor(0.0, 0.3, 0.0, 0.6, 0.2, 0.0, 0.9, 0.1),
    "rho": tensor(0.9, 0.5, 0.0, 0.8, 0.95, 0.7, 0.3, 0.6),
}
ONE = {"alpha": 0.4, "threshold": 0.3, "beta": 0.5, "rho": 0.8}
WIDE = {"surrogate": "fast_sigmoid", "width": 1.0}  # a slope everywhere, so that nothing is compared empty
MAKE = {
    "lif": lambda each, **o: LIF(each["alpha"], each["threshold"], **WIDE, **o),
    "alif": lambda each, **o: ALIF(**each, **WIDE, **o),
}
KINDS = {
    **{name: make for name, make in MAKE.items()},
    "attached lif": partial(MAKE["lif"], reset="attached", drive="plain"),
    "attached alif": partial(MAKE["alif"], reset="attached", drive="plain"),
    "refractory alif": partial(MAKE["alif"], reset="attached", n_refractory=2),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
RULES = sorted(set(bpgen.list_rules()) - {"eprop"})


def mixed(kind, each=EACH, **options):
    return problem(KINDS[kind](each), N=8, **options)


def half(N=8, **options):
    """An LSNN of as many LIF as ALIF neurons."""
    neuron = options.pop("neuron", {})
    return problem(ALIF(**{**ONE, "adaptive": 0.5, **WIDE, **neuron}), N=N, **options)


# Every neuron is the one with its own numbers


@every_kind
def test_each_neuron_is_the_one_with_its_own_numbers(kind):
    neuron = mixed(kind).network.neuron
    s, I = randn(0, 3, neuron.n_states, 8), randn(1, 3, 1, 8)
    for j in range(8):
        alone, here = KINDS[kind]({name: float(value[j]) for name, value in EACH.items()}), slice(j, j + 1)
        torch.testing.assert_close(neuron.f(s, I)[..., here], alone.f(s[..., here], I[..., here]), rtol=1e-14, atol=0)
        torch.testing.assert_close(neuron.g(s)[..., here], alone.g(s[..., here]), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["threshold", "beta", "rho"])
@pytest.mark.parametrize("rule", RULES)
def test_equal_numbers_are_one_number_under_every_rule(rule, name):
    """One parameter at a time is [N]; where a rule refuses the neuron, it refuses it either way."""
    same = mixed("alif", {**ONE, name: torch.full((8,), ONE[name], dtype=torch.float64)})
    one, other = mixed("alif", ONE), mixed("alif", {**ONE, name: EACH[name]})
    try:
        expected = one.rule(rule)
    except BpgenError:
        with pytest.raises(BpgenError):
            same.rule(rule)
        return
    got, control = same.rule(rule), other.rule(rule)
    alive = [name for name in WEIGHTS if expected.grads[name].any()]  # some rules leave some weights alone
    assert alive
    assert_equal(got.grads, expected.grads, alive, tol=1e-9)
    assert all(distance(control.grads[name], expected.grads[name]) > 1e-4 for name in alive)


@every_kind
def test_closed_forms_equal_forward_mode_and_both_loops_agree(kind):
    p = mixed(kind)
    neuron = p.network.neuron
    general = p.network.run(p.network.params(), p.x, initial_state=p.s_0, in_place=False)
    closed, default = neuron.local(general), Neuron.local(neuron, general)
    for gain, first, rows in (("A", 1, neuron.n_states), ("C", 1, neuron.n_states), ("D", 0, 1)):
        times, u = slice(first, 8), randn(7, 8 - first, 3, rows, 8)
        expected = getattr(default, gain).pull(u, times)
        torch.testing.assert_close(getattr(closed, gain).pull(u, times), expected)
        assert expected.norm() > 0.1
    if neuron.n_states == 1:
        fast = p.network.run(p.network.params(), p.x, initial_state=p.s_0)
        assert fast.in_place
        for what in ("h", "states", "outputs", "currents"):
            torch.testing.assert_close(getattr(fast, what), getattr(general, what))


@every_kind
def test_rules_equal_autograd(kind):
    p = mixed(kind, kappa=0.3)
    bptt, three_factor = p.rule("bptt").grads, p.rule("three_factor").grads
    assert_equal(bptt, autograd(p), WEIGHTS)
    assert_equal(three_factor, autograd(p, **no_hop()), WEIGHTS)
    assert_equal(p.rule("tbptt", window=3).grads, autograd(p, **in_blocks(3)), WEIGHTS)
    assert_equal(p.rule("rtrl").grads, bptt, WEIGHTS, tol=1e-10)
    assert_differ(three_factor, bptt, RECURRENT)


def test_the_surrogate_has_the_width_and_height_of_each_neurons_threshold():
    neuron = LIF(0.4, EACH["threshold"], dampening=0.6, width=1.5)
    u = torch.linspace(-1, 1, 41, dtype=torch.float64).unsqueeze(1).expand(-1, 8)
    leaf = (u + EACH["threshold"]).unsqueeze(-2).requires_grad_()
    (slope,) = torch.autograd.grad(neuron.g(leaf).sum(), leaf)
    theta = EACH["threshold"]
    expected = 0.6 / theta * (1 - (u / (1.5 * theta)).abs()).clamp(min=0)
    torch.testing.assert_close(slope.squeeze(-2), expected)
    assert expected.std(1).max() > 0.5


@every_kind
@pytest.mark.parametrize("rule", ["bptt", "three_factor"])
def test_stacked_seeds_are_the_seeds_alone(kind, rule):
    assert_seeds_stack(mixed(kind), rule)


# A part of the neurons adapts


def test_the_first_neurons_are_lif_and_the_last_adapt():
    network = half(N=10).network
    assert network.neuron.beta.tolist() == [0.0] * 5 + [0.5] * 5
    third = bpgen.Network(ALIF(beta=(0.1, 0.4), adaptive=0.3), 4, 10, 3).neuron.beta
    assert not third[:7].any()
    assert ((third[7:] >= 0.1) & (third[7:] <= 0.4)).all()
    handed_in = ALIF(beta=0.5, adaptive=0.5)
    assert bpgen.Network(handed_in, 4, 6, 3).neuron is not handed_in
    assert handed_in.beta == 0.5  # it serves any number of networks


def test_both_halves_are_the_neurons_they_are_named_after():
    """f, g and the currents alone: the first half against LIF, the second against ALIF."""
    p = half()
    whole = run_slow(p, p.network.params())
    lif, alif = LIF(0.4, 0.3, **WIDE), ALIF(**ONE, **WIDE)
    s, h = torch.stack(whole.states), torch.stack(whole.h)
    run = p.network.run(p.network.params(), p.x, initial_state=p.s_0)
    for t in range(1, 8):
        v = lif.f(s[t - 1][:, :1, :4], run.currents[t][..., :4])
        torch.testing.assert_close(v, s[t][:, :1, :4])
        torch.testing.assert_close(lif.g(v), h[t][:, :4])
        torch.testing.assert_close(alif.f(s[t - 1][..., 4:], run.currents[t][..., 4:]), s[t][..., 4:])
    assert not torch.equal(lif.g(s[-1][:, :1, 4:]), h[-1][:, 4:])  # control: adaptation did something


@pytest.mark.parametrize("reset", ["detached", "attached"])
@pytest.mark.parametrize("rule", ["bptt", "three_factor", "tbptt", "rflo", "rtrl", "eprop_online", "mdgl"])
def test_without_adaptive_neurons_it_is_lif_exactly(rule, reset):
    shared = {"reset": reset, "drive": "plain", **WIDE}
    p, q = problem(LIF(0.4, 0.3, **shared), N=8), problem(ALIF(0.4, 0.3, 0.5, 0.8, adaptive=0.0, **shared), N=8)
    q.s_0[:, 0].copy_(p.s_0[:, 0])
    got, expected = q.rule(rule), p.rule(rule)
    assert torch.equal(got.outputs, expected.outputs)
    assert_equal(got.grads, expected.grads, WEIGHTS, tol=1e-14)
    some = problem(ALIF(0.4, 0.3, 0.5, 0.8, adaptive=0.5, **shared), N=8)
    some.s_0.copy_(q.s_0)
    assert_differ(some.rule(rule).grads, expected.grads, RECURRENT, by=1e-3)


def test_rules_on_a_half_adaptive_network_equal_autograd():
    p = half(kappa=0.3, density=0.7)
    bptt, three_factor = p.rule("bptt").grads, p.rule("three_factor").grads
    assert_equal(bptt, autograd(p), WEIGHTS)
    assert_equal(three_factor, autograd(p, **no_hop()), WEIGHTS)
    assert_differ(three_factor, bptt, RECURRENT)
    all_adapt = half(kappa=0.3, density=0.7, neuron={"adaptive": 1.0})
    assert_differ(all_adapt.rule("bptt").grads, bptt, RECURRENT)


LONG = ("on every neuron", "in the limit", "runs on the neurons", "mean over draws", "stacked seeds", "output")


SEES_SPIKES = [r for r in RULES if r != "node_perturbation"]  # its noise is too small to change a spike
QUICK = ("bptt", "three_factor", "rflo")


@pytest.mark.parametrize("rule", [pytest.param(r, marks=[] if r in QUICK else pytest.mark.slow) for r in SEES_SPIKES])
def test_rules_conform_on_an_lsnn(rule, monkeypatch):
    """The suite's checks, on a network of which 3 of 5 neurons adapt, wherever it would choose its own neurons."""
    lsnn = ALIF((0.3, 0.5), (0.4, 0.6), (0.2, 0.5), (0.7, 0.9), adaptive=0.6, drive="plain", **WIDE)
    monkeypatch.setattr(conformance_case, "neurons", lambda: {"ALIF": lsnn})
    examined = [check for check in checks(rule) if not any(part in str(check) for part in LONG)]
    assert len(examined) > 5
    refused = []
    for check in examined:
        outcome = check.run()
        assert outcome.status != "fail", f"{check}: {outcome.message}"
        refused += [outcome.message] * (outcome.status == "skip")
    assert len(refused) < len(examined) or "defined for" in refused[0]


# Drawn from the seed


def test_pairs_are_drawn_from_the_seed_each_in_its_own_spread():
    neuron = ALIF((0.01, 0.5), (0.3, 0.7), (0.0, 2.0), (0.9, 0.999))

    def drawn(seed=0, dtype=torch.float64, neuron=neuron):
        return bpgen.Network(neuron, 4, 2000, 3, seed=seed, dtype=dtype).neuron

    population, again, single = drawn(), drawn(), drawn(dtype=torch.float32)
    share = {
        "alpha": (population.alpha.log() - math.log(0.01)) / math.log(50),
        "threshold": (population.threshold - 0.3) / 0.4,
        "beta": population.beta / 2,
        "rho": ((1 - population.rho).log() - math.log(0.001)) / math.log(100),
    }
    for name, u in share.items():
        assert -1e-9 <= u.min() < u.max() <= 1 + 1e-9, name
        assert u.mean().item() == pytest.approx(0.5, abs=4 / math.sqrt(12 * 2000)), name
        assert u.std().item() == pytest.approx(math.sqrt(1 / 12), rel=0.05), name
        assert torch.equal(getattr(again, name), getattr(population, name)), name
        assert torch.equal(getattr(single, name), getattr(population, name).float()), name
        assert not torch.equal(getattr(drawn(1), name), getattr(population, name)), name
    assert torch.corrcoef(torch.stack(list(share.values()))).fill_diagonal_(0).abs().max() < 0.1
    alone = drawn(neuron=ALIF(beta=(0.0, 2.0)))  # what one parameter draws does not depend on the others
    assert torch.equal(alone.beta, population.beta)
    assert torch.equal(drawn(neuron=LIF((0.01, 0.5))).alpha, population.alpha)


def test_time_constants_of_the_adaptation_in_milliseconds():
    pair = ALIF.from_tau(20.0, (100.0, 800.0), beta=0.5)
    assert pair.rho == pytest.approx((math.exp(-1 / 100), math.exp(-1 / 800)), rel=1e-14)
    each = ALIF.from_tau(20.0, tensor(100.0, 400.0, 800.0), dt=2.0)
    torch.testing.assert_close(each.rho, torch.exp(-2 / tensor(100.0, 400.0, 800.0)))
    assert ALIF.from_tau(20.0, 200.0).rho == pytest.approx(math.exp(-1 / 200))


def test_float32_fires_the_same_spikes():
    neuron = ALIF((0.2, 0.6), (0.2, 0.4), 0.3, (0.7, 0.9), adaptive=0.5)
    nets = [bpgen.Network(neuron, 4, 9, 3, dtype=t) for t in (torch.float32, torch.float64)]
    x = randn(0, 20, 5, 4)
    single, double = (n.run(n.params(), x.to(n.W_rec.dtype)) for n in nets)
    assert single.states.dtype == torch.float32
    assert torch.equal(single.h.double(), double.h)
    assert 0.05 < double.h.mean() < 0.6


def test_a_run_from_the_command_line_is_restored(tmp_path):
    small = "--sharpness.samples 16 --alignment.samples 16 --gap.train_samples 32 --gap.test_samples 32 --wandb off"
    run = "--neuron alif --neuron.adaptive 0.5 --rule eprop --network.n_rec 12 --trainer.max_steps 4 --threads 1"
    lists = ["--neuron.beta", "[0.1, 0.6]", "--neuron.rho", "[0.9, 0.99]", "--neuron.threshold", "[0.3, 0.5]"]
    assert main(["fit", *small.split(), *run.split(), *lists, "--out", str(tmp_path)]) == 0
    (folder,) = tmp_path.iterdir()
    network = bpgen.load_run(folder).network
    neuron = ALIF(beta=(0.1, 0.6), rho=(0.9, 0.99), threshold=(0.3, 0.5), adaptive=0.5)
    expected = bpgen.Network(neuron, network.n_in, 12, network.n_out).neuron
    for name in ("beta", "rho", "threshold"):
        assert torch.equal(getattr(network.neuron, name), getattr(expected, name))
        assert getattr(expected, name).std() > 0.01
    assert not expected.beta[:6].any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ALIF(beta=(0.5, 0.1)), r"beta as a pair is \[lowest, highest\]"),
        (lambda: ALIF(rho=tensor(0.5, 1.0)), r"rho must be in \[0, 1\)"),
        (lambda: ALIF(rho=(0.5, 1.0)), r"rho must be in \[0, 1\)"),
        (lambda: LIF(threshold=(0.0, 0.5)), "threshold must be a positive number"),
        (lambda: LIF(threshold=math.nan), "threshold must be a positive number"),
        (lambda: ALIF(beta=math.inf), "beta must be >= 0"),
        (lambda: LIF(threshold="high"), "threshold must be a positive number, got high"),
        (lambda: ALIF(beta=[0.1, 0.2, 0.3]), "a number, a pair or a tensor"),
        (lambda: bpgen.Network(ALIF(beta=tensor(0.1, 0.2, 0.3)), 4, 5), "beta holds 3 values for the 5 neurons"),
        (lambda: ALIF(adaptive=1.5), r"adaptive must be in \[0, 1\]"),
        (lambda: ALIF(beta=EACH["beta"], adaptive=0.5), "one beta per neuron says itself who adapts"),
        (lambda: bpgen.Network(ALIF(adaptive=0.04), 4, 10), "leaves no neuron of 10 to adapt"),
        (lambda: bpgen.Network(ALIF(adaptive=0.96), 4, 10), "leaves every neuron of 10 to adapt"),
        (lambda: ALIF.from_tau(20.0, (0.0, 10.0)), "tau_adaptation and dt must be positive"),
    ],
)
def test_bad_options_name_what_was_expected(build, message):
    with pytest.raises(BpgenError, match=message):
        build()
