"""Networks of Liu et al. 2025 in training on the context task, and how alike their activities are at matched loss.

Of every kind two networks are trained, A and B, from two initial weights; those of all kinds begin with the same two
and see the same batches. Kind k and BPTT are compared between different initial weights,
    d(k, BPTT) = ½ [d(k_A, BPTT_B) + d(k_B, BPTT_A)]      beside      d(BPTT, BPTT) = d(BPTT_A, BPTT_B),
with all four at the same loss: each at its first evaluation at or below it. No network belongs to two seeds.
Activities are of 72 conditions without noise: context x 6 strengths of each evidence, as in the experiment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bpgen.losses import Loss
from bpgen.network import Network
from bpgen.neurons import Leaky
from bpgen.neurons.leaky import ActivationName
from bpgen.problem import Problem
from bpgen.rules import load_rule
from bpgen.similarity import cca, cka, procrustes, recorded, sampled
from bpgen.streams import generator
from bpgen.tasks import Split
from bpgen.tasks.context_decision import ContextDecision

Array = NDArray[np.float64]
Row = dict[str, Any]
ALPHA, GAIN = 0.1, 1.5  # dt/τ = 1/10; W_rec ~ N(0, 1.5²/N)
BATCH, VALIDATION, EVALUATIONS = 64, 500, 60
STRENGTHS = (-0.5, -0.15, -0.05, 0.05, 0.15, 0.5)
WAYS = (0.25, 0.5, 0.75, 1.0)  # from the loss before training to the lowest that all reach, in its logarithm
MEASURES = {"angle": procrustes, "cka": lambda X, Y: 1 - cka(X, Y), "cca": lambda X, Y: 1 - cca(X, Y)}


class Kind(NamedTuple):
    """What is trained: by which rule, a factor on the initial W_rec, the activation, a factor on the learning rate."""

    rule: str
    gain: float = 1.0
    activation: ActivationName = "retanh"
    faster: float = 1.0


BPTT, UNTRAINED = "BPTT", "untrained"
KINDS = {
    BPTT: Kind("bptt"),
    "e-prop": Kind("eprop"),
    "readout only": Kind("readout_only", faster=10.0),  # else it ends at a loss where BPTT has hardly begun
    "a third of the gain": Kind("bptt", gain=1 / 3),
    "twice the gain": Kind("bptt", gain=2.0),
    "tanh": Kind("bptt", activation="tanh"),
}


class Training(NamedTuple):
    """How large networks are, and for how many updates Adam trains them at which rate."""

    n_rec: int
    updates: int
    rate: float = 1e-3

    @property
    def looks(self) -> list[int]:
        """Updates after which a network is evaluated: as dense early as late, in the logarithm."""
        return sorted({0, *np.geomspace(1, self.updates, EVALUATIONS).round().astype(int).tolist()})


class Trained:
    """A network with its losses at K looks, and its weights there; room for all is taken at once."""

    def __init__(self, network: Network, task: ContextDecision, looks: int) -> None:
        self.network, self.conditions = network, conditions(task)
        self.losses: list[float] = []
        self._weights = {name: w.new_empty(looks, *w.shape) for name, w in network.params().items()}
        self._found: dict[int, Array] = {}

    def look(self, loss: float) -> None:
        """Keep where it is now."""
        for name, w in self.network.params().items():
            self._weights[name][len(self.losses)] = w
        self.losses.append(loss)

    def weights(self, look: int) -> dict[str, Tensor]:
        """By name, at a look."""
        return {name: w[look] for name, w in self._weights.items()}

    def first_at(self, level: float) -> int:
        """The first look with a loss at the level or below; it must have one."""
        return next(look for look, loss in enumerate(self.losses) if loss <= level)

    def activity(self, look: int) -> Array:
        """[C,T,N] at a look."""
        if look not in self._found:
            self._found[look] = recorded(self.network, self.weights(look), self.conditions)
        return self._found[look]


def conditions(task: ContextDecision) -> Array:
    """Inputs [72,T,5] of all conditions, without noise."""
    grid = [(c, m, k) for c in (0, 1) for m in STRENGTHS for k in STRENGTHS]
    x = np.zeros((len(grid), task.n_steps, task.n_in))
    for row, (context, motion, colour) in zip(x, grid, strict=True):
        row[: task.stimulus, :2] = motion, colour
        row[:, 2 + context] = 1
        row[task.stimulus :, 4] = 1
    return x


def train(kind: Kind, seed: int, how: Training) -> Trained:
    """A network from its initial weights on; the same weights and batches for all kinds of one seed."""
    task = ContextDecision(max_evidence=0.5, evidence_sd=0.25, n_val=VALIDATION)
    options: Any = {"autapses": True, "bias": "both", "init": "sompolinsky1988", "trainable_initial_state": True}
    network = Network(Leaky(ALPHA, kind.activation), task.n_in, how.n_rec, task.n_out, seed=seed, **options)
    rule, named = load_rule(kind.rule).bind(network, seed), dict(network.named_parameters())
    looks, trained = set(how.looks), Trained(network, task, len(how.looks))
    with torch.no_grad():
        network.W_rec.mul_(kind.gain)
        optimizer = torch.optim.Adam(named.values(), lr=how.rate * kind.faster)
        for update in range(how.updates + 1):
            if update in looks:
                at = _problem(network, task.split("val"))
                trained.look(float(at.value_and_error(at.run())[0]))
            batch = Split(*task.trials(BATCH, generator(seed, "batch", update)))
            grads = rule.gradients(_problem(network, batch)).grads
            for name, w in named.items():
                w.grad = grads[name]
            optimizer.step()
    return trained


def _problem(network: Network, data: Split) -> Problem:
    loss = Loss.of("cross_entropy", "all", data.mask)
    return Problem(network, network.params(), data.x, data.target, loss)


def compared(seed: int, how: Training) -> list[Row]:
    """All comparisons of one seed with BPTT: a row for every kind, and every loss at which it is looked at."""
    own = 2 * seed, 2 * seed + 1
    pairs = {name: [train(kind, s, how) for s in own] for name, kind in KINDS.items()}
    bptt = pairs.pop(BPTT)
    rows = []
    for name, pair in pairs.items():
        start = min(t.losses[0] for t in (*pair, *bptt))
        lowest = max(min(t.losses) for t in (*pair, *bptt))
        for way in WAYS:
            level = max(lowest, start * (lowest / start) ** way)  # rounding must not put it out of reach
            here = pair, bptt, [t.first_at(level) for t in pair], [t.first_at(level) for t in bptt]
            row = {**_distances(*here), **(_places(*here) if way == 1 else {})}
            rows.append({"condition": name, "way": way, "level": level, **row})
    lowest = max(min(t.losses) for t in bptt)
    here = bptt, bptt, [0, 0], [t.first_at(lowest) for t in bptt]
    return [*rows, {"condition": UNTRAINED, "way": 1.0, "level": lowest, **_distances(*here), **_places(*here)}]


def _activities(networks: Sequence[Trained], looks: list[int]) -> list[Array]:
    return [t.activity(look) for t, look in zip(networks, looks, strict=True)]


def _distances(pair: Sequence[Trained], bptt: Sequence[Trained], at: list[int], there: list[int]) -> Row:
    """Distances of a kind to BPTT and of BPTT to BPTT, between different initial weights; and the losses that met."""
    (k_A, k_B), (A, B) = _activities(pair, at), _activities(bptt, there)
    row: Row = {}
    for name, measure in MEASURES.items():
        row[name] = (measure(k_A, B) + measure(k_B, A)) / 2
        row[f"{name}_bptt"] = measure(A, B)
        row[f"{name}_same_start"] = (measure(k_A, A) + measure(k_B, B)) / 2
    losses = [[t.losses[look] for t, look in zip(*of, strict=True)] for of in ((pair, at), (bptt, there))]
    return {**row, "loss": float(np.mean(losses[0])), "loss_bptt": float(np.mean(losses[1]))}


def _places(pair: Sequence[Trained], bptt: Sequence[Trained], at: list[int], there: list[int]) -> Row:
    """Normalised distances of samples of neurons, with a network under BPTT as the data, and another as the model."""
    (k_A, k_B), (A, B) = _activities(pair, at), _activities(bptt, there)
    kinds, own = [sampled(B, k_A), sampled(A, k_B)], [sampled(B, A), sampled(A, B)]  # (data, model)
    places = {"place": kinds, "place_bptt": own}
    means = {name: float(np.mean([s.normalised for s in found])) for name, found in places.items()}
    return {**means, "baseline": float(np.mean([s.baseline for s in own]))}
