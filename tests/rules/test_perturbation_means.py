"""Perturbation and reward over many draws: unbiased by z-test, with the bias that the test could detect printed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from bpgen_rules.node_perturbation import NodePerturbation
from bpgen_rules.reinforce import Reinforce
from bpgen_rules.rmhl import RewardModulatedHebbian
from bpgen_rules.weight_perturbation import WeightPerturbation
from torch.func import vmap

from bpgen import load_rule
from bpgen.losses import Loss
from bpgen.neurons import Leaky
from tests.oracles import RECURRENT, WEIGHTS, asked, autograd, distance, problem, randn
from tests.rules.test_perturbation import call, draw


def flat(grads, names=RECURRENT):
    return torch.cat([grads[n].flatten() for n in names])


def over_draws(p, rule, names, draws, chunk=4000):
    """The rule's gradient for every draw, [n,P]; the draws are vmap's batch."""
    args = (p.network, p.network.params(), p.x, p.target, Loss(p.loss, p.when))

    def one(draws):
        grads = rule.gradients(*asked(*args, {"initial_state": p.s_0, **draws})).grads
        return torch.cat([grads[name].flatten() for name in names])

    n = len(next(iter(draws.values())))
    parts = [vmap(one)({k: v[i : i + chunk] for k, v in draws.items()}) for i in range(0, n, chunk)]
    return torch.cat(parts)


def many_draws(p, rule, n):
    """What the rule draws from N(0, 1), n times."""
    shapes = {name: v.shape for name, v in draw(p, rule).items()}
    draws = {}
    for name, shape in shapes.items():
        xi = randn(len(draws), n, *shape)
        mask = p.network.masks().get(name.removeprefix("noise/"))
        draws[name] = xi if mask is None else xi * mask
    return draws


def z_test(errors, g):
    """Largest |z| of the mean error along g and five random directions, and the bias that would have shown, by ‖g‖."""
    directions = torch.cat([g.unsqueeze(0), randn(99, 5, len(g))])
    along = errors @ (directions / directions.norm(dim=1, keepdim=True)).mT
    s_e = along.std(0) / len(errors) ** 0.5
    return float((along.mean(0) / s_e).abs().max()), float(3.5 * s_e.max() / g.norm())


def small(readout=0.5):
    """Few steps and sequences: the noise of these rules grows with both."""
    p = problem(Leaky(0.5, "tanh"), T=4, B=2, I=2, N=3, O=2, seed=1)
    with torch.no_grad():
        p.network.W_out.mul_(readout)
    return p


UNBIASED = {
    "node": (lambda: NodePerturbation(1e-3), 100_000),
    "node, forward": (lambda: NodePerturbation(1e-5, antithetic=False), 100_000),
    "weight": (lambda: WeightPerturbation(1e-3), 100_000),
    "weight, forward": (lambda: WeightPerturbation(1e-5, antithetic=False), 100_000),
}


@pytest.mark.parametrize("row", UNBIASED)
def test_perturbation_is_unbiased(row, capsys):
    (make, n), p = UNBIASED[row], small()
    names = WEIGHTS if row.startswith("weight") else RECURRENT
    g = flat(autograd(p), names)
    rule = make().bind(p.network)
    estimates = over_draws(p, rule, names, many_draws(p, rule, n))
    report(row, estimates - g, g, capsys)
    assert z_test(1.03 * estimates - g, g)[0] > 3.5  # control: 3 % would have shown


def report(row, errors, g, capsys):
    z, detectable = z_test(errors, g)
    with capsys.disabled():
        print(f" {row}: |z| {z:.2f}, detectable bias {100 * detectable:.2f} %", end="")
    assert z < 3.5
    assert detectable <= 0.02


def tiled(p, times):
    """The same sequences many times in one batch, each with noise of its own."""
    return replace(p, x=p.x.repeat(1, times, 1), target=p.target.repeat(1, times, 1), s_0=p.s_0.repeat(times, 1, 1))


@pytest.mark.parametrize("baseline", ["running_mean", "batch"])
def test_reinforce_follows_the_gradient_of_the_expected_loss_at_any_noise(baseline, capsys):
    """Against BPTT on the same noisy runs, whose mean is that gradient: σ is as large as the signal."""
    p = small(1.0)
    batch, rule, bptt = tiled(p, 5000), Reinforce(1.0, baseline).bind(p.network), load_rule("bptt").bind(p.network)
    rule.learn(call(batch, rule, draw(batch, rule, 999)).aux)
    errors, exact = [], []
    for seed in range(60):
        draws = draw(batch, rule, seed)
        exact.append(flat(call(batch, bptt, {"current_noise": rule.sigma * draws["exploration"]}).grads))
        errors.append(flat(call(batch, rule, draws).grads) - exact[-1])
    g = torch.stack(exact).mean(0)
    report(f"reinforce, {baseline}", torch.stack(errors), g, capsys)
    assert distance(flat(autograd(p)), g) > 0.1  # control: E[L] is not L


def test_a_constant_loss_teaches_nothing_in_the_mean():
    p = tiled(small(0.0), 500)  # no readout: nothing the neurons do matters
    rule = Reinforce(0.5, "none").bind(p.network)
    estimates = torch.stack([flat(call(p, rule, draw(p, rule, seed)).grads) for seed in range(100)])
    z, _ = z_test(estimates, randn(5, estimates.shape[1]))
    assert z < 3.5
    assert estimates.norm(dim=1).min() > 1e-3
    for baseline in ("running_mean", "batch"):  # where all losses are equal, a baseline leaves exactly nothing
        same = replace(p, target=p.target[:, :1].expand_as(p.target))
        learner = Reinforce(0.5, baseline).bind(p.network)
        assert flat(call(same, learner, draw(p, learner)).grads).norm() < 1e-12


@pytest.mark.parametrize("trace", ["cubic", "linear"])
def test_rmhl_descends_in_the_mean_without_being_the_gradient(trace):
    p = small(1.0).part(slice(0, 1))
    batch, rule = tiled(p, 200), RewardModulatedHebbian(1.0, 0.05, trace, decay=0.2).bind(p.network)
    rule.learn(call(batch, rule, draw(batch, rule, 999)).aux)
    draws, g = [draw(batch, rule, seed) for seed in range(100)], flat(autograd(p))
    along = torch.stack([flat(call(batch, rule, d).grads) for d in draws])
    projection = along @ g
    assert projection.mean() / (projection.std() / len(draws) ** 0.5) > 5
    assert torch.cosine_similarity(along.mean(0), g, 0) < 0.99
    assert projection.std() > 0.1 * projection.mean()  # control: it is the noise that tells


def test_rmhl_compares_sequences_of_one_class():
    p = problem(Leaky(0.4, "softplus"), B=5, loss="cross_entropy", when="last")
    target = torch.tensor([0, 2, 0, 2, 2])
    rule = RewardModulatedHebbian(0.5, 0.3).bind(p.network)
    whole = replace(p, target=target)
    draws = draw(whole, rule)
    got, total = call(whole, rule, draws), 0
    for kind in (0, 2):
        rows = (target == kind).nonzero().squeeze(1)
        part = replace(p, x=p.x[:, rows], target=target[rows], s_0=p.s_0[rows])
        alone = call(part, rule, {"jumps": draws["jumps"][:, rows]})
        assert float(got.aux["mean"][kind]) == pytest.approx(float(alone.aux["mean"][kind]))
        total = total + flat(alone.grads) * len(rows) / 5
    assert distance(flat(got.grads), total) < 1e-12
    assert got.aux["count"].tolist() == [1, 0, 1]
    assert (
        distance(flat(call(replace(whole, target=torch.zeros(5, dtype=torch.int64)), rule, draws).grads), total) > 0.1
    )
    rule.learn(got.aux)
    again = call(whole, rule, draw(whole, rule, 1)).aux
    assert float(again["mean"][0]) != float(got.aux["mean"][0])
    assert again["mean"][1] == 0
