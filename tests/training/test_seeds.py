"""Seeds trained together are the seeds trained alone: 20 steps in float64, and a swap of two seeds is noticed."""

import pytest
import torch

from bpgen.losses import Loss
from bpgen.network import Network
from bpgen.neurons import ALIF, GRU, Leaky
from bpgen.rules import list_rules, load_rule
from bpgen.streams import generator
from bpgen.tasks import Split
from bpgen.training.module import RuleTraining
from bpgen.training.options import Optimizer, Schedule, TrainerOptions
from bpgen.training.seeds import SeedsTraining
from bpgen.training.trainer import quiet_lightning, trainer_for

SEEDS, STEPS = (3, 4, 9), 20
MATTERING = ("bptt", "three_factor", "eprop", "rflo", "mdgl", "modprop", "scaled_bptt", "readout_only", "tbptt")
LEARNING = ("kernl", "reinforce")  # tensors of their own, which change at every step


def member(rule, seed, neuron=None, dtype=torch.float64, **given):
    """The training of one seed."""
    options = {"alpha": 0.4} if neuron in (None, Leaky) else {}
    network = Network(
        (neuron or Leaky)(**options), 3, 6, 4, seed=seed, bias="both", dtype=dtype, **given.pop("network", {})
    )
    optimizer = given.pop("optimizer", Optimizer(lr=0.05))
    return RuleTraining(network, load_rule(rule, **given.pop("rule", {})), seed=seed, optimizer=optimizer, **given)


def batches(seed, dtype=torch.float64):
    """A seed's own batches."""
    draws = generator(seed, "data")
    x = torch.randn(STEPS, 7, 5, 3, generator=draws, dtype=torch.float64).to(dtype)
    return [Split(each, torch.randint(4, (5,), generator=draws), None) for each in x]


class Loader:
    """Hands out what it is given; Lightning takes a list for several loaders."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


def trained(module, data, **options):
    """Train for 20 steps."""
    with quiet_lightning():
        trainer_for(TrainerOptions(max_steps=STEPS, **options), [], None, None).fit(module, Loader(data))


def alone(make, **options):
    """The weights of every seed after training by itself."""
    members = [make(seed) for seed in SEEDS]
    for each, seed in zip(members, SEEDS, strict=True):
        trained(each, batches(seed, each.network.W_rec.dtype), **options)
    return [each.network.params() for each in members]


def together(make, change=None, **options):
    """The same of seeds that are trained at once."""
    members = [make(seed) for seed in SEEDS]
    module = SeedsTraining(members)
    if change is not None:
        change(members)
    data = list(zip(*(batches(seed, members[0].network.W_rec.dtype) for seed in SEEDS), strict=True))
    assert module.why_not(data[0]) is None
    trained(module, data, **options)
    return [each.network.params() for each in members]


def furthest(a, b):
    """The largest difference of any weight."""
    return max(float((x[n] - y[n]).abs().max()) for x, y in zip(a, b, strict=True) for n in x)


def _others():
    """Rules by name, without second names and those that matter."""
    others = [name for name in list_rules() if name not in MATTERING]
    return [name if name in LEARNING else pytest.param(name, marks=pytest.mark.slow) for name in others]


@pytest.mark.parametrize("rule", MATTERING)
def test_seeds_together_are_seeds_alone(rule):
    before = [member(rule, seed).network.params() for seed in SEEDS]
    after = alone(lambda seed: member(rule, seed))
    assert furthest(before, after) > 1e-2
    assert furthest(together(lambda seed: member(rule, seed)), after) < 1e-10


@pytest.mark.parametrize("rule", _others())
def test_so_they_are_under_every_other_rule_or_it_says_why_not(rule):
    def make(seed):
        options = {} if load_rule(rule).traits.update == "step" else {"optimizer": Optimizer(lr=1e-4)}
        loss = Loss("mse" if rule == "force" else "cross_entropy", "all")
        return RuleTraining(member("bptt", seed).network, load_rule(rule), loss, seed=seed, **options)

    def values(seed):
        x = batches(seed)
        target = [torch.randn(7, 5, 4, dtype=torch.float64) for _ in x] if rule == "force" else None
        targets = target or [each.target.expand(7, -1) for each in x]
        return [each._replace(target=y) for each, y in zip(x, targets, strict=True)]

    data = [values(seed) for seed in SEEDS]
    members = [make(seed) for seed in SEEDS]
    module = SeedsTraining(members)
    reason = module.why_not([each[0] for each in data])
    if reason is not None:
        assert type(members[0].rule).__name__ in reason
        assert not load_rule(rule).traits.vmappable
        return
    trained(module, list(zip(*data, strict=True)))
    for seed, each, own in zip(SEEDS, members, data, strict=True):
        single = make(seed)
        trained(single, own)
        assert furthest([each.network.params()], [single.network.params()]) < 1e-10


def test_two_seeds_that_swap_their_feedback_are_noticed():
    def swap(members):
        first, second = (m.rule.feedback for m in members[:2])
        first.weight, second.weight = second.weight, first.weight

    def make(seed):
        return member("rflo", seed)

    assert furthest(together(make, swap), alone(make)) > 1e-3


OPTIONS = {
    "adam": ({"optimizer": Optimizer("adam", lr=0.01)}, {}),
    "momentum and rates": ({"optimizer": Optimizer(momentum=0.9, lr_scale={"W_in": 0.1, "b_out": 0})}, {}),
    "schedule": ({"schedule": Schedule("cosine")}, {}),
    "clip": ({"optimizer": Optimizer(lr=0.5)}, {"clip": 0.1}),
    "accumulate": ({}, {"accumulate": 3}),
    "regularisers": ({"loss": Loss.of(regulariser=0.1, activity=0.3)}, {}),
    "noise": ({"network": {"sigma_rec": 0.5}}, {}),
    "wiring": (  # steps so long that weights would change their sign
        {"network": {"density": 0.5, "cell_types": {"E": 0.5, "I": 0.5}, "dale": True}, "optimizer": Optimizer(lr=1.0)},
        {},
    ),
    "output feedback": ({"network": {"output_feedback": 0.5}}, {}),
    "learned start": ({"network": {"trainable_initial_state": True}}, {}),
    "leaky readout": ({"network": {"kappa": 0.4}}, {}),
    "gates": ({"neuron": GRU}, {}),
    "spikes": ({"neuron": ALIF, "optimizer": Optimizer(lr=0.5)}, {}),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_whatever_the_training_is(case):
    given, options = OPTIONS[case]

    def make(seed):
        return member("bptt" if case == "output feedback" else "mdgl", seed, **{k: v for k, v in given.items()})

    after = alone(make, **options)
    assert furthest([make(seed).network.params() for seed in SEEDS], after) > 1e-3
    assert furthest(together(make, **options), after) < 1e-10


def test_single_precision_agrees_to_its_rounding():
    def make(seed):
        return member("rflo", seed, dtype=torch.float32)

    assert furthest(together(make), alone(make)) < 1e-5


def test_a_seed_that_diverges_ends_alone():
    members = [member("rflo", seed) for seed in SEEDS]
    with torch.no_grad():
        members[1].network.W_out.fill_(torch.inf)
    module = SeedsTraining(members)
    trained(module, list(zip(*(batches(seed) for seed in SEEDS), strict=True)))
    assert list(module.ended) == [1]
    assert "the loss is nan at step 0" in str(module.ended[1])
    after = alone(lambda seed: member("rflo", seed))
    assert furthest([members[s].network.params() for s in (0, 2)], [after[s] for s in (0, 2)]) < 1e-10


class _Secretive(type(load_rule("rflo"))):
    """Keeps its feedback where nobody looks."""

    def bind(self, network, seed=0):
        super().bind(network, seed)
        self.hidden, self.feedback.weight = [self.feedback.weight], None
        return self

    def credit(self, trajectory, error):
        self.feedback.kind = "random"
        self.feedback.weight = self.hidden[0]
        found = super().credit(trajectory, error)
        self.feedback.weight = None
        return found


def test_a_rule_with_a_hidden_state_is_not_stacked():
    members = [member("rflo", seed) for seed in SEEDS]
    for each, seed in zip(members, SEEDS, strict=True):
        each.rule = _Secretive().bind(each.network, seed)
    reason = SeedsTraining(members).why_not([batches(seed)[0] for seed in SEEDS])
    assert "hidden state" in reason
