"""The controls against autograd: ρ, norms and orthogonality from gradients that no rule computed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from bpgen_rules._control import Control
from bpgen_rules.noisy_bptt import NoisyBPTT
from bpgen_rules.norm_matched import NormMatched
from bpgen_rules.random_gradient import RandomGradient
from bpgen_rules.scaled_bptt import ScaledBPTT
from bpgen_rules.unscaled import Unscaled
from torch.func import functional_call, vmap

import bpgen
from bpgen.callbacks.alignment import alignment
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.neurons import Leaky
from bpgen.streams import generator
from tests.oracles import (
    RECURRENT,
    WEIGHTS,
    acting,
    asked,
    assert_differ,
    assert_equal,
    autograd,
    distance,
    no_hop,
    problem,
)

L2 = {"W_rec": 0.3, "W_out": 0.2}
READOUT = ["W_out", "b_out"]
every_over = pytest.mark.parametrize("over", ["all", "recurrent"])
every_leak = pytest.mark.parametrize("leak", ["potential", "rate", "inside"])


def flat(grads, names=WEIGHTS):
    return torch.cat([grads[n].flatten() for n in names])


def with_l2(p, rule, seed=0):
    """The control's gradient of a loss with a regulariser."""
    return bpgen.gradients(rule, p.network, p.x, p.target, p.loss, p.when, p.mask, p.s_0, regulariser=L2, seed=seed)


def oracle(p, factor, over, direction="g"):
    """factor(ĝ, g) times g or ĝ by autograd, the readout left exact if `over` says so, plus the L2 gradient."""
    g, g_hat = autograd(p), autograd(p, **no_hop())
    names = WEIGHTS if over == "all" else RECURRENT
    k = factor(flat(g_hat, names), flat(g, names))
    chosen = g if direction == "g" else g_hat
    grads = {n: k * chosen[n] if n in names else g[n] for n in WEIGHTS}
    return {n: v + L2.get(n, 0) * p.network.params()[n] for n, v in grads.items()}


def rho(g_hat, g):
    return (g_hat @ g) / (g @ g)


def a_problem(leak="potential", **options):
    return problem(Leaky(0.4, "tanh", leak), T=7, **options)


# row: rule, what it multiplies and by which number
SCALED = {
    "scaled_bptt": (ScaledBPTT, rho, "g"),
    "unscaled": (Unscaled, lambda g_hat, g: 1 / rho(g_hat, g), "g_hat"),
    "norm_matched": (NormMatched, lambda g_hat, g: g_hat.norm() / g.norm(), "g"),
}


@pytest.mark.parametrize("row", SCALED)
@every_over
@every_leak
def test_scaled_gradients_equal_autograds(row, over, leak):
    p, (cls, factor, direction) = a_problem(leak), SCALED[row]
    got = with_l2(p, cls(over=over))
    assert_equal(got.grads, oracle(p, factor, over, direction), WEIGHTS)
    plain = with_l2(p, "bptt")
    assert_differ(got.grads, plain.grads, RECURRENT)
    torch.testing.assert_close(got.loss, plain.loss)
    torch.testing.assert_close(got.outputs, plain.outputs)
    for other, (_, f, d) in SCALED.items():  # control: no two of them are one
        if other != row:
            assert_differ(got.grads, oracle(p, f, over, d), RECURRENT)
    if over == "recurrent":
        assert_equal(got.grads, plain.grads, READOUT, tol=1e-15)


class ScaledWithRegulariser(ScaledBPTT):
    """ρ scales the regulariser's gradient too."""

    def gradients(self, problem, draws=()):
        result = super().gradients(problem, draws)
        extra = problem.loss.regulariser.gradient(problem.params)
        grads = {n: g + (result.aux["rho"] - 1) * extra.get(n, 0) for n, g in result.grads.items()}
        return result._replace(grads=grads)


class CosineInPlaceOfRho(ScaledBPTT):
    """Divides by ‖ĝ‖‖g‖ in place of ‖g‖²."""

    def combine(self, reference, exact, network, draws):
        grads, report = super().combine(reference, exact, network, draws)
        factor = flat(exact, exact).norm() / flat(reference, reference).norm()
        return {n: factor * g for n, g in grads.items()}, report


class ScaledByWeight(ScaledBPTT):
    """One ρ a weight in place of one for all."""

    def combine(self, reference, exact, network, draws):
        return {n: rho(reference[n].flatten(), g.flatten()) * g for n, g in exact.items()}, {"rho": torch.tensor(0.0)}


class UnscaledTwice(Unscaled):
    """Multiplies by ρ in place of dividing."""

    def combine(self, reference, exact, network, draws):
        grads, report = super().combine(reference, exact, network, draws)
        return {n: report["rho"] ** 2 * g for n, g in grads.items()}, report


class MatchedToItself(NormMatched):
    """The reference with the gradient's norm: the wrong way round."""

    def combine(self, reference, exact, network, draws):
        return super().combine(exact, reference, network, draws)


MUTANTS = {
    ScaledWithRegulariser: "scaled_bptt",
    CosineInPlaceOfRho: "scaled_bptt",
    ScaledByWeight: "scaled_bptt",
    UnscaledTwice: "unscaled",
    MatchedToItself: "norm_matched",
}


@pytest.mark.parametrize("mutant", MUTANTS)
@every_over
def test_mutants_are_killed(mutant, over):
    p, (cls, factor, direction) = a_problem(), SCALED[MUTANTS[mutant]]
    assert issubclass(mutant, cls)
    with pytest.raises(AssertionError):
        assert_equal(with_l2(p, mutant(over=over)).grads, oracle(p, factor, over, direction), WEIGHTS)


def test_t20_scaled_by_one_is_bptt_to_the_last_bit():
    p = a_problem()
    plain = with_l2(p, "bptt").grads
    got = with_l2(p, bpgen.load_rule("scaled_bptt", mode="constant", value=1.0)).grads
    assert all(torch.equal(got[n], plain[n]) for n in plain)
    half = p.rule("scaled_bptt", mode="constant", value=0.5).grads
    assert_equal(half, {n: 0.5 * g for n, g in autograd(p).items()})
    assert_equal(p.rule("scaled_bptt", reference="bptt").grads, autograd(p))
    assert_differ(p.rule("scaled_bptt").grads, plain, RECURRENT)


@pytest.mark.parametrize("reference", ["three_factor", "rflo", "tbptt", "readout_only"])
def test_rho_of_the_matched_step_is_the_references_own(reference):
    p = a_problem()
    options = {"window": 2} if reference == "tbptt" else {}
    g, g_hat = flat(autograd(p)), flat(p.rule(reference, **options).grads)
    wanted = alignment(g_hat, g)
    got = alignment(flat(p.rule("scaled_bptt", reference=reference, reference_options=options).grads), g)
    assert got["rho"] == pytest.approx(wanted["rho"], rel=1e-12)
    assert got["cosine"] == pytest.approx(1, abs=1e-12)
    assert wanted["cosine"] < 0.999
    inverse = alignment(flat(p.rule("unscaled", reference=reference, reference_options=options).grads), g)
    assert inverse["rho"] == pytest.approx(1, abs=1e-12)
    assert inverse["cosine"] == pytest.approx(wanted["cosine"], rel=1e-12)


def test_the_reference_is_the_very_rule_a_run_of_its_own_would_have():
    p = a_problem()
    alone = bpgen.load_rule("rflo", scale=2.0).bind(p.network, seed=7)
    control = bpgen.load_rule("scaled_bptt", reference="rflo", reference_options={"scale": 2.0}).bind(p.network, seed=7)
    assert torch.equal(control.reference.feedback.weight, alone.feedback.weight)
    assert "reference.feedback.weight" in control.state_dict()
    other = bpgen.load_rule("scaled_bptt", reference="rflo").bind(p.network, seed=8)
    assert distance(other.reference.feedback.weight, alone.feedback.weight) > 0.1


def test_unscaled_never_turns_round_nor_enlarges_beyond_its_floor():
    p = a_problem()
    against = bpgen.load_rule("unscaled", reference="rflo", floor=0.2)
    against.reference.feedback.weight = -3 * p.network.params()["W_out"]  # climbs: ρ < 0 over the recurrent weights
    against.over = "recurrent"
    result = p.rule(against)
    ascent = p.rule(against.reference).grads
    assert result.aux["rho"] < 0
    assert result.aux["floored"] == 1
    assert_equal({n: result.grads[n] for n in RECURRENT}, {n: 5 * ascent[n] for n in RECURRENT})
    assert p.rule("unscaled").aux["floored"] == 0
    with pytest.raises(BpgenError, match="floor"):
        bpgen.load_rule("unscaled", floor=0)


# noise


def drawn(p, rule, seed=0):
    rule.bind(p.network, seed)
    return {n.removeprefix("noise/"): v for n, v in rule.draw(p.network, p.x, generator(seed, "draws")).items()}


@every_over
@every_leak
def test_orthogonal_noise_is_orthogonal_and_as_long_as_the_remainder(over, leak):
    p, names = a_problem(leak), WEIGHTS if over == "all" else RECURRENT
    g, g_hat = flat(autograd(p), names), flat(autograd(p, **no_hop()), names)
    e = g_hat - rho(g_hat, g) * g
    for kind in ("orthogonal", "remainder"):
        noise = flat(p.rule("noisy_bptt", kind=kind, over=over, scale=2.0).grads, names) - g
        assert abs(noise @ g) / (noise.norm() * g.norm()) < 1e-12
        assert float(noise.norm()) == pytest.approx(2 * float(e.norm()), rel=1e-11)
        assert noise.norm() > 1e-3
        assert (distance(noise, 2 * e) < 1e-11) == (kind == "remainder")
    isotropic = flat(p.rule("noisy_bptt", kind="isotropic", over=over).grads, names) - g
    assert abs(isotropic @ g) / (isotropic.norm() * g.norm()) > 1e-4  # control: not orthogonal by chance


def test_matched_step_plus_remainder_is_the_reference():
    p = a_problem()
    parts = [p.rule(r, **o).grads for r, o in (("scaled_bptt", {}), ("noisy_bptt", {"kind": "remainder"}))]
    whole = {n: parts[0][n] + parts[1][n] - g for n, g in autograd(p).items()}
    assert_equal(whole, autograd(p, **no_hop()), WEIGHTS, tol=1e-11)


@every_over
def test_isotropic_noise_is_what_was_drawn(over):
    p, names = a_problem(), WEIGHTS if over == "all" else RECURRENT
    rule = NoisyBPTT("isotropic", 0.7, over=over)
    xi, g, free = drawn(p, rule), autograd(p), acting(p.network)
    P = sum(int(free[n].sum()) for n in names)
    size = 0.7 * flat(g, names).norm() / P**0.5
    assert_equal(p.rule(rule).grads, {n: g[n] + size * xi[n] if n in names else g[n] for n in WEIGHTS}, WEIGHTS)
    assert float(flat(xi, names).square().sum()) == pytest.approx(P, rel=0.5)


@pytest.mark.parametrize("rule", [NoisyBPTT(), NoisyBPTT("isotropic"), RandomGradient()])
def test_noise_keeps_off_weights_that_cannot_act_and_follows_the_seed(rule):
    p = a_problem()
    first, again, other = (with_l2(p, rule, seed).grads["W_rec"] for seed in (0, 0, 1))
    frozen = ~acting(p.network)["W_rec"]
    assert torch.equal(first, again)
    assert distance(first, other) > 0.01
    assert torch.equal(first[frozen], L2["W_rec"] * p.network.params()["W_rec"][frozen])
    given = replace(a_problem(learned=True), s_0=p.s_0)
    assert not given.rule(rule).grads["initial_state"].any()
    assert a_problem(learned=True).rule(rule).grads["initial_state"].any()


@every_over
def test_random_gradient_has_the_norm_and_no_direction(over):
    p, names = a_problem(), WEIGHTS if over == "all" else RECURRENT
    rule, g = RandomGradient(over).bind(p.network), autograd(p)
    args, cosines = (p.network, p.network.params(), p.x, p.target, Loss("mse", "all")), []
    for i in range(200):
        draws = {**rule.draw(p.network, p.x, generator(i, "draws")), "initial_state": p.s_0}
        grads = rule.gradients(*asked(*args, draws)).grads
        cosines.append(torch.cosine_similarity(flat(grads, names), flat(g, names), 0))
        assert float(flat(grads, names).norm()) == pytest.approx(float(flat(g, names).norm()), rel=1e-12)
        if over == "recurrent":
            assert_equal({n: grads[n] for n in READOUT}, {n: g[n] for n in READOUT})
    cosines = torch.stack(cosines)
    z = float(cosines.mean() / (cosines.std() / len(cosines) ** 0.5))
    assert abs(z) < 3.5
    assert float(cosines.std()) == pytest.approx(sum(int(acting(p.network)[n].sum()) for n in names) ** -0.5, rel=0.2)


# the running mean


def ratios(batches, rule):
    """ρ applied along batches, the rule learning as in training."""
    out = []
    for p in batches:
        result = p.rule(rule)
        rule.learn(result.aux)
        out.append(float(rule.ratio.average.mean))
    return out


def test_running_mean_is_plain_first_then_exponential():
    batches = [a_problem(seed=0).part(slice(i, i + 1)) for i in range(3)] * 2
    single = [float(rho(flat(autograd(p, **no_hop())), flat(autograd(p)))) for p in batches]
    wanted, m = [], 0.0
    for k, r in enumerate(single, 1):
        m += max(1 / k, 0.3) * (r - m)
        wanted.append(m)
    rule = ScaledBPTT(mode="running_mean", decay=0.7)
    assert ratios(batches, rule) == pytest.approx(wanted, rel=1e-12)
    assert wanted[1] == pytest.approx(sum(single[:2]) / 2)
    assert wanted[5] != pytest.approx(sum(single) / 6, rel=1e-6)
    p = batches[0]
    again = [p.rule(rule).grads["W_rec"] for _ in range(2)]
    assert torch.equal(*again)  # a look does not teach
    m += 0.3 * (single[0] - m)
    assert_equal({"W_rec": again[0]}, {"W_rec": m * autograd(p)["W_rec"]})
    fresh = ScaledBPTT(mode="running_mean", decay=0.7).bind(p.network)
    fresh.load_state_dict(rule.state_dict())
    assert torch.equal(p.rule(fresh).grads["W_rec"], again[0])


def test_a_batch_without_a_gradient_divides_by_nothing_and_is_not_averaged_in():
    p = a_problem()
    with torch.no_grad():
        p.network.W_out.zero_()
    flatland = replace(p, target=p.network.b_out.detach().expand_as(p.target).clone())  # zero error everywhere
    for name in ("scaled_bptt", "unscaled", "norm_matched", "noisy_bptt", "random_gradient"):
        assert not flat(flatland.rule(name).grads).any(), name
    rule = ScaledBPTT(mode="running_mean")
    assert ratios([flatland], rule) == [0]
    assert rule.ratio.average.count == 0
    (after,) = ratios([a_problem()], rule)
    assert after == pytest.approx(float(rho(flat(autograd(a_problem(), **no_hop())), flat(autograd(a_problem())))))


# what every rule must bear

CONTROLS = [
    ScaledBPTT,
    lambda: ScaledBPTT("rflo", mode="running_mean", over="recurrent"),
    Unscaled,
    NormMatched,
    NoisyBPTT,
    lambda: NoisyBPTT("isotropic", over="recurrent"),
    RandomGradient,
]
every_control = pytest.mark.parametrize("make", CONTROLS)


@every_control
def test_float32_agrees_with_float64(make):
    p = a_problem()
    rule = make().bind(p.network)
    double = p.rule(rule).grads
    single = replace(p, network=a_problem().network.float(), x=p.x.float(), target=p.target.float(), s_0=p.s_0.float())
    got = single.rule(make().float()).grads
    assert {g.dtype for g in got.values()} == {torch.float32}
    assert_equal({n: g.double() for n, g in got.items()}, double, WEIGHTS, tol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@every_control
def test_stacked_seeds_equal_seeds_alone(make):
    problems = [a_problem(seed=s) for s in (0, 1)]
    rules = [make().bind(p.network, seed=s) for s, p in enumerate(problems)]
    draws = [
        r.draw(p.network, p.x, generator(s, "draws")) for s, (r, p) in enumerate(zip(rules, problems, strict=True))
    ]
    loss, network = Loss("mse", "all"), problems[0].network

    def stacked(trees):
        return {n: torch.stack([tree[n] for tree in trees]) for n in trees[0]}

    def one_seed(buffers, params, x, target, draws):
        result = functional_call(rules[0], buffers, asked(network, params, x, target, loss, draws))
        return result.grads, result.aux

    start = [p.network.params() for p in problems]
    buffers = stacked([dict(r.named_buffers()) for r in rules])
    x, target = (torch.stack([getattr(p, n) for p in problems]) for n in ("x", "target"))
    grads, _ = vmap(one_seed)(buffers, stacked(start), x, target, stacked(draws) if draws[0] else {})
    for s, p in enumerate(problems):
        alone = rules[s].gradients(*asked(p.network, start[s], p.x, p.target, loss, draws[s])).grads
        assert_equal({n: g[s] for n, g in grads.items()}, alone, WEIGHTS)
    assert distance(grads["W_rec"][0], grads["W_rec"][1]) > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"over": "some"}, "over"),
        ({"mode": "sometimes"}, "mode"),
        ({"decay": 1.0}, "decay"),
        ({"reference": "rfl"}, "rflo"),
        ({"reference": "rflo", "reference_options": {"scal": 1.0}}, "scale"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(BpgenError, match=message):
        bpgen.load_rule("scaled_bptt", **options)
    with pytest.raises(BpgenError, match="kind"):
        bpgen.load_rule("noisy_bptt", kind="loud")


def test_subclasses_say_what_they_combine():
    with pytest.raises(NotImplementedError):
        a_problem().rule(Control(None, None, "all"))
