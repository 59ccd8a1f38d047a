"""The oracle of all curvature tests: the dense Hessian of the slow network's loss over the entries that can act."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.functional import hessian

import bpgen.problem
from bpgen.losses import L2, Activity, Loss
from bpgen.neurons import GRU, LSTM, Leaky
from tests.oracles import Cost, Problem, acting, no_cost, problem, run_slow, true_loss

BLOCKS = ("W_rec", "all")
PROBLEMS = {
    "potential, mse, masked": lambda: problem(Leaky(0.4, "tanh"), masked=True),
    "rate, cross-entropy, last": lambda: problem(Leaky(0.4, "tanh", "rate"), loss="cross_entropy", when="last"),
    "inside, cross-entropy, masked": lambda: problem(Leaky(0.4, "tanh", "inside"), loss="cross_entropy", masked=True),
    "rate, mse, last, kappa": lambda: problem(Leaky(0.3, "softplus", "rate"), when="last", kappa=0.3),
    "potential, cross-entropy, all, kappa": lambda: problem(
        Leaky(0.4, "relu"), loss="cross_entropy", kappa=0.3, seed=1
    ),
    "inside, mse, all, autapses": lambda: problem(Leaky(0.5, "retanh", "inside"), autapses=True, bias="none"),
    "learned initial state": lambda: problem(Leaky(0.4, "tanh"), learned=True, bias="rec"),
    "GRU, cross-entropy, all": lambda: problem(GRU(), N=3, loss="cross_entropy"),
    "LSTM, mse, last": lambda: problem(LSTM(), N=3, when="last", autapses=True),
    "memoryless": lambda: problem(Leaky(1.0, "relu"), loss="cross_entropy", when="last", seed=2),
}


def objective(p: Problem, l2: float = 0.0, activity: Activity | None = None) -> Loss:
    return Loss(p.loss, p.when, p.mask, L2.of(l2), activity)


def asked(p: Problem, loss: Loss | None = None) -> bpgen.problem.Problem:
    """The problem as the package takes it, with another loss if one is given."""
    loss = objective(p) if loss is None else loss
    return bpgen.problem.Problem(p.network, p.network.params(), p.x, p.target, loss, p.s_0)


def free_entries(p: Problem, block: str) -> dict[str, Tensor]:
    """Which entries of each parameter of the block can act."""
    all_entries = acting(p.network)
    return all_entries if block == "all" else {"W_rec": all_entries["W_rec"]}


def dense_hessian(p: Problem, block: str, l2: float = 0.0, cost: Cost = no_cost, **paths) -> Tensor:
    """[P,P], with a cost of the activities; `paths` cut the graph as a rule does, for negative controls."""
    fixed = {n: w.detach() for n, w in p.network.named_parameters()}
    entries_of = free_entries(p, block)

    def value(theta: Tensor) -> Tensor:
        params, first = dict(fixed), 0
        for name, entries in entries_of.items():
            n = int(entries.sum())
            params[name] = fixed[name].masked_scatter(entries, theta[first : first + n])
            first += n
        penalty = sum(0.5 * l2 * params[n].square().sum() for n in ("W_in", "W_rec", "W_out"))
        slow = run_slow(p, params, **paths)
        return true_loss(slow.outputs, p.target, p.loss, p.when, p.mask) + penalty + cost(slow.h)

    return hessian(value, torch.cat([fixed[name][entries] for name, entries in entries_of.items()]))


def spectrum(p: Problem, block: str, l2: float = 0.0) -> Tensor:
    """Eigenvalues, descending."""
    return torch.linalg.eigvalsh(dense_hessian(p, block, l2)).flip(0)
