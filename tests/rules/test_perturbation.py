"""Perturbation and reward: equal to slow loops draw by draw, and unbiased over draws by z-test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bpgen_rules.node_perturbation import NodePerturbation
from bpgen_rules.reinforce import Reinforce
from bpgen_rules.rmhl import RewardModulatedHebbian
from bpgen_rules.weight_perturbation import WeightPerturbation
from torch.func import functional_call, vmap

import bpgen
from bpgen import load_rule
from bpgen.errors import BpgenError
from bpgen.losses import L2, Activity, Loss
from bpgen.neurons import GRU, Leaky
from bpgen.streams import generator
from tests.oracles import (
    RECURRENT,
    WEIGHTS,
    acting,
    activity_cost,
    asked,
    assert_differ,
    assert_equal,
    autograd,
    leaves,
    problem,
    randn,
    run_slow,
    true_loss,
)
from tests.rules import reference_noise as slow
from tests.rules.test_references import both as both_readouts
from tests.rules.test_references import every_leak, every_readout, tensors

READOUT = ["W_out", "b_out"]


def both(leak="potential", kappa=0.0, phi="softplus"):
    return both_readouts(leak, kappa, phi)


def call(p, rule, draws, loss=None):
    return rule.gradients(
        *asked(
            p.network,
            p.network.params(),
            p.x,
            p.target,
            loss or Loss(p.loss, p.when, p.mask),
            {"initial_state": p.s_0, **draws},
        )
    )


def draw(p, rule, seed=0):
    return rule.bind(p.network).draw(p.network, p.x, generator(seed, "draws"))


def noisy_autograd(p, noise, names=WEIGHTS):
    """BPTT on the run with this noise, by autograd."""
    params = leaves(p)
    value = true_loss(run_slow(p, params, noise=noise).outputs, p.target, p.loss, p.when, p.mask)
    return dict(zip(names, torch.autograd.grad(value, [params[n] for n in names]), strict=True))


# draw by draw


def node_row(p, m, rule, draws):
    xi = draws["perturbation"].numpy()
    return slow.node_perturbation(m, xi, rule.sigma, rule.antithetic)


def weight_row(p, m, rule, draws):
    xi = {n.removeprefix("noise/"): v[0].numpy() for n, v in draws.items()}
    return slow.weight_perturbation(m, xi, rule.sigma, rule.antithetic)


def reinforce_row(p, m, rule, draws):
    xi, B = draws["exploration"].numpy(), p.x.shape[1]
    L = [slow.run(m, b, rule.sigma * xi)[2] for b in range(B)]
    if rule.baseline == "batch":
        baseline = [sum(L[:b] + L[b + 1 :]) / (B - 1) for b in range(B)]
    else:
        baseline = [{"none": 0.0, "running_mean": sum(L) / B}[rule.baseline]] * B
    return slow.reinforce(m, xi, rule.sigma, baseline)


def rmhl_row(p, m, rule, draws):
    return slow.rmhl(m, draws["jumps"].numpy(), rule.decay, None, 3 if rule.trace == "cubic" else 1)


# row: how to make the rule, its reference, the leaks it is defined for
LEAKS = ("potential", "rate", "inside")
ROWS = {
    "node": (lambda: NodePerturbation(0.3), node_row, LEAKS),
    "node, forward": (lambda: NodePerturbation(0.3, antithetic=False), node_row, LEAKS),
    "weight": (lambda: WeightPerturbation(0.2), weight_row, LEAKS),
    "weight, forward": (lambda: WeightPerturbation(0.2, antithetic=False), weight_row, LEAKS),
    "reinforce": (lambda: Reinforce(0.4), reinforce_row, LEAKS),
    "reinforce, batch": (lambda: Reinforce(0.4, "batch"), reinforce_row, LEAKS),
    "reinforce, none": (lambda: Reinforce(0.4, "none"), reinforce_row, LEAKS),
    "rmhl": (lambda: RewardModulatedHebbian(0.5, 0.2, decay=0.3), rmhl_row, LEAKS[:1]),
    "rmhl, linear": (lambda: RewardModulatedHebbian(0.5, 0.2, "linear", 0.3), rmhl_row, LEAKS[:1]),
}
every_row = pytest.mark.parametrize("row", ROWS)


@every_row
@every_leak
@every_readout
def test_equals_the_slow_loops(row, leak, kappa):
    make, expected, leaks = ROWS[row]
    if leak not in leaks:
        with pytest.raises(BpgenError, match="potential"):
            make().bind(both(leak)[0].network)
        return
    p, m = both(leak, kappa)
    rule = make()
    draws = draw(p, rule)
    got, want = call(p, rule, draws), tensors(expected(p, m, rule, draws))
    assert_equal(got.grads, want, tol=1e-10)
    assert_differ(call(p, rule, draw(p, rule, 1)).grads, want, RECURRENT)
    noise = {"exploration": "reinforce", "jumps": "rmhl"}.keys() & draws.keys()
    if noise:  # the readout learns on the run that was made
        size = rule.sigma if "exploration" in draws else 1 / p.network.neuron.alpha
        exact = noisy_autograd(p, size * draws[noise.pop()], READOUT)
        assert_differ(exact, autograd(p), READOUT, by=1e-4)
    else:
        exact = {n: g for n, g in autograd(p).items() if n in READOUT}
    if not row.startswith("weight"):
        assert_equal(got.grads, exact, READOUT)


def test_rmhl_with_repeats_compares_runs_of_the_same_sequence():
    """The slow loop of one sequence alone, run again and again; the mean over sequences; the first run's outputs."""
    p, m = both()
    B, again = 3, 4
    rule = RewardModulatedHebbian(0.5, 0.2, "cubic", 0.3, repeats=again)
    draws = draw(p, rule)
    result, jumps = call(p, rule, draws), draws["jumps"].numpy()
    want = {n: np.zeros_like(g) for n, g in result.grads.items() if n in RECURRENT}
    for b in range(B):
        alone = replace(m, x=m.x[:, [b] * again], target=m.target[:, [b] * again], s0=m.s0[[b] * again])
        for n, g in slow.rmhl(alone, jumps[:, b::B], rule.decay, None, 3).items():
            want[n] += g / B
    assert_equal(result.grads, tensors(want), tol=1e-10)
    one = RewardModulatedHebbian(0.5, 0.2, "cubic", 0.3).bind(p.network)
    first = call(p, one, {"jumps": draws["jumps"][:, :B]})
    torch.testing.assert_close(result.outputs, first.outputs)
    assert_differ(first.grads, tensors(want), RECURRENT)
    many = replace(p, x=p.x.repeat(1, again, 1), target=p.target.repeat(1, again, 1), s_0=p.s_0.repeat(again, 1, 1))
    assert_equal(result.grads, noisy_autograd(many, draws["jumps"] / p.network.neuron.alpha, READOUT), READOUT)


class NodeOverSigma(NodePerturbation):
    """Divides by σ where 2σ belongs."""

    def estimate(self, *args):
        result = super().estimate(*args)
        return result._replace(grads={n: 2 * g if n in RECURRENT else g for n, g in result.grads.items()})


class NodeSummed(NodePerturbation):
    """The batch's loss for each sequence's noise: right in the mean, but the sequences disturb each other."""

    def estimate(self, problem, draws):
        loss = problem.loss
        return super().estimate(replace(problem, loss=BatchLoss(loss.kind, loss.when, loss.mask)), draws)


class BatchLoss(Loss):
    def per_sample(self, outputs, target, h=None):
        each = super().per_sample(outputs, target)
        return each.sum().expand(len(each))


class WeightWithoutNoise(WeightPerturbation):
    """Forgets that the loss must be told by direction: the slope alone."""

    def estimate(self, problem, draws):
        result = super().estimate(problem, draws)
        return result._replace(grads={n: g.abs() for n, g in result.grads.items()})


class ReinforceQuiet(Reinforce):
    """Presynaptic activity of a run without noise."""

    def estimate(self, problem, draws):
        noisy = super().estimate(problem, draws)
        quiet = problem.run()
        L, xi = self.losses, draws["exploration"]
        c = xi * L.unsqueeze(-1) / (self.sigma * problem.batch)
        W = torch.einsum("tbp,tbq->pq", c, quiet.h[:-1]) * problem.network.masks()["W_rec"]
        return noisy._replace(grads={**noisy.grads, "W_rec": W})

    def expected(self, L):
        b = super().expected(L)
        self.losses = L - b
        return b


class ReinforceSigma(Reinforce):
    """Multiplies the score by σ in place of dividing."""

    def estimate(self, *args):
        result = super().estimate(*args)
        return result._replace(grads={n: self.sigma**2 * g if n in RECURRENT else g for n, g in result.grads.items()})


class TrendOfThisStep(RewardModulatedHebbian):
    """Detrends with a mean that mostly holds the past."""

    def __init__(self, *args):
        super().__init__(*args)
        self.decay = 1 - self.decay


class NotCubed(RewardModulatedHebbian):
    """Forgets the cube."""

    def __init__(self, *args):
        super().__init__(*args)
        self.trace = "linear"


MUTANTS = {
    NodeOverSigma: (0.3, "node"),
    NodeSummed: (0.3, "node"),
    WeightWithoutNoise: (0.2, "weight"),
    ReinforceQuiet: (0.4, "reinforce"),
    ReinforceSigma: (0.4, "reinforce"),
    TrendOfThisStep: (0.5, 0.2, "cubic", 0.3, "rmhl"),
    NotCubed: (0.5, 0.2, "cubic", 0.3, "rmhl"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_killed(mutant):
    (*options, row), (p, m) = MUTANTS[mutant], both()
    rule, (make, expected, _) = mutant(*options), ROWS[row]
    right, draws = make().bind(p.network), draw(p, rule)
    want = tensors(expected(p, m, right, draws))
    assert_equal(call(p, right, draws).grads, want, tol=1e-10)
    with pytest.raises(AssertionError):
        assert_equal(call(p, rule, draws).grads, want, tol=1e-10)


# what every rule must bear


@every_row
@pytest.mark.parametrize(("loss", "when", "masked"), [("cross_entropy", "last", False), ("cross_entropy", "all", True)])
def test_a_regulariser_of_weights_is_exact_and_one_of_the_activity_is_looked_at(row, loss, when, masked):
    p = problem(Leaky(0.4, "softplus"), loss=loss, when=when, masked=masked)
    rule, own, cost = ROWS[row][0](), 0.3 * randn(77, 7, 3, 5), Activity(0.7, "rate", 0.1)
    draws = {**draw(p, rule), "current_noise": own}
    plain = Loss(loss, when, p.mask, None, cost)
    data, total = call(p, rule, draws, plain), call(p, rule, draws, replace(plain, regulariser=L2({"W_rec": 0.3})))
    params = p.network.params()
    assert_equal({"W_rec": total.grads["W_rec"] - data.grads["W_rec"]}, {"W_rec": 0.3 * params["W_rec"]})
    torch.testing.assert_close(total.loss - data.loss, 0.15 * params["W_rec"].square().sum())
    assert all(torch.equal(total.grads[n], data.grads[n]) for n in params if n != "W_rec")
    noise = {"exploration": getattr(rule, "sigma", 0), "jumps": 1 / 0.4}
    made = own + sum(factor * draws[n] for n, factor in noise.items() if n in draws)
    slow_run = run_slow(p, params, noise=made)
    expected = true_loss(slow_run.outputs, p.target, loss, when, p.mask)
    torch.testing.assert_close(data.loss, expected + activity_cost(slow_run.h, 0.7, "rate", 0.1))
    torch.testing.assert_close(data.outputs, slow_run.outputs)
    if "reinforce" in row:
        torch.testing.assert_close(data.aux["mean"], data.loss)
    without = call(p, rule, draws, replace(plain, activity=None)).grads
    assert_differ(without, data.grads, RECURRENT)


@pytest.mark.parametrize(("loss", "when", "masked"), [("cross_entropy", "last", False), ("cross_entropy", "all", True)])
def test_a_small_perturbation_finds_the_slope_along_it(loss, when, masked):
    """By autograd, of every kind of loss and with a cost of the activity, the network having noise of its own."""
    p, cost = problem(Leaky(0.4, "softplus"), loss=loss, when=when, masked=masked), Activity(0.7, "rate", 0.1)
    own, plain = 0.3 * randn(77, 7, 3, 5), Loss(loss, when, p.mask, None, cost)

    def slope(q, noise, move):
        by = torch.zeros((), dtype=torch.float64, requires_grad=True)
        params = {n: w + by * move.get(n, 0) for n, w in q.network.params().items()}
        tried = run_slow(q, params, noise=noise + by * move.get("currents", 0))
        value = true_loss(tried.outputs, q.target, loss, when, q.mask) + activity_cost(tried.h, 0.7, "rate", 0.1)
        return torch.autograd.grad(value, by)[0]

    for antithetic, tol in ((True, 1e-7), (False, 1e-3)):
        node, weight = NodePerturbation(1e-5, antithetic), WeightPerturbation(1e-5, antithetic)
        xi, expected = draw(p, node)["perturbation"], 0
        for b in range(3):
            one = slice(b, b + 1)
            expected = expected + slope(p.part(one), own[:, one], {"currents": xi[:, one]}) * xi[:, b].sum(0) / 3
        draws = {"perturbation": xi, "current_noise": own}
        assert_equal(call(p, node, draws, plain).grads, {"b_rec": expected}, tol=tol)
        draws = {**draw(p, weight), "current_noise": own}
        xi = {n.removeprefix("noise/"): v[0] for n, v in draws.items()}
        expected = {n: slope(p, own, xi) * v for n, v in xi.items() if n in WEIGHTS}
        assert_equal(call(p, weight, draws, plain).grads, expected, tol=tol)


def test_repeats_are_the_mean_of_single_perturbations():
    p, _ = both()
    many = NodePerturbation(0.3, repeats=4)
    xi = draw(p, many)["perturbation"]
    singles = [call(p, NodePerturbation(0.3), {"perturbation": part}).grads for part in xi.split(3, 1)]
    mean = {n: sum(g[n] for g in singles) / 4 for n in WEIGHTS}
    assert_equal(call(p, many, {"perturbation": xi}).grads, mean)
    assert_differ(singles[0], mean, RECURRENT)
    for name, loss in (("cross_entropy", "last"), ("cross_entropy", "all")):
        q = problem(Leaky(0.4, "softplus"), T=6, loss=name, when=loss, masked=loss == "all")
        got = call(q, many, {"perturbation": xi}).grads
        singles = [call(q, NodePerturbation(0.3), {"perturbation": part}).grads for part in xi.split(3, 1)]
        assert_equal(got, {n: sum(g[n] for g in singles) / 4 for n in WEIGHTS})
    many = WeightPerturbation(0.2, repeats=3)
    draws = draw(p, many)
    singles = [call(p, WeightPerturbation(0.2), {n: v[i : i + 1] for n, v in draws.items()}).grads for i in range(3)]
    assert_equal(call(p, many, draws).grads, {n: sum(g[n] for g in singles) / 3 for n in WEIGHTS})


def test_weight_perturbation_over_the_recurrent_weights_leaves_the_readout_exact():
    p, _ = both()
    rule = WeightPerturbation(0.2, over="recurrent")
    got, exact = call(p, rule, draw(p, rule)).grads, autograd(p)
    assert_equal(got, exact, READOUT)
    assert_differ(got, exact, RECURRENT)
    assert not got["W_rec"][~acting(p.network)["W_rec"]].any()


MADE = {
    **{row: make for row, (make, _, _) in ROWS.items()},
    "rmhl, repeats": lambda: RewardModulatedHebbian(0.5, 0.2, repeats=3),
}


@pytest.mark.parametrize("row", MADE)
def test_float32_agrees_with_float64(row):
    p, _ = both(phi="tanh")
    rule = MADE[row]()
    double = call(p, rule, draw(p, rule)).grads
    q, _ = both(phi="tanh")
    single = replace(q, network=q.network.float(), x=p.x.float(), target=p.target.float(), s_0=p.s_0.float())
    got = call(single, MADE[row](), draw(single, MADE[row]())).grads
    assert {g.dtype for g in got.values()} == {torch.float32}
    assert_equal({n: g.double() for n, g in got.items()}, double, RECURRENT, tol=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("row", MADE)
def test_stacked_seeds_equal_seeds_alone(row):
    make = MADE[row]
    problems = [problem(Leaky(0.4, "tanh"), seed=s) for s in (0, 1)]
    rules = [make().bind(p.network, seed=s) for s, p in enumerate(problems)]
    draws = [draw(p, r, s) for s, (p, r) in enumerate(zip(problems, rules, strict=True))]
    alone = [call(p, r, d) for p, r, d in zip(problems, rules, draws, strict=True)]

    def stacked(trees):
        return {n: torch.stack([tree[n] for tree in trees]) for n in trees[0]}

    def one_seed(buffers, params, x, target, s_0, draws):
        args = (problems[0].network, params, x, target, Loss("mse", "all"), {"initial_state": s_0, **draws})
        result = functional_call(rules[0], buffers, asked(*args))
        return result.grads, result.aux

    x, target, s_0 = (torch.stack([getattr(p, n) for p in problems]) for n in ("x", "target", "s_0"))
    buffers = stacked([dict(r.named_buffers()) for r in rules])
    params = stacked([p.network.params() for p in problems])
    grads, aux = vmap(one_seed)(buffers, params, x, target, s_0, stacked(draws))
    for s, result in enumerate(alone):
        assert_equal({n: g[s] for n, g in grads.items()}, result.grads, WEIGHTS)
        for n, value in result.aux.items():
            torch.testing.assert_close(aux[n][s], value)


@pytest.mark.parametrize("name", ["weight_perturbation", "node_perturbation", "reinforce"])
def test_any_neuron(name):
    """Four currents a neuron, some of which see no input or no activity; a learned start that nothing perturbs."""
    p = problem(GRU(), learned=True)
    result = bpgen.gradients(name, p.network, p.x, p.target, "mse", "all")
    free = acting(p.network)
    for weight in ("W_rec", "W_in"):
        assert not result.grads[weight][~free[weight]].any()
        assert result.grads[weight][free[weight]].norm() > 1e-6
    assert result.grads["initial_state"].any() == (name == "weight_perturbation")
    with pytest.raises(BpgenError, match="Leaky"):
        load_rule("rmhl").bind(p.network)


def test_controls_draw_what_their_reference_draws_alone():
    p, _ = both()
    alone = bpgen.gradients("node_perturbation", p.network, p.x, p.target, "mse", "all", seed=3).grads
    control = load_rule("unscaled", reference="node_perturbation", mode="constant", value=0.5)
    got = bpgen.gradients(control, p.network, p.x, p.target, "mse", "all", seed=3).grads
    assert_equal(got, {n: 2 * g for n, g in alone.items()}, RECURRENT)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("node_perturbation", {"sigma": 0}),
        ("node_perturbation", {"repeats": 0}),
        ("weight_perturbation", {"sigma": -1}),
        ("weight_perturbation", {"over": "none"}),
        ("reinforce", {"baseline": "critic"}),
        ("reinforce", {"sigma": 0}),
        ("rmhl", {"trace": "square"}),
        ("rmhl", {"probability": 0}),
        ("rmhl", {"decay": 1}),
        ("rmhl", {"jump": 0}),
    ],
)
def test_bad_options(name, options):
    with pytest.raises(BpgenError, match=next(iter(options))):
        load_rule(name, **options)


def test_a_baseline_from_the_batch_needs_two_sequences():
    p = both()[0].part(slice(0, 1))
    rule = Reinforce(0.1, "batch")
    with pytest.raises(BpgenError, match="batch size"):
        call(p, rule, draw(p, rule))
