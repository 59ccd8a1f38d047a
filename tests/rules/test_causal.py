"""Causal credit over time: against autograd and masked runs of a slow network, in its limits, on planted segments."""

from __future__ import annotations

import pytest
import torch

import bpgen
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.neurons import ALIF, GRU, Leaky
from bpgen.problem import Problem as Given
from tests.oracles import RECURRENT, WEIGHTS, assert_differ, assert_equal, no_hop, problem, randn, run_slow, true_loss
from tests.rules.test_online import mutant

T, B = 7, 3


def hand(neuron=None, **options):
    return problem(neuron or Leaky(0.4, "tanh"), T=T, B=B, **options)


def loss_of_each(p, x):
    """The loss of each sequence, run by itself, on other inputs."""
    found = []
    for b in range(B):
        one = p.part(slice(b, b + 1))
        slow = run_slow(bpgen_problem(one, x[:, b : b + 1]), dict(one.network.named_parameters()))
        found.append(float(true_loss(slow.outputs, one.target, one.loss, one.when, one.mask).detach()))
    return found


def bpgen_problem(p, x):
    return type(p)(p.network, x, p.target, p.loss, p.when, p.mask, p.s_0)


def expected_weights(p, segments, w_min=0.5, boost=2.0, baseline="zero", inverted=False, kappa=None):
    """w [T,B] by loops, from the published equations."""
    segment = [t * segments // T for t in range(T)]
    whole, w = loss_of_each(p, p.x), torch.zeros(T, B, dtype=torch.float64)
    drops = []
    for s in range(segments):
        x = p.x.clone()
        for t in range(T):
            if segment[t] == s:
                x[t] = p.x.mean(0) if baseline == "mean" else 0.0
        drops.append([masked - own for masked, own in zip(loss_of_each(p, x), whole, strict=True)])
    for b in range(B):
        raw = [0.2 + drops[segment[t]][b] for t in range(T)]
        low, high = min(raw), max(raw)
        for t in range(T):
            I = 0.5 + 0.5 * (raw[t] - low) / (high - low)
            I = 1.5 - I if inverted else I  # max I = 1, min I = 0.5
            w[t, b] = w_min + (boost - w_min) * I if kappa is None else 1 + kappa * max(drops[segment[t]][b], 0)
        w[:, b] /= w[:, b].sum() / T
    return w


def expected(p, w, **paths):
    """Σ_t w_t c_t (h_{t-1}; x_t; 1): c_t the slope of the loss by the current of a step, along the host's paths."""
    params = {n: v.detach() for n, v in p.network.named_parameters()}
    noise = torch.zeros(T, B, len(params["W_rec"]), dtype=torch.float64, requires_grad=True)
    slow = run_slow(p, params, noise=noise, **paths)
    c = torch.autograd.grad(true_loss(slow.outputs, p.target, p.loss, p.when, p.mask), noise)[0] * w.unsqueeze(-1)
    h = torch.stack(slow.h).detach()[:-1]
    grads = {"W_rec": torch.einsum("tbp,tbq->pq", c, h), "W_in": torch.einsum("tbp,tbi->pi", c, p.x)}
    grads["b_rec"] = c.sum((0, 1))
    return {n: g * p.network.masks().get(n, 1) for n, g in grads.items()}


CASES = {
    "published": ({}, {}),
    "three segments": ({"segments": 3}, {"segments": 3}),
    "a wide range": ({"w_min": 0.1, "boost": 5.0}, {"w_min": 0.1, "boost": 5.0}),
    "masked by the mean": ({"baseline": "mean"}, {"baseline": "mean"}),
    "inverted": ({"control": "inverted"}, {"inverted": True}),
    "clipped": ({"form": "clipped", "kappa": 3.0}, {"kappa": 3.0}),
}


def against_reference(rule, p=None, **told) -> None:
    p = p or hand(kappa=0.4)
    w = expected_weights(p, **{"segments": 5, **told})
    assert_equal(p.rule(rule).grads, expected(p, w, **no_hop()), RECURRENT)


@pytest.mark.parametrize("case", CASES)
def test_credit_is_weighed_by_what_masking_costs(case):
    options, told = CASES[case]
    p = hand(kappa=0.4)
    result = p.rule("causal_credit", **options)
    w = expected_weights(p, **{"segments": 5, **told})
    torch.testing.assert_close(result.aux["w"], w)
    against_reference(bpgen.load_rule("causal_credit", **options), p, **told)
    assert_differ(p.rule("three_factor").grads, result.grads, RECURRENT)
    assert_equal(result.grads, p.rule("three_factor").grads, ["W_out", "b_out"])


@pytest.mark.parametrize("neuron", [GRU(), ALIF(0.3, threshold=0.4, dampening=0.9)])
def test_on_other_neurons_under_bptt_and_at_a_loss_of_the_last_step(neuron):
    p = hand(neuron, loss="cross_entropy", when="last")
    got = p.rule("causal_credit", host="bptt").grads
    assert_equal(got, expected(p, expected_weights(p, 5)), RECURRENT)


@pytest.mark.parametrize("host", ["bptt", "tbptt", "three_factor", "rflo", "mdgl", "modprop", "diffusive_eprop"])
@pytest.mark.parametrize("limit", [{"boost": 0.5}, {"form": "clipped", "kappa": 0.0}, {"segments": 1}])
def test_without_a_range_of_weights_it_is_its_host(host, limit):
    options = {"density": 0.6} if host == "diffusive_eprop" else {}
    for p in (hand(learned=True), hand(masked=True)):
        right = p.rule(host, **options).grads
        assert_equal(p.rule("causal_credit", host=host, host_options=options, **limit).grads, right, WEIGHTS)
    if limit == {"boost": 0.5}:
        assert_differ(p.rule("causal_credit", host=host, host_options=options).grads, right, RECURRENT)


def test_segments_that_cost_the_same_weigh_the_same():
    p = hand()
    with torch.no_grad():
        p.network.W_in.zero_()  # masking costs nothing at all
    assert_equal(p.rule("causal_credit").grads, p.rule("three_factor").grads, ["W_rec", "b_rec"])


def test_the_segment_on_which_the_answer_hangs_has_the_largest_weight():
    """The target is what a trained-like network makes of the inputs of steps 5 and 6 alone."""
    network = bpgen.Network(Leaky(1.0, "linear"), 2, 4, 1, dtype=torch.float64, autapses=True)
    params = network.params()
    eye = torch.eye(4, dtype=torch.float64)
    params["W_rec"], params["W_in"], params["W_out"] = 0.9 * eye, eye[:, :2] * 1.0, eye[:1] * 1.0
    x = randn(1, 10, 6, 2)
    x[:4, :, 0] = x[6:, :, 0] = 0.0  # the first input, which alone is read, is silent but at steps 5 and 6
    run = network.run(params, x, when="last")
    p = Given(network, params, x, run.outputs.clone(), Loss.of("mse", "last", None))
    for form in ("signed", "clipped"):
        rule = bpgen.load_rule("causal_credit", segments=5, form=form).bind(network)
        w = rule.gradients(p).aux["w"]
        assert (w.argmax(0) == 4).all()
        torch.testing.assert_close(w[4], w[5])
        torch.testing.assert_close(w.mean(0), torch.ones(6, dtype=torch.float64))
        assert (w[4] > 1.5 * w[0]).all() or form == "clipped"
    inverted = bpgen.load_rule("causal_credit", segments=5, control="inverted").bind(network).gradients(p).aux["w"]
    assert (inverted.argmin(0) == 4).all()


def test_random_importance_is_drawn_for_every_step_and_sequence():
    p = hand()
    rule = bpgen.load_rule("causal_credit", control="random").bind(p.network)
    assert rule.traits.stochastic
    w = p.rule(rule).aux["w"]
    assert w.unique().numel() == T * B
    assert float(w.amin()) > 0.5 / 2
    torch.testing.assert_close(w.mean(0), torch.ones(B, dtype=torch.float64))
    I = rule.draw(p.network, p.x, bpgen.streams.generator(0, "draws"))["importance"]
    torch.testing.assert_close(w, (0.5 + 1.5 * I) / (0.5 + 1.5 * I).mean(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "rtrl"}, "not of rtrl"),
        ({"host": "causal_credit"}, "not of causal_credit"),
        ({"segments": 0}, "segments must be"),
        ({"w_min": 0.0}, "w_min must be"),
        ({"w_min": 3.0}, "w_min must be"),
        ({"kappa": -1.0}, "kappa must be"),
        ({"form": "clipped", "control": "inverted"}, "control is of the importance"),
        ({"control": "upside"}, "control"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(BpgenError, match=message):
        bpgen.load_rule("causal_credit", **options)


# row: rule, a piece of its source, what stands there by mistake
MUTANTS = {
    "weights of the wrong steps": ("causal_credit", "currents * w[", "currents * w.flip(0)["),
    "weights are not divided by their mean": (
        "causal_credit",
        "return of_mean_one(self.w_min + (self.boost - self.w_min) * I, of)",
        "return self.w_min + (self.boost - self.w_min) * I",
    ),
    "what misleads weighs most": ("causal_credit", "importance(drop, of", "importance(-drop, of"),
    "all steps are masked at once": (
        "causal_credit",
        "drops(problem, run, of, self.segments",
        "drops(problem, run, 0 * of, 1",
    ),
}


@pytest.mark.parametrize("row", MUTANTS)
def test_mutant_is_killed(row):
    name, old, new = MUTANTS[row]
    against_reference(bpgen.load_rule(name))
    with pytest.raises(AssertionError):
        against_reference(mutant(name, old, new)())
