"""Seeds trained together are the seeds trained alone: 20 steps in float64, and a swap of two seeds is noticed."""

import pytest
import torch

from bpgen.losses import L2, Loss
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


def member(rule, seed, neuron=None, dtype=torch.float64, **given):
    """The training of one seed."""
    options = {"alpha": 0.4} if neuron in (None, Leaky) else {}
    network = Network((neuron or Leaky)(**options), 3, 6, 4, seed=seed, bias="both", dtype=dtype, **given.pop("network", {}))
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


@pytest.mark.parametrize("rule", MATTERING)
def test_seeds_together_are_seeds_alone(rule):
    def make(seed):
        return member(rule, seed)

    before = [make(seed).network.params() for seed in SEEDS]
    after = alone(make)
    assert furthest(before, after) > 1e-2
    assert furthest(together(make), after) < 1e-10
