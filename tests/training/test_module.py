"""The LightningModule: what reaches the optimizer is the rule's gradient, also under clipping and accumulation."""

import lightning.pytorch as pl
import pytest
import torch

from bpgen import Network, load_rule
from bpgen.callbacks import GeneralizationGap
from bpgen.errors import BpgenError, DivergedError, RuleError
from bpgen.losses import L2, Loss
from bpgen.neurons import Leaky
from bpgen.rules import OfflineRule, propagate
from bpgen.tasks import Split
from bpgen.training.handed import straight_through
from bpgen.training.loaders import SeededLoader
from bpgen.training.module import RuleTraining
from bpgen.training.options import Optimizer, Schedule
from tests.oracles import asked

RULES = ["three_factor", "rflo", "bptt"]


def data(n=24, T=7, I=3, O=4):
    random = torch.Generator().manual_seed(1)
    x = torch.randn(T, n, I, generator=random, dtype=torch.float64)
    return Split(x, torch.randint(0, O, (n,), generator=random))


def module(rule="three_factor", seed=0, **options):
    network = Network(Leaky(0.5), 3, 9, 4, seed=seed, dtype=torch.float64)
    loss = Loss("cross_entropy", "last", None, L2.of(0.01))
    return RuleTraining(network, load_rule(rule), loss, seed=seed, **options)


def fit(training, loader, **options):
    trainer = pl.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        **options,
    )
    trainer.fit(training, loader)
    return training


def expected(training, batches, clip=None, lr=0.1, accumulate=1, divided_by=None):
    """The weights after plain SGD steps on the rule's own gradients, by hand."""
    params = training.network.params()
    params = {n: p.clone() for n, p in params.items()}
    for group in [batches[i : i + accumulate] for i in range(0, len(batches), accumulate)]:
        grads = [
            training.rule.gradients(*asked(training.network, params, b.x, b.target, training.loss, {})).grads
            for b in group
        ]
        mean = {n: sum(g[n] for g in grads) / (divided_by or len(group)) for n in params}
        norm = torch.stack([g.norm() for g in mean.values()]).norm()
        assert norm > 0
        factor = 1.0 if clip is None else min(1.0, clip / (float(norm) + 1e-6))
        params = {n: p - lr * factor * mean[n] for n, p in params.items()}
    return params


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("clip", "accumulate"), [(None, 1), (0.05, 1), (None, 2), (0.05, 3)])
def test_lightning_applies_the_rules_own_gradient(rule, clip, accumulate):
    training = module(rule, optimizer=Optimizer(lr=0.1))
    loader = SeededLoader(data(), 4, seed=0)
    wanted = expected(training, list(SeededLoader(data(), 4, seed=0)), clip, accumulate=accumulate)
    unclipped = expected(training, list(SeededLoader(data(), 4, seed=0)), None, accumulate=accumulate)
    fit(training, loader, max_epochs=1, gradient_clip_val=clip, accumulate_grad_batches=accumulate)
    for name, value in training.network.params().items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-12, atol=1e-12)
    differs = not torch.allclose(wanted["W_rec"], unclipped["W_rec"], rtol=1e-6)
    assert differs == (clip is not None)


@pytest.mark.parametrize(("n", "accumulate"), [(24, 4), (24, 5), (8, 3), (20, 7)])  # 6, 6, 2 and 5 batches of 4
@pytest.mark.parametrize("epochs", [1, 2])
def test_the_last_update_of_an_epoch_is_the_mean_of_its_own_batches(n, accumulate, epochs):
    training, loader = module("bptt", optimizer=Optimizer(lr=0.1)), SeededLoader(data(n), 4, seed=0)
    again = SeededLoader(data(n), 4, seed=0)
    params = training
    for _ in range(epochs):
        epoch = list(again)
        weights = expected(params, epoch, accumulate=accumulate)
        short = expected(params, epoch, accumulate=accumulate, divided_by=accumulate)
        params = module("bptt")
        params.network.load_state_dict(weights, strict=False)
    fit(training, loader, max_epochs=epochs, accumulate_grad_batches=accumulate)
    for name, value in training.network.params().items():
        torch.testing.assert_close(value, weights[name], rtol=1e-10, atol=1e-10)
    assert not torch.allclose(short["W_rec"], weights["W_rec"], rtol=1e-6)  # control: Lightning's own division


@pytest.mark.parametrize(
    ("n", "batch", "accumulate"),
    [(20, 4, 9), (20, 4, 5), (24, 4, 3), (24, 2, 6), (20, 4, 3), (28, 4, 5)],  # the last three end an epoch early
)
@pytest.mark.parametrize("rule", ["bptt", "rflo", "rtrl"])
@pytest.mark.parametrize("optimizer", [Optimizer(lr=0.1), Optimizer(lr=0.1, momentum=0.9), Optimizer("adam", lr=0.01)])
def test_accumulated_batches_are_one_large_batch(n, batch, accumulate, rule, optimizer):
    def trained(size, together):
        training = module(rule, optimizer=optimizer)
        fit(training, SeededLoader(data(n), size, seed=0), max_epochs=2, accumulate_grad_batches=together)
        return training.network.params()

    small, large, control = trained(batch, accumulate), trained(batch * accumulate, 1), trained(batch, 1)
    for name, value in small.items():
        torch.testing.assert_close(value, large[name], rtol=0, atol=1e-10)
    assert not torch.allclose(control["W_rec"], large["W_rec"], rtol=0, atol=1e-6)


def test_straight_through_keeps_the_losss_last_digits():
    network = Network(Leaky(), 3, 9, 4, seed=0)
    grads = {n: 1e4 * torch.ones_like(p) for n, p in network.named_parameters()}
    loss = straight_through(torch.tensor(1e-3), network, grads)
    loss.backward()
    assert loss.item() == torch.tensor(1e-3).item()
    assert all(torch.equal(p.grad, grads[n]) for n, p in network.named_parameters())


def test_learning_rates_by_weight_and_schedule_reach_the_optimizer():
    options = Optimizer(lr=0.1, lr_scale={"W_rec": 0.0, "W_out": 0.5})
    training = module(optimizer=options, schedule=Schedule("step", gamma=0.5, every=1))
    before, wanted = training.network.params(), expected(training, [data()])
    before = {n: p.clone() for n, p in before.items()}
    fit(training, SeededLoader(data(), 24, 0), max_steps=1)
    after = training.network.params()
    torch.testing.assert_close(after["W_rec"], before["W_rec"], rtol=0, atol=0)
    torch.testing.assert_close(after["W_in"], wanted["W_in"], rtol=1e-12, atol=1e-12)
    half = before["W_out"] + 0.5 * (wanted["W_out"] - before["W_out"])
    torch.testing.assert_close(after["W_out"], half, rtol=1e-12, atol=1e-12)
    assert training.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Schedule(), [1, 1, 1]),
        (Schedule("step", gamma=0.8, every=5), [1, 0.8, 0.64]),
        (Schedule("exponential", gamma=0.8, every=5), [1, 0.8, 0.64]),
        (Schedule("cosine"), [1, 0.5, 0]),
        (Schedule(early_factor=3, early_steps=5), [3, 3, 1 + 2 * torch.exp(torch.tensor(-1.0)).item()]),
    ],
)
def test_schedules(schedule, factors):
    assert [schedule.factor(step, 10) for step in (0, 5, 10)] == pytest.approx(factors)


def test_the_same_seed_gives_every_rule_the_same_start_and_noise():
    first, second = module("bptt"), module("rflo")
    for name, value in first.network.params().items():
        assert torch.equal(value, second.network.params()[name])
    for training in (first, second):
        training.network.sigma_rec = 0.1
    batch = data()
    noises = [training.problem(batch, Loss(), "draws", 0, 3)[0].current_noise for training in (first, second)]
    assert torch.equal(*noises)
    assert not torch.equal(noises[0], first.problem(batch, Loss(), "draws", 0, 4)[0].current_noise)
    other = module("rflo", seed=1)
    assert not torch.equal(other.network.W_in, first.network.W_in)
    assert not torch.equal(other.rule.feedback.weight, second.rule.feedback.weight)


class Remembers(type(load_rule("bptt"))):
    """BPTT that keeps the sum of the losses it was trained on."""

    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros((), dtype=torch.float64))

    def estimate(self, *args):
        result = super().estimate(*args)
        return result._replace(aux={"loss": result.loss})

    def learn(self, aux):
        self.total = self.total + aux["loss"]


def test_a_rule_learns_once_from_each_training_batch_and_never_from_a_look():
    network = Network(Leaky(0.5), 3, 9, 4, dtype=torch.float64)
    training = RuleTraining(network, Remembers(), Loss(), Optimizer(lr=1e-9))
    batches = list(SeededLoader(data(), 4, seed=0))
    for batch in batches:  # looking does not teach
        training.rule.gradients(*asked(network, network.params(), batch.x, batch.target, Loss(), {}))
    assert training.rule.total == 0
    wanted = sum(Loss().data(network(b.x), b.target) for b in batches).detach()
    fit(training, SeededLoader(data(), 4, seed=0), max_epochs=1)
    torch.testing.assert_close(training.rule.total, wanted, rtol=1e-6, atol=0)
    assert training.state_dict()["rule.total"] == training.rule.total  # and a checkpoint keeps it


class NoNumber(OfflineRule):
    """0/0 where nothing is learned."""

    def credit(self, trajectory, error):
        credit = propagate(trajectory, error @ trajectory.params["W_out"])
        return credit.currents * (0 * credit.currents / 0)


@pytest.mark.parametrize("max_steps", [1, 5])  # seen by the evaluation at the end, or by the next batch
def test_a_gradient_that_is_no_number_is_no_divergence(max_steps):
    network = Network(Leaky(0.5), 3, 9, 4, seed=0, dtype=torch.float64)
    training = RuleTraining(network, NoNumber())
    callbacks = [GeneralizationGap()] if max_steps == 1 else []
    said = r"NoNumber .*, line \d+\): its gradient of W_rec, W_in was nan although the loss was finite"
    with pytest.raises(RuleError, match=said):
        fit(training, SeededLoader(data(), 6, 0), max_steps=max_steps, callbacks=callbacks)


def test_divergence_is_reported_with_its_step():
    training = module("bptt", optimizer=Optimizer(lr=1e200))
    with pytest.raises(DivergedError, match="step"):
        fit(training, SeededLoader(data(), 4, 0), max_epochs=20)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Optimizer(name="sgdd"),
        lambda: Optimizer(lr=0),
        lambda: Optimizer(momentum=1),
        lambda: Optimizer(name="adam", momentum=0.9),
        lambda: Optimizer(lr_scale={"W_rec": -1}),
        lambda: module(optimizer=Optimizer(lr_scale={"W_rc": 1})),
        lambda: Schedule("stepp"),
        lambda: Schedule(every=0),
        lambda: Schedule(gamma=0),
    ],
)
def test_bad_options(make):
    with pytest.raises(BpgenError):
        make()
