"""Rules that hand over finished weight changes: FORCE and Oja, and what training does with them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from bpgen_rules.force import FORCE
from bpgen_rules.hebbian import Hebbian
from torch.func import functional_call, vmap

import bpgen
from bpgen import load_rule
from bpgen.errors import BpgenError
from bpgen.losses import L2, Loss
from bpgen.neurons import GRU, Leaky
from bpgen.tasks import Split
from bpgen.training.loaders import SeededLoader
from bpgen.training.module import RuleTraining
from bpgen.training.options import Optimizer, Schedule
from tests.oracles import RECURRENT, WEIGHTS, asked, assert_differ, assert_equal, autograd, distance, problem, randn

FED = {"output_feedback": 0.8}


def call(p, rule, **draws):
    args = (p.network, p.network.params(), p.x, p.target, Loss(p.loss, p.when, p.mask))
    return rule.bind(p.network).gradients(*asked(*args, {"initial_state": p.s_0, **draws}))


def after(p, grads):
    """The weights after a step of this change."""
    return {n: w - grads[n] for n, w in p.network.params().items()}


# FORCE


def ridge(p, penalty=1.0, only_last=False):
    """min Σ m |W z - y*|² + penalty |W - W_0|², by the normal equations, z = (r, 1)."""
    run = p.network.run(p.network.params(), p.x, when="all", initial_state=p.s_0)
    weight = torch.ones(p.x.shape[:2]).double() if p.mask is None else p.mask
    z = torch.cat([run.r, torch.ones_like(run.r[..., :1])], -1)
    target = p.target
    if only_last:
        z, target, weight = z[-1:], target.unsqueeze(0), weight[-1:]
    z, target, m = z.flatten(0, 1), target.flatten(0, 1), weight.flatten().unsqueeze(1)
    W_0 = torch.cat([p.network.W_out, p.network.b_out.unsqueeze(1)], 1).detach()
    A = z.mT @ (m * z) + penalty * torch.eye(z.shape[1]).double()
    W = torch.linalg.solve(A, z.mT @ (m * target) + penalty * W_0.mT).mT
    return {"W_out": W[:, :-1], "b_out": W[:, -1]}, A


@pytest.mark.parametrize("penalty", [1.0, 20.0])
@pytest.mark.parametrize(
    "options", [{}, {"kappa": 0.6}, {"masked": True}, {"when": "last"}], ids=["all", "kappa", "masked", "last"]
)
def test_t14_open_loop_is_ridge_regression(options, penalty):
    p = problem(Leaky(0.4, "tanh"), **options)
    rule = FORCE(penalty)
    result, (expected, A) = call(p, rule), ridge(p, penalty, p.when == "last")
    assert_equal(after(p, result.grads), expected, ["W_out", "b_out"], tol=1e-11)
    assert_equal(result.aux, {"P": torch.linalg.inv(A)}, tol=1e-11)
    assert distance(p.network.W_out, expected["W_out"]) > 0.05
    assert not any(result.grads[n].any() for n in RECURRENT)
    torch.testing.assert_close(result.loss, p.rule("bptt").loss)


def test_p_goes_on_over_batches_and_a_look_does_not_teach():
    p = problem(Leaky(0.4, "tanh"))
    parts, rule = [p.part(slice(0, 1)), p.part(slice(1, 3))], FORCE()
    call(parts[0], rule)
    call(parts[0], rule)  # nothing learned from a look
    start = p.network.params()
    start = {n: w.clone() for n, w in start.items()}
    for part in parts:
        result = call(part, rule)
        rule.learn(result.aux)
        with torch.no_grad():
            for name, w in p.network.named_parameters():
                w -= result.grads[name]
    learned = p.network.params()
    got = {n: learned[n].clone() for n in ("W_out", "b_out")}
    with torch.no_grad():
        for name, w in p.network.named_parameters():
            w.copy_(start[name])
    expected, A = ridge(p)
    assert_equal(got, expected, tol=1e-11)
    assert_equal({"P": rule.P}, {"P": torch.linalg.inv(A)}, tol=1e-11)


def sussillo_abbott(p, penalty=1.0, feed_updated=False, learn=True):
    """Sequence after sequence of one sample, rank one by rank one, in numpy; the fed-back output is the one before."""
    net, alpha = p.network, p.network.neuron.alpha
    W, U, b, R, c = (net.params()[n].numpy() for n in ("W_rec", "W_in", "b_rec", "W_out", "b_out"))
    W, F, k = W - np.diag(np.diag(W)), net.W_fb.numpy(), net.kappa
    R = np.concatenate([R, c[:, None]], 1)
    P = np.eye(R.shape[1]) / penalty
    v, r, y = p.s_0[0, 0].numpy(), np.zeros(len(W)), np.zeros(len(R))
    h = np.tanh(v)
    for t in range(len(p.x)):
        v = (1 - alpha) * v + alpha * (W @ h + U @ p.x[t, 0].numpy() + b + F @ y)
        h = np.tanh(v)
        r = k * r + (1 - k) * h
        z = np.append(r, 1.0)
        y = R @ z
        e = y - p.target[t, 0].numpy()
        if learn:
            P = P - np.outer(P @ z, P @ z) / (1 + z @ P @ z)
            R = R - np.outer(e, P @ z)
        if feed_updated:
            y = R @ z
    return {"W_out": torch.tensor(R[:, :-1]), "b_out": torch.tensor(R[:, -1]), "P": torch.tensor(P)}


@pytest.mark.parametrize("kappa", [0.0, 0.5])
def test_closed_loop_equals_a_slow_loop(kappa):
    p = problem(Leaky(0.4, "tanh"), T=12, kappa=kappa, **FED).part(slice(0, 1))
    result, expected = call(p, FORCE()), sussillo_abbott(p)
    got = {**after(p, result.grads), "P": result.aux["P"]}
    assert_equal(got, expected, tol=1e-10)
    wrong = sussillo_abbott(p, feed_updated=True)  # controls: the loop matters, and so does which output is fed
    assert_differ(got, wrong, ["W_out", "P"], by=1e-3)
    opened, _ = ridge(p)
    assert_differ(got, opened, ["W_out"], by=1e-3)
    torch.testing.assert_close(result.loss, p.rule("bptt").loss)


class OpenedLoop(FORCE):
    """Takes the activity of the run at the old weights, whose outputs were fed back, for that of the learning loop."""

    def estimate(self, problem, draws):
        network, run = problem.network, problem.run()
        still = SimpleNamespace(
            n_rec=network.n_rec,
            W_fb=None,
            out_mask=None,
            run=lambda *_, **__: replace(run, outputs=run.r @ run.params["W_out"].mT),
        )
        return super().estimate(replace(problem, network=still), draws)


class UpdatedWithOldP(FORCE):
    """Forgets that P shrinks: delta rule with a fixed matrix."""

    def estimate(self, *args):
        result = super().estimate(*args)
        return result._replace(aux={"P": self.P})


def test_mutants_of_force_are_killed():
    p = problem(Leaky(0.4, "tanh"), T=12, **FED).part(slice(0, 1))
    for mutant, names in ((OpenedLoop(), ["W_out"]), (UpdatedWithOldP(), ["P"])):
        result = call(p, mutant)
        with pytest.raises(AssertionError):
            assert_equal({**after(p, result.grads), "P": result.aux["P"]}, sussillo_abbott(p), names, tol=1e-10)
    assert_equal(call(p, FORCE()).aux, sussillo_abbott(p), ["P"], tol=1e-10)


def test_force_with_a_batch_any_neuron_and_no_bias():
    for neuron, options in ((GRU(), {}), (Leaky(0.4), {"bias": "none"}), (GRU(), FED)):
        p = problem(neuron, **options)
        rule = FORCE()
        result = call(p, rule)
        n = p.network.n_rec + (p.network.b_out is not None)
        assert result.aux["P"].shape == (n, n)
        fitted = replace(p, network=problem(neuron, **options).network)
        with torch.no_grad():
            for name, w in fitted.network.named_parameters():
                w -= result.grads[name]
        if not options:
            assert fitted.rule("bptt").loss < p.rule("bptt").loss
        assert result.grads["W_out"].norm() > 1e-3


# Oja


def oja(p, lr, lr_out):
    """Equations (1) to (3) of the rule with loops over synapses."""
    net = p.network
    run = net.run(net.params(), p.x, when="all", initial_state=p.s_0)
    h, x = run.h.numpy(), p.x.numpy()
    (T, B), N, I = x.shape[:2], net.n_rec, net.n_in
    W, U = net.params()["W_rec"].numpy(), net.params()["W_in"].numpy()
    dW, dU = np.zeros((N, N)), np.zeros((N, I))
    for t in range(T):
        for b in range(B):
            for i in range(N):
                post = h[t + 1, b, i]
                for j in range(N):
                    dW[i, j] += (i != j) * lr * (post * h[t, b, j] - post**2 * W[i, j]) / (T * B)
                for j in range(I):
                    dU[i, j] += lr * (post * x[t, b, j] - post**2 * U[i, j]) / (T * B)
    exact = autograd(p)
    return {
        "W_rec": -torch.tensor(dW),
        "W_in": -torch.tensor(dU),
        "W_out": lr_out * exact["W_out"],
        "b_out": lr_out * exact["b_out"],
    }


@pytest.mark.parametrize("leak", ["potential", "rate"])
def test_oja_equals_slow_loops(leak):
    p = problem(Leaky(0.4, "tanh", leak))
    got = call(p, Hebbian(0.3, 0.7))
    assert_equal(got.grads, oja(p, 0.3, 0.7), ["W_rec", "W_in", "W_out", "b_out"])
    assert not got.grads["b_rec"].any()
    assert not call(p, Hebbian(0.3, 0.0)).grads["W_out"].any()


def test_no_error_enters_the_recurrent_weights():
    p = problem(Leaky(0.4, "tanh"))
    other = replace(p, target=-3 * p.target)
    ours, theirs = (call(q, Hebbian()).grads for q in (p, other))
    assert all(torch.equal(ours[n], theirs[n]) for n in RECURRENT)
    assert_differ(ours, theirs, ["W_out"])
    assert_differ(p.rule("rflo").grads, other.rule("rflo").grads, RECURRENT)  # control: a rule with an error does


def first_component(rule, steps=400):
    """One linear neuron without memory on correlated inputs; its input weights after learning, and the covariance."""
    network = bpgen.Network(Leaky(1.0, "linear"), 4, 1, 1, dtype=torch.float64, seed=3)
    mix = randn(1, 4, 4)
    x = (randn(2, 10, 40, 4) @ mix.mT) / 3
    args = (x, torch.zeros(40, 1).double(), Loss("mse", "last"), {})
    params = network.params()
    for _ in range(steps):
        grads = rule.gradients(*asked(network, params, *args)).grads
        params = {n: w - grads[n] for n, w in params.items()}
    flat = x.flatten(0, 1)
    return params["W_in"][0], flat.mT @ flat / len(flat)


def test_linear_oja_finds_the_first_principal_component():
    w, covariance = first_component(Hebbian(1.0, 0.0))
    values, vectors = torch.linalg.eigh(covariance)
    assert values[-1] > 1.2 * values[-2]
    assert float(w.norm()) == pytest.approx(1, abs=1e-6)
    assert float((w @ vectors[:, -1]).abs()) == pytest.approx(1, abs=1e-6)
    start = bpgen.Network(Leaky(1.0, "linear"), 4, 1, 1, dtype=torch.float64, seed=3).params()["W_in"][0]
    assert float((start @ vectors[:, -1]).abs() / start.norm()) < 0.99  # control: it was not there before


class HebbWithoutDecay(Hebbian):
    """Plain Hebb: the weights grow without bound."""

    def estimate(self, problem, draws):
        result = super().estimate(problem, draws)
        decay = self.lr * problem.run().h[1:].square().mean((0, 1)).unsqueeze(1) * problem.params["W_in"]
        return result._replace(grads={**result.grads, "W_in": result.grads["W_in"] - decay})


def test_mutant_of_oja_is_killed():
    w, _ = first_component(HebbWithoutDecay(1.0, 0.0), steps=20)
    assert w.norm() > 2
    p = problem(Leaky(0.4, "tanh"))
    with pytest.raises(AssertionError):
        assert_equal(call(p, HebbWithoutDecay(0.3, 0.7)).grads, oja(p, 0.3, 0.7), ["W_in"])


# training


def data(n=12, T=6):
    return Split(randn(1, T, n, 3), randn(2, T, n, 2))


def training(rule, loss=None, **options):
    network = bpgen.Network(Leaky(0.5, "tanh"), 3, 7, 2, seed=0, dtype=torch.float64)
    return RuleTraining(network, rule, loss or Loss("mse", "all"), seed=0, **options)


def fit(module, epochs=1, **options):
    trainer = pl.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        max_epochs=epochs,
        **options,
    )
    trainer.fit(module, SeededLoader(data(), 4, seed=0))
    return trainer


@pytest.mark.parametrize("make", [FORCE, lambda: Hebbian(0.1, 0.1)])
def test_training_applies_the_change_as_it_is_handed(make):
    rule, module = make(), training(make())
    network = training(make()).network
    rule.bind(network)
    for batch in SeededLoader(data(), 4, seed=0):
        result = rule.gradients(*asked(network, network.params(), batch.x, batch.target, Loss("mse", "all"), {}))
        rule.learn(result.aux)
        with torch.no_grad():
            for name, w in network.named_parameters():
                w -= result.grads[name]
    trainer = fit(module)
    for name, w in network.params().items():
        assert torch.equal(module.network.params()[name], w), name
    assert trainer.optimizers[0].param_groups[0]["lr"] == 1
    assert distance(module.network.W_out, training(make()).network.W_out) > 1e-3


def test_p_is_part_of_a_checkpoint(tmp_path):
    whole, first, second = (training(FORCE()) for _ in range(3))
    fit(whole, epochs=2)
    fit(first).save_checkpoint(tmp_path / "half.ckpt")
    trainer = pl.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        max_epochs=2,
    )
    loader = SeededLoader(data(), 4, seed=0)
    loader.epoch = 1
    trainer.fit(second, loader, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    assert distance(whole.rule.P, first.rule.P) > 1e-3


@pytest.mark.parametrize("rule", [FORCE, Hebbian])
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": Optimizer(momentum=0.9)},
        {"optimizer": Optimizer("adam")},
        {"optimizer": Optimizer(lr_scale={"W_out": 0.5})},
        {"schedule": Schedule("cosine")},
    ],
)
def test_nothing_may_rescale_a_finished_change(rule, options):
    with pytest.raises(BpgenError, match="finished weight changes"):
        training(rule(), **options)
    training(load_rule("bptt"), **options)  # control: a gradient may be rescaled
    assert training(rule(), optimizer=Optimizer(lr=0.3)).optimizer == Optimizer(lr=1.0)


@pytest.mark.parametrize("options", [{"gradient_clip_val": 1.0}, {"accumulate_grad_batches": 2}])
def test_nothing_may_clip_or_average_it(options):
    with pytest.raises(BpgenError, match="finished weight changes"):
        fit(training(FORCE()), **options)


def test_losses_they_are_not_defined_for():
    with pytest.raises(BpgenError, match="mse"):
        training(FORCE(), Loss("cross_entropy", "last"))
    for rule in (FORCE(), Hebbian()):
        with pytest.raises(BpgenError, match="l2"):
            training(rule, Loss("mse", "all", None, L2.of(0.1)))
    p = problem(loss="cross_entropy", when="last")
    with pytest.raises(BpgenError, match="mse"):
        p.rule("force")
    with pytest.raises(BpgenError, match="step"):
        load_rule("scaled_bptt", reference="force")
    with pytest.raises(BpgenError, match="ridge"):
        FORCE(0)
    with pytest.raises(BpgenError, match="lr"):
        Hebbian(0)


# what every rule must bear


@pytest.mark.parametrize("make", [FORCE, Hebbian])
def test_float32_agrees_with_float64(make):
    p = problem(Leaky(0.4, "tanh"))
    double = call(p, make()).grads
    q = replace(p, network=problem(Leaky(0.4, "tanh")).network.float(), x=p.x.float())
    q = replace(q, target=p.target.float(), s_0=p.s_0.float())
    got = call(q, make()).grads
    assert {g.dtype for g in got.values()} == {torch.float32}
    assert_equal({n: g.double() for n, g in got.items()}, double, ["W_out", "b_out"], tol=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("fed", [{}, FED])
@pytest.mark.parametrize("make", [FORCE, Hebbian])
def test_stacked_seeds_equal_seeds_alone(make, fed):
    problems = [problem(Leaky(0.4, "tanh"), seed=s, **fed) for s in (0, 1)]
    with torch.no_grad():
        if fed:
            problems[1].network.W_fb.copy_(problems[0].network.W_fb)  # one network, two sets of weights
    rules = [make().bind(p.network) for p in problems]
    alone = [call(p, r) for p, r in zip(problems, rules, strict=True)]

    def stacked(trees):
        return {n: torch.stack([tree[n] for tree in trees]) for n in trees[0]}

    def one_seed(buffers, params, x, target, s_0):
        args = (problems[0].network, params, x, target, Loss("mse", "all"), {"initial_state": s_0})
        return functional_call(rules[0], buffers, asked(*args)).grads

    x, target, s_0 = (torch.stack([getattr(p, n) for p in problems]) for n in ("x", "target", "s_0"))
    buffers = stacked([dict(r.named_buffers()) for r in rules])
    grads = vmap(one_seed)(buffers, stacked([p.network.params() for p in problems]), x, target, s_0)
    for s, result in enumerate(alone):
        for n in WEIGHTS:
            torch.testing.assert_close(grads[n][s], result.grads[n], rtol=1e-10, atol=1e-12)
    assert distance(grads["W_out"][0], grads["W_out"][1]) > 0.1
