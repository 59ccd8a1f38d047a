"""Rules made for spiking networks, against slow references of their papers and in the limits they name."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

import bpgen
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.neurons import ALIF, LIF, Leaky
from bpgen.rules import Rule
from tests.oracles import (
    RECURRENT,
    WEIGHTS,
    assert_differ,
    assert_equal,
    autograd,
    distance,
    leaves,
    no_hop,
    problem,
    randn,
    run_slow,
)
from tests.rules import reference_spiking_rules
from tests.rules.test_online import mutant
from tests.rules.test_references import SPIKING, every_readout, spiking, tensors

SYNAPSES = ("W_rec", "W_in")
every_neuron = pytest.mark.parametrize("name", SPIKING)


def near_threshold(**options):
    return LIF(0.3, threshold=0.5, dampening=0.9, **options)


def check_ottt(rule: Rule, decay: float | None = None, name: str = "LIF", kappa: float = 0.6, **options) -> None:
    """The rule against traces written out, at its own λ or a given one."""
    p, model = spiking(name, kappa, **options)
    expected = reference_spiking_rules.ottt(model, model.R, 1 - model.alpha if decay is None else decay)
    assert_equal(p.rule(rule).grads, tensors(expected), RECURRENT)


# OTTT and SLTT


@every_readout
@every_neuron
@pytest.mark.parametrize("reset", ["detached", "attached"])
def test_ottt_and_sltt_equal_their_traces(name, kappa, reset):
    """Neither sees the reset or the adaptation; the reference does not know that there is a choice."""
    check_ottt(bpgen.load_rule("ottt"), None, name, kappa, reset=reset)
    check_ottt(bpgen.load_rule("ottt", trace_decay=0.9), 0.9, name, kappa, reset=reset)
    check_ottt(bpgen.load_rule("sltt"), 0.0, name, kappa, reset=reset)
    p, _ = spiking(name, kappa)
    assert 0.1 < p.network.run(p.network.params(), p.x, initial_state=p.s_0).h.mean() < 0.9
    assert_differ(p.rule("ottt").grads, p.rule("sltt").grads, SYNAPSES, by=0.1)
    assert_equal(p.rule("ottt").grads, p.rule("sltt").grads, ["b_rec", "W_out", "b_out"])


@pytest.mark.parametrize("reset", ["detached", "attached"])
@every_neuron
def test_sltt_is_autograd_with_the_state_before_detached_at_every_step(name, reset):
    """As their code says it; of ALIF the adaptation is a part of that state."""
    p, _ = spiking(name, 0.0, reset)
    expected = autograd(p, **no_hop(), own=lambda s, t: s.detach())
    assert_equal(p.rule("sltt").grads, {n: expected[n] for n in WEIGHTS})
    assert_differ(p.rule("sltt").grads, autograd(p, **no_hop()), SYNAPSES)


def test_ottt_with_random_feedback_and_leaks_of_their_own():
    p, model = spiking("LIF", 0.0)
    leaks = np.linspace(0.2, 0.8, 5)
    neuron = LIF(torch.from_numpy(leaks), threshold=0.5, dampening=0.9)
    p.network.neuron = neuron.populate(5, torch.Generator(), torch.float64)
    model.alpha = model.gain = leaks
    rule = bpgen.load_rule("ottt", feedback="random", seed=3).bind(p.network)
    B = rule.feedback.weight.numpy()
    assert_equal(p.rule(rule).grads, tensors(reference_spiking_rules.ottt(model, B, 1 - leaks)), RECURRENT)
    assert_differ(p.rule("ottt").grads, p.rule(rule).grads, RECURRENT)


OUTSIDE = {"LIF": near_threshold(), "LIF, plain": near_threshold(drive="plain"), "potential": Leaky(0.4, "tanh")}
INSIDE = {
    "ALIF": ALIF(0.3, threshold=0.5, dampening=0.9, beta=0.7, rho=0.8),
    "reset attached": near_threshold(reset="attached"),
    "rate": Leaky(0.4, "tanh", "rate"),
    "inside": Leaky(0.4, "tanh", "inside"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_ottt_is_e_prop_where_the_slope_stands_outside_a_filter_of_the_leak_alone(name):
    p = problem(OUTSIDE[name], T=9)
    e_prop = p.rule("eprop").grads
    assert_equal(p.rule("ottt").grads, e_prop, SYNAPSES)
    assert_differ(p.rule("ottt").grads, e_prop, ["b_rec"])  # it has no trace
    assert_differ(p.rule("bptt").grads, e_prop, SYNAPSES)
    p = problem(OUTSIDE[name], T=9, kappa=0.5)
    assert_differ(p.rule("ottt").grads, p.rule("eprop").grads, SYNAPSES)


@pytest.mark.parametrize("name", INSIDE)
def test_ottt_is_not_e_prop_elsewhere(name):
    p = problem(INSIDE[name], T=9)
    assert_differ(p.rule("ottt").grads, p.rule("eprop").grads, SYNAPSES, by=0.01)


@pytest.mark.parametrize("make", [near_threshold, lambda: Leaky(0.4, "tanh")])
def test_sltt_is_ottt_without_a_trace_and_e_prop_of_neurons_without_memory(make):
    p = problem(make(), T=9)
    assert_equal(p.rule("sltt").grads, p.rule("ottt", trace_decay=0.0).grads, ["W_rec", "W_in", "b_rec", "W_out"])
    assert_differ(p.rule("sltt").grads, p.rule("eprop").grads, SYNAPSES)
    p = problem(LIF(1.0, dampening=0.9), T=9)
    assert_equal(p.rule("sltt").grads, p.rule("eprop").grads, RECURRENT)
    assert distance(p.rule("bptt").grads["W_rec"], p.rule("sltt").grads["W_rec"]) > 0.01


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_trace_that_does_not_decay_is_refused(decay):
    with pytest.raises(BpgenError, match=r"trace_decay must be in \[0, 1\)"):
        bpgen.load_rule("ottt", trace_decay=decay)


# SLTT-K


def of_steps(p, rule: Rule, steps: list[int]) -> dict[str, torch.Tensor]:
    """The rule's gradient where these steps are drawn."""
    learned = torch.zeros(len(p.x), dtype=torch.float64)
    learned[steps] = 1
    loss = Loss(p.loss, p.when)
    asked = bpgen.problem.Problem(p.network, p.network.params(), p.x, p.target, loss, p.s_0)
    return rule.bind(p.network).gradients(asked, {"learned": learned}).grads


def check_sltt_k(rule: Rule, name: str = "ALIF", kappa: float = 0.6) -> None:
    """SLTT-K against its sum over three steps written out, step after step and at once; the readout learns from all."""
    p, model = spiking(name, kappa)
    steps = [1, 4, 5]
    expected = tensors(reference_spiking_rules.ottt(model, model.R, 0.0, steps))
    for at_once in (True, False):
        rule.at_once = at_once
        got = of_steps(p, rule, steps)
        assert_equal(got, expected, RECURRENT)
        assert_equal(got, p.rule("sltt").grads, ["W_out", "b_out"])


@every_readout
@every_neuron
def test_sltt_k_is_the_sum_over_the_steps_drawn(name, kappa):
    check_sltt_k(bpgen.load_rule("sltt", steps=3), name, kappa)
    p, _ = spiking(name, kappa)
    for steps in (9, 20):  # all there are, as their randperm(T)[:K]
        assert_equal(p.rule("sltt", steps=steps).grads, p.rule("sltt").grads, tol=1e-12)
    assert_differ(p.rule("sltt", steps=3).grads, p.rule("sltt").grads, RECURRENT)


def test_the_mean_of_sltt_k_over_all_draws_is_k_of_t_parts_of_sltt():
    p, _ = spiking("LIF", 0.6)
    rule, draws = bpgen.load_rule("sltt", steps=2), list(combinations(range(9), 2))
    each = [of_steps(p, rule, list(steps)) for steps in draws]
    mean = {n: sum(one[n] for one in each) / len(draws) for n in RECURRENT}
    assert_equal(mean, {n: 2 / 9 * p.rule("sltt").grads[n] for n in RECURRENT}, RECURRENT)


def test_sltt_k_draws_k_different_steps_evenly():
    p, _ = spiking("LIF", 0.0)
    rule, random = bpgen.load_rule("sltt", steps=3), torch.Generator().manual_seed(0)
    drawn = torch.stack([rule.draw(p.network, p.x, random)["learned"] for _ in range(3000)])
    assert (drawn.sum(1) == 3).all()
    assert (drawn.mean(0) - 1 / 3).abs().max() < 4 * (2 / 9 / 3000) ** 0.5  # four standard errors
    assert rule.traits.stochastic
    assert not bpgen.load_rule("sltt").traits.stochastic
    assert bpgen.load_rule("sltt").draw(p.network, p.x, random) == {}


def test_sltt_of_no_step_is_refused():
    with pytest.raises(BpgenError, match="steps must be at least 1, or null"):
        bpgen.load_rule("sltt", steps=0)


# SuperSpike


def check_superspike(
    rule: Rule, name: str = "ALIF", kappa: float = 0.6, rise=0.7, decay=2.0, filter_error=True
) -> None:
    """The rule against traces and errors convolved with the kernel."""
    p, model = spiking(name, kappa)
    rule.tau_rise, rule.tau_decay, rule.filter_error = rise, decay, filter_error
    expected = reference_spiking_rules.superspike(model, model.R, rise, decay, filter_error)
    assert_equal(p.rule(rule).grads, tensors(expected), RECURRENT)


@every_readout
@every_neuron
@pytest.mark.parametrize("filter_error", [True, False])
def test_superspike_equals_its_convolutions(name, kappa, filter_error):
    check_superspike(bpgen.load_rule("superspike"), name, kappa, filter_error=filter_error)
    p, _ = spiking(name, kappa)
    plain, other = (p.rule("superspike", filter_error=value).grads for value in (filter_error, not filter_error))
    assert_differ(plain, other, RECURRENT, by=0.01)
    assert_equal(plain, other, ["W_out", "b_out"])


def test_the_kernel_of_superspike_is_the_neurons_own_by_default():
    p, tau = problem(near_threshold(), T=9, kappa=0.5), -1 / np.log(0.7)
    given = p.rule("superspike", tau_rise=tau / 2, tau_decay=tau).grads
    assert_equal(p.rule("superspike").grads, given, RECURRENT)
    assert_differ(p.rule("superspike", tau_rise=tau, tau_decay=tau).grads, given, RECURRENT, by=0.01)


@every_readout
@pytest.mark.parametrize("make", [near_threshold, lambda **o: ALIF(0.3, **o), lambda **o: Leaky(0.4, "tanh")])
def test_superspike_of_a_delta_is_three_factor_with_the_same_surrogate(make, kappa):
    p = problem(make(), T=9, kappa=kappa)
    delta = p.rule("superspike", tau_rise=0.0, tau_decay=0.0).grads
    assert_equal(delta, p.rule("three_factor").grads)
    near = p.rule("superspike", tau_rise=0.05, tau_decay=0.05).grads  # and goes there: of e^-20 is left
    assert_equal(near, delta, tol=1e-7)
    assert_differ(p.rule("superspike").grads, delta, RECURRENT, by=0.05)
    if make is near_threshold:  # another surrogate is another rule
        other = problem(make(surrogate="fast_sigmoid"), T=9, kappa=kappa)
        assert_differ(other.rule("superspike", tau_rise=0.0, tau_decay=0.0).grads, delta, RECURRENT)


@every_readout
def test_superspike_is_the_gradient_of_the_van_rossum_distance_along_own_paths(kappa):
    """Autograd of ½ Σ_t |α * (y - y*)|² with the recurrent paths cut; and of the loss itself it is not the gradient."""
    p = problem(Leaky(0.4, "tanh"), T=9, kappa=kappa)
    alpha = torch.from_numpy(reference_spiking_rules.kernel(0.7, 2.0, 9))
    params = leaves(p)
    difference = run_slow(p, params, **no_hop()).outputs - p.target
    smooth = [sum(alpha[t - s] * difference[s] for s in range(t + 1)) for t in range(9)]
    distance_ = 0.5 * torch.stack(smooth).square().sum() / 3
    grads = dict(zip(params, torch.autograd.grad(distance_, list(params.values()), allow_unused=True), strict=True))
    got = p.rule("superspike", tau_rise=0.7, tau_decay=2.0).grads
    assert_equal(got, {n: grads[n] for n in RECURRENT}, RECURRENT)
    assert_differ(p.rule("superspike", tau_rise=0.7, tau_decay=2.0, filter_error=False).grads, grads, RECURRENT)
    assert_differ(p.rule("three_factor").grads, grads, RECURRENT)


def test_superspike_hears_nothing_behind_the_last_error():
    """Steps of weight 0 at the end are as good as no steps; with errors there, they are not."""
    p = problem(near_threshold(), T=9, masked=True)
    p.mask[6:] = 0
    short = replace(p, x=p.x[:6], target=p.target[:6], mask=p.mask[:6])
    assert_equal(p.rule("superspike").grads, short.rule("superspike").grads)
    p.mask[8] = 1.0
    assert_differ(p.rule("superspike").grads, short.rule("superspike").grads, RECURRENT)


@pytest.mark.parametrize("options", [{"tau_rise": -1.0}, {"tau_decay": float("inf")}])
def test_a_kernel_without_an_end_is_refused(options):
    with pytest.raises(BpgenError, match="must be a number of steps >= 0"):
        bpgen.load_rule("superspike", **options)


# DECOLLE

AREAS = {"V1": {"size": 2, "input": True}, "PFC": {"size": 3, "readout": True, "from": {"V1": 1.0}}}


def in_areas(name: str, kappa: float, areas=AREAS):
    """`spiking` with areas that have weights between them, masked as the network says."""
    p, model = spiking(name, kappa)
    if areas is None:
        return p, model
    neuron = p.network.neuron
    q = problem(neuron, T=9, kappa=kappa, areas=areas)
    with torch.no_grad():
        q.network.b_rec[2:] += 1.0  # PFC fires
    masks = q.network.masks()
    W, U, b, R, c = (q.network.params()[n].detach() for n in ("W_rec", "W_in", "b_rec", "W_out", "b_out"))
    W, U, R = W * masks["W_rec"], U * masks["W_in"], R * masks["W_out"]
    weights = dict(zip("WUbRc", (w.numpy() for w in (W, U, b, R, c)), strict=True))
    return q, replace(model, **weights, x=q.x.numpy(), target=q.target.numpy())


def check_decolle(rule: Rule, name: str = "ALIF", kappa: float = 0.6, areas=AREAS) -> None:
    """The rule against local readouts written out, with areas or as one."""
    p, model = in_areas(name, kappa, areas)
    rule.feedback.weight = randn(77, 3, 5)
    expected = tensors(reference_spiking_rules.decolle(model, randn(77, 3, 5).numpy(), p.network.area.numpy()))
    expected = {n: g * p.network.masks().get(n, 1) for n, g in expected.items()}
    assert_equal(p.rule(rule).grads, expected, RECURRENT)


@every_readout
@every_neuron
@pytest.mark.parametrize("areas", [None, AREAS])
def test_decolle_equals_its_local_readouts(name, kappa, areas):
    check_decolle(bpgen.load_rule("decolle"), name, kappa, areas)
    p, _ = in_areas(name, kappa, areas)
    random = bpgen.load_rule("rflo", seed=3).bind(p.network)  # control: the outputs' error through the same weights
    local = bpgen.load_rule("decolle")
    local.feedback.weight = random.feedback.weight
    assert_differ(p.rule(local).grads, p.rule(random).grads, RECURRENT, by=0.05)
    assert_equal(p.rule(local).grads, p.rule("bptt").grads, ["W_out", "b_out"])


@every_readout
@pytest.mark.parametrize("make", [near_threshold, lambda: ALIF(0.3, reset="attached"), lambda: Leaky(0.4, "tanh")])
@pytest.mark.parametrize("options", [{}, {"loss": "cross_entropy", "when": "last"}, {"masked": True}])
def test_decolle_of_one_area_whose_readout_is_the_networks_is_e_prop(make, kappa, options):
    """G = W_out and b_out = 0; each half of the condition alone is not enough, nor are two areas."""
    p = problem(make(), T=9, kappa=kappa, **options)
    with torch.no_grad():
        p.network.b_out.zero_()
    W_out = p.network.params()["W_out"]
    same, other = bpgen.load_rule("decolle"), bpgen.load_rule("decolle", seed=5)
    random = bpgen.load_rule("rflo")
    same.feedback.weight = random.feedback.weight = W_out
    e_prop = p.rule("three_factor").grads
    assert_equal(p.rule(same).grads, e_prop, RECURRENT)
    assert_equal(p.rule(random).grads, e_prop, RECURRENT)
    assert_differ(p.rule(other).grads, e_prop, RECURRENT, by=0.05)
    with torch.no_grad():
        p.network.b_out.fill_(0.5)
    if options.get("loss") != "cross_entropy":  # to the classes, a bias that is the same for all is none
        assert_differ(p.rule(same).grads, p.rule("three_factor").grads, RECURRENT)
    with torch.no_grad():
        p.network.b_out.zero_()
    p.network.area, p.network.area_names = torch.tensor([0, 0, 1, 1, 1]), ("V1", "PFC")
    assert_differ(p.rule(same).grads, e_prop, RECURRENT, by=0.01)


def test_decolle_hears_nothing_of_the_readout_or_of_other_areas():
    """Another W_out, and other neurons downstream, leave the credit of an area as it is, bit for bit."""
    p, _ = in_areas("LIF", 0.0)
    rule = bpgen.load_rule("decolle", seed=2).bind(p.network)
    before, bptt = p.rule(rule).grads, p.rule("bptt").grads
    V1 = p.network.area == 0
    with torch.no_grad():
        p.network.W_out.mul_(-2.0)
    assert all(torch.equal(p.rule(rule).grads[n], before[n]) for n in RECURRENT)
    with torch.no_grad():
        p.network.W_rec[~V1] *= -1.0  # PFC receives otherwise, and sends nothing back
        p.network.b_rec[~V1] += 1.0
    after = p.rule(rule).grads
    assert all(torch.equal(after[n][V1], before[n][V1]) for n in RECURRENT)
    assert distance(after["b_rec"][~V1], before["b_rec"][~V1]) > 0.01
    assert distance(p.rule("bptt").grads["b_rec"][V1], bptt["b_rec"][V1]) > 0.01
    assert before["W_in"][V1].norm() > 1e-6


# Mutants: the likely mistake of each rule, and that the checks above see it. The last word: what is planted in `step`.

MUTANTS = {
    "ottt forgets its trace": ("ottt", 'decay * state["trace"] + moment', "moment", check_ottt),
    "ottt gives the bias a trace": ("ottt", 'if "b_rec" in grads else grads', "if False else grads", check_ottt),
    "ottt tells all of a filtered readout": ("ottt", "(1 - at.network.kappa) * self", "self", check_ottt),
    "ottt leaves out the drive": (
        "ottt",
        "moment.C, moment.tell",
        "moment.C / moment.C, moment.tell",
        check_ottt,
    ),
    "ottt keeps what leaks": ("ottt", "1 - network.neuron.alpha if", "network.neuron.alpha if", check_ottt),
    "superspike forgets the rise": ("superspike", "return rise, own if", "return 0.0, own if", check_superspike),
    "superspike smooths traces the wrong way": (
        "superspike",
        "filtered(q.flip(0), keep).flip(0)",
        "filtered(q, keep)",
        check_superspike,
    ),
    "superspike smooths no error": ("superspike", "if self.filter_error", "if not self.filter_error", check_superspike),
    "superspike's kernel does not sum to one": (
        "superspike",
        "filtered(error, keep)",
        "filtered(error, keep) / (1 - keep)",
        check_superspike,
    ),
    "superspike drops the readout's filter": (
        "superspike",
        "filtered_back(error, trajectory.network.kappa, trajectory.n_steps)",
        "error",
        check_superspike,
    ),
    "decolle takes one readout for all areas": (
        "decolle",
        "network.area == number",
        "network.area >= 0",
        check_decolle,
    ),
    "decolle sends the outputs' error": (
        "decolle",
        "loss.data_and_error(r @ G.mT, problem.target)",
        "problem.value_and_error(run)",
        check_decolle,
    ),
    "decolle's readouts do not leak": ("decolle", "else run.r", "else run.h[1:]", check_decolle),
    "decolle hears through W_out": ("decolle", "run.n_steps) @ G", 'run.n_steps) @ run.params["W_out"]', check_decolle),
    "sltt keeps a trace": ("sltt", "trace_decay=0.0", "trace_decay=0.1", lambda rule: check_ottt(rule, 0.0)),
    "sltt-k learns from the steps that were not drawn": (
        "sltt",
        'q * draws["learned"]',
        'q * (1 - draws["learned"])',
        check_sltt_k,
    ),
    "sltt-k is scaled up by T/K": ("sltt", 'q * draws["learned"]', 'q * 3 * draws["learned"]', check_sltt_k),
}


@pytest.mark.parametrize("row", MUTANTS)
def test_mutant_is_killed(row):
    name, old, new, check = MUTANTS[row]
    options = {"steps": 3} if check is check_sltt_k else {}
    check(bpgen.load_rule(name, **options))
    wrong = mutant(name, old, new)
    if name in ("ottt", "sltt"):
        wrong.at_once = False  # what is planted is in `step`; `block` is held to it by the conformance suite
    with pytest.raises(AssertionError):
        check(wrong(**options))
