"""Diffusing neuromodulators: against a slow reference on a grid, without diffusion, and the kernel itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import bpgen
from bpgen.errors import BpgenError
from bpgen.network.torus import neighbourhood_mean, probability, sides
from bpgen.neurons import ALIF, GRU, LIF, Leaky
from tests.oracles import RECURRENT, WEIGHTS, Problem, assert_differ, assert_equal, problem, randn
from tests.rules.reference_diffusion import box, diffusive_e_prop
from tests.rules.reference_spiking import Spiking
from tests.rules.test_online import mutant
from tests.rules.test_references import tensors

BOTH = ("diffusive_eprop", "diffusive_eprop_online")
ALPHA, THETA, BETA, RHO, GAMMA = 0.3, 0.5, 0.7, 0.8, 0.9
every_form = pytest.mark.parametrize("name", BOTH)


def on_torus(kappa=0.5, beta=BETA, N=12) -> tuple[Problem, Spiking, np.ndarray]:
    """Their neurons on a 3 x 4 torus with a learning window in the middle; the same as bare arrays; the window."""
    neuron = ALIF(ALPHA, THETA, beta, RHO, adaptation="scaled", dampening=GAMMA)
    p = problem(neuron, T=9, B=2, N=N, kappa=kappa, torus=0.1)
    window = torch.tensor([0, 0, 0, 1, 1, 1, 0, 1, 1], dtype=torch.float64)
    p = replace(p, mask=window.unsqueeze(1).expand(9, 2))
    W, U, b, R, c = (p.network.params()[n].numpy(force=True) for n in ("W_rec", "W_in", "b_rec", "W_out", "b_out"))
    W = W * p.network.rec_mask.numpy()
    v0, a0 = p.s_0[:, 0].numpy(), p.s_0[:, 1].numpy()
    constants = (ALPHA, ALPHA, THETA, beta, RHO, GAMMA, kappa)
    return p, Spiking(W, U, b, R, c, p.x.numpy(), p.target.numpy(), v0, a0, *constants), window.numpy()


def loaded(name, p, k=0.75, **options):
    return bpgen.load_rule(name, decay=k, density=0.3, seed=1, **options).bind(p.network)


def expected(p, model, window, rule, k=0.75):
    B, site = rule.feedback.weight.numpy(), p.network.site.numpy()
    grads = tensors(diffusive_e_prop(model, B, k, site, sides(p.network.n_rec), window))
    return {n: g * p.network.masks().get(n, 1) for n, g in grads.items()}


def against_reference(rule, kappa=0.5) -> None:
    p, model, window = on_torus(kappa)
    rule.bind(p.network)
    assert_equal(p.rule(rule).grads, expected(p, model, window, rule), RECURRENT)


@every_form
@pytest.mark.parametrize("kappa", [0.0, 0.5])
@pytest.mark.parametrize("beta", [0.0, BETA])
def test_the_rule_is_the_published_recursion(name, kappa, beta):
    p, model, window = on_torus(kappa, beta)
    h = p.network.run(p.network.params(), p.x, initial_state=p.s_0).h
    assert 0.1 < h.mean() < 0.9
    rule = loaded(name, p)
    direct = rule.feedback.weight.any(0)
    assert 0 < direct.sum() < len(direct)  # sparse: most are told by their neighbours alone
    got, right = p.rule(rule).grads, expected(p, model, window, rule)
    assert_equal(got, right, RECURRENT)
    assert bool(got["W_rec"][~direct].any())
    undiffused = p.rule(loaded(name, p, 0.0)).grads
    assert_differ(undiffused, got, RECURRENT)
    assert not undiffused["W_rec"][~direct].any()
    assert_differ(expected(p, model, np.ones(9), rule), right, RECURRENT)  # control: the window matters


@every_form
@pytest.mark.parametrize("neuron", [Leaky(0.4, "tanh"), LIF(), ALIF(reset="attached"), GRU()])
@pytest.mark.parametrize("loss", [{}, {"loss": "cross_entropy", "when": "last"}])
def test_without_diffusion_it_is_e_prop_with_sparse_feedback(name, neuron, loss):
    p = problem(neuron, N=12, kappa=0.5, learned=True, **loss)
    eprop = bpgen.load_rule("eprop", feedback="sparse", density=0.3, seed=1).bind(p.network)
    right = p.rule(eprop).grads
    assert_equal(p.rule(loaded(name, p, 0.0)).grads, right, WEIGHTS)
    if not loss:
        assert_differ(p.rule(loaded(name, p)).grads, right, RECURRENT)
    else:  # an error at the last step has no time to spread
        assert_equal(p.rule(loaded(name, p)).grads, right, WEIGHTS)


@pytest.mark.parametrize("kernel", ["box", "permuted", "redrawn"])
@pytest.mark.parametrize("neuron", [Leaky(0.4, "tanh", "rate"), ALIF(adaptation="scaled"), GRU()])
@pytest.mark.parametrize("kappa", [0.0, 0.5])
def test_both_forms_give_the_same_sum(kernel, neuron, kappa):
    p = problem(neuron, N=12, T=8, kappa=kappa, learned=True, masked=True)
    one, other = (p.rule(loaded(name, p, kernel=kernel)).grads for name in BOTH)
    assert_equal(one, other, WEIGHTS)
    box_ = p.rule(loaded(BOTH[0], p)).grads
    if kernel != "box":
        assert_differ(one, box_, RECURRENT)


def test_sequences_of_different_lengths_are_each_taken_as_if_run_by_itself():
    p = problem(N=12, T=8, B=2, kappa=0.0)
    rule = loaded(BOTH[0], p)
    args = (p.target, p.loss, p.when, None)
    both = bpgen.gradients(rule, p.network, p.x, *args, p.s_0, lengths=torch.tensor([5, 8])).grads
    alone = [
        bpgen.gradients(rule, p.network, p.x[:T, b], p.target[:T, b], p.loss, p.when, None, p.s_0[b]).grads
        for b, T in ((slice(0, 1), 5), (slice(1, 2), 8))
    ]
    assert_equal(both, {n: (alone[0][n] + alone[1][n]) / 2 for n in WEIGHTS}, WEIGHTS)


# The kernel


@pytest.mark.parametrize("N", [1, 2, 4, 5, 6, 12, 36, 100])
def test_the_kernel_is_the_mean_over_the_grid_with_its_eigenvalues(N):
    h, w = sides(N)
    assert (h * w, h <= w) == (N, True)
    sites = torch.randperm(N, generator=torch.Generator().manual_seed(N))
    M = neighbourhood_mean(sites)
    values = randn(3, N)
    field = np.zeros((h, w))
    field.flat[sites.numpy()] = values.numpy()
    spread = box(field).flat[sites.numpy()]
    torch.testing.assert_close(M @ values, torch.from_numpy(np.ascontiguousarray(spread)))
    torch.testing.assert_close(M, M.mT, rtol=0, atol=0)
    spectrum = torch.linalg.eigvalsh(M)
    assert spectrum[0] > -1 / 3 - 1e-12
    assert float(spectrum[-1]) == pytest.approx(1.0)  # the total is kept: a step leaves k of it
    if N in (6, 36, 12):
        assert float(spectrum[0]) == pytest.approx(-1 / 3)


def test_a_steady_source_fills_up_to_1_over_1_minus_k_and_a_step_leaves_k_of_the_total():
    p = problem(N=100)
    rule = loaded(BOTH[0], p)
    source = torch.eye(100, dtype=torch.float64)[17:18]
    field = torch.zeros_like(source)
    for _ in range(200):
        field = rule.spread(field, None) + source
    assert float(field.sum()) == pytest.approx(4.0)
    near = field[0, rule.mean[17] > 0].sort(descending=True).values  # itself and its eight neighbours
    assert len(near) == 9
    assert float(near[0]) == float(field[0, 17]) == pytest.approx(1.22, abs=0.005)
    assert float(near[1]) == pytest.approx(0.19, abs=0.005)
    assert float(rule.spread(field, None).sum() / field.sum()) == pytest.approx(0.75)


def test_a_permutation_changes_places_and_no_eigenvalue():
    p = problem(N=36)
    plain, moved = (loaded(BOTH[0], p, kernel=kernel) for kernel in ("box", "permuted"))
    assert not torch.equal(plain.mean, moved.mean)
    torch.testing.assert_close(torch.linalg.eigvalsh(plain.mean), torch.linalg.eigvalsh(moved.mean))
    redrawn = loaded(BOTH[0], p, kernel="redrawn")
    assert redrawn.traits.stochastic
    assert not plain.traits.stochastic
    order = redrawn.draw(p.network, p.x, torch.Generator().manual_seed(0))["order"]
    assert [sorted(step.tolist()) for step in order] == [list(range(36))] * len(p.x)
    one = torch.eye(36, dtype=torch.float64)
    K = redrawn.spread(one, order[0])
    torch.testing.assert_close(torch.linalg.eigvalsh(K), 0.75 * torch.linalg.eigvalsh(plain.mean))
    P = one[order[0]]
    torch.testing.assert_close(K, 0.75 * P.T @ plain.mean @ P)


def test_places_follow_the_network_its_seed_or_their_own():
    torus = problem(N=36, torus=0.05).network
    on = bpgen.load_rule(BOTH[0]).bind(torus, seed=5)
    torch.testing.assert_close(on.mean, neighbourhood_mean(torus.site))
    plain = problem(N=36).network
    means = [bpgen.load_rule(BOTH[0], sites=s).bind(plain, seed).mean for s, seed in ((None, 1), (1, 2), (None, 2))]
    assert torch.equal(means[0], means[1])
    assert not torch.equal(means[1], means[2])


@pytest.mark.parametrize("k", [1.0, 1.5, -0.1])
def test_a_modulator_that_never_decays_is_refused(k):
    with pytest.raises(BpgenError, match=r"rule.decay must be in \[0, 1\)"):
        bpgen.load_rule(BOTH[0], decay=k)


def test_a_neuron_is_always_told():
    for seed in range(30):
        weight = bpgen.load_rule("rflo", feedback="sparse", density=0.01, seed=seed).bind(problem().network)
        assert bool(weight.feedback.weight.any())


# The network


def test_synapses_exist_by_distance_on_the_torus():
    sigma, N = 0.012, 400
    net = bpgen.Network(Leaky(0.5), 4, N, 3, torus=sigma, dtype=torch.float64)
    site, exists = net.site, net.rec_mask.bool()
    assert sorted(site.tolist()) == list(range(N))
    row, column = site // 20, site % 20
    near = torch.zeros(N, N, dtype=torch.float64)
    for i in range(N):
        for axis in (row, column):
            apart = (axis - axis[i]).abs().double() / 20
            near[i] += torch.minimum(apart, 1 - apart).square()
    expected_ = 1 / (1 + torch.exp(near / (4 * sigma)))
    torch.testing.assert_close(probability(site, sigma), expected_)
    off = ~torch.eye(N, dtype=torch.bool)
    assert not exists[~off].any()
    for low, high in ((0, 0.01), (0.01, 0.05), (0.05, 0.15), (0.3, 1)):
        here = off & (near >= low) & (near < high)
        p, n = expected_[here].mean(), int(here.sum())
        assert abs(float(exists[here].double().mean() - p)) < 4 * float((p * (1 - p) / n).sqrt()) + 1e-3
    assert not torch.equal(bpgen.Network(Leaky(0.5), 4, N, 3, torus=sigma, seed=1).site, site)


def test_an_output_reads_some_of_the_neurons():
    net = bpgen.Network(Leaky(0.5), 4, 400, 3, readout_density=0.1, dtype=torch.float64)
    assert net.out_mask.sum(1).tolist() == [40, 40, 40]
    assert not torch.equal(net.out_mask[0], net.out_mask[1])
    assert not net.W_out[net.out_mask == 0].any()
    plain = bpgen.Network(Leaky(0.5), 4, 400, 3, dtype=torch.float64)
    torch.testing.assert_close(net.W_rec, plain.W_rec, rtol=0, atol=0)
    torch.testing.assert_close(net.W_out, plain.W_out * net.out_mask / 0.1**0.5)
    assert bpgen.Network(Leaky(0.5), 4, 5, 3, readout_density=0.01).out_mask.sum(1).tolist() == [1, 1, 1]
    areas = {"V1": {"size": 0.5, "input": True}, "PFC": {"size": 0.5, "readout": True, "from": {"V1": 1.0}}}
    net = bpgen.Network(Leaky(0.5), 4, 40, 2, areas=areas, readout_density=0.5)
    assert net.out_mask[:, :20].sum() == 0
    assert net.out_mask.sum(1).tolist() == [10, 10]


def test_a_neuron_sees_some_of_the_inputs():
    net, plain = (bpgen.Network(Leaky(0.5), 40, 400, 3, dtype=torch.float64, **o) for o in ({"input_density": 0.1}, {}))
    assert abs(float(net.in_mask.mean()) - 0.1) < 4 * (0.09 / 16000) ** 0.5
    torch.testing.assert_close(net.W_in, plain.W_in * net.in_mask / 0.1**0.5)
    torch.testing.assert_close(net.W_rec, plain.W_rec, rtol=0, atol=0)
    x = torch.rand(5, 2, 40, dtype=torch.float64)
    grads = bpgen.gradients("bptt", net, x, torch.tensor([0, 1])).grads
    assert not grads["W_in"][net.in_mask == 0].any()
    assert bool(grads["W_in"].any())
    areas = {"V1": {"size": 0.5, "input": True}, "PFC": {"size": 0.5, "readout": True, "from": {"V1": 1.0}}}
    net = bpgen.Network(Leaky(0.5), 4, 40, 2, areas=areas, input_density=0.5)
    assert net.in_mask[20:].sum() == 0
    assert 0 < net.in_mask[:20].mean() < 1


def test_thinned_weights_stay_as_drawn_if_asked():
    thin = {"torus": 0.012, "input_density": 0.1, "readout_density": 0.1}
    drawn = bpgen.Network(Leaky(0.5), 40, 100, 3, dtype=torch.float64, autapses=True)
    net, larger = (bpgen.Network(Leaky(0.5), 40, 100, 3, dtype=torch.float64, rescale=r, **thin) for r in (False, True))
    for name, mask in (("W_rec", net.rec_mask), ("W_in", net.in_mask), ("W_out", net.out_mask)):
        here = mask == 1
        torch.testing.assert_close(getattr(net, name)[here], getattr(drawn, name)[here], rtol=0, atol=0)
        assert (getattr(larger, name)[here].abs() > 2 * getattr(net, name)[here].abs()).all()
        torch.testing.assert_close(mask, getattr(larger, name.replace("W_", "") + "_mask"))


@pytest.mark.parametrize(
    "options",
    [
        {"torus": 0.0},
        {"torus": -1.0},
        {"readout_density": 0.0},
        {"readout_density": 2},
        {"input_density": 0.0},
        {"input_density": 1.5},
    ],
)
def test_a_network_that_cannot_be_is_refused(options):
    with pytest.raises(BpgenError, match=f"network.{next(iter(options))} must be"):
        bpgen.Network(Leaky(0.5), 4, 10, 3, **options)


def test_scaled_adaptation_is_plain_adaptation_with_another_beta():
    rho = torch.linspace(0.5, 0.95, 12, dtype=torch.float64)
    scaled = problem(ALIF(0.3, 0.4, 0.9, rho, adaptation="scaled"), N=12, T=12)
    plain = problem(ALIF(0.3, 0.4, 0.9 * (1 - rho), rho), N=12, T=12)
    start = scaled.s_0 * torch.tensor([1.0, 0.0]).view(1, 2, 1)
    scaled, plain = replace(scaled, s_0=start), replace(plain, s_0=start)
    assert scaled.network(scaled.x, initial_state=start).norm() > 0
    for rule in ("bptt", "eprop"):
        assert_equal(scaled.rule(rule).grads, plain.rule(rule).grads)
    other = problem(ALIF(0.3, 0.4, 0.9, rho), N=12, T=12)
    assert_differ(replace(other, s_0=start).rule("bptt").grads, scaled.rule("bptt").grads, RECURRENT)


# row: rule, a piece of its source, what stands there by mistake
MUTANTS = {
    "the field forgets": ("diffusive_eprop", "self.spread(field, order_at(draws, before + i)) + added", "added"),
    "the error spreads backwards": ("diffusive_eprop", "enumerate(direct[1:], start=1)", "enumerate(direct[:-1])"),
    "neurons learn outside the window": ("diffusive_eprop", " * window(error)", ""),
    "the trace is not filtered": (
        "diffusive_eprop",
        "filtered_back(heard, trajectory.network.kappa,",
        "filtered_back(heard, 0,",
    ),
    "it spreads after it was heard": (
        "diffusive_eprop_online",
        "field * window(moment.error)",
        "self.spread(field, None) * window(moment.error)",
    ),
    "it learns outside the window online": ("diffusive_eprop_online", " * window(moment.error)", ""),
    "it has no memory online": ("diffusive_eprop_online", 'state["field"]', '0 * state["field"]'),
}


@pytest.mark.parametrize("row", MUTANTS)
def test_mutant_is_killed(row):
    name, old, new = MUTANTS[row]
    against_reference(bpgen.load_rule(name, density=0.3, seed=1))
    with pytest.raises(AssertionError):
        against_reference(mutant(name, old, new)(density=0.3, seed=1))
