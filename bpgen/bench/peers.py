"""The model that is timed, the rule on it, and its two independent peers: `torch.nn.RNN` and a loop under autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpgen.losses import Loss, When
from bpgen.network import Network
from bpgen.neurons import Leaky
from bpgen.problem import Problem
from bpgen.rules import RuleGradients, load_rule
from bpgen.streams import generator

LossAndGradients = tuple[Tensor, dict[str, Tensor | None]]
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "bptt": ("bptt", {}),
    "tbptt blocks": ("tbptt", {"window": 10, "style": "blocks"}),
    "tbptt sliding": ("tbptt", {"window": 10, "style": "sliding"}),
    "three_factor": ("three_factor", {}),
    "rflo": ("rflo", {}),
    "readout_only": ("readout_only", {}),
}


class Workload:
    """A network, a batch x [T,B,I], target [B] or [T,B], and when the loss is taken; `sizes` = T, B, N, I, O."""

    def __init__(self, alpha: float, when: When, sizes: Sequence[int], dtype: torch.dtype = torch.float32) -> None:
        T, B, N, I, O = sizes
        draws = generator(0, "data")
        self.alpha, self.when = alpha, when
        self.network = Network(Leaky(alpha), I, N, O, dtype=dtype)
        self.x = torch.randn(T, B, I, generator=draws, dtype=torch.float64).to(dtype)
        self.target = torch.randint(O, (T, B) if when == "all" else (B,), generator=draws)
        self.start = self.x.new_zeros(B, N)

    def cross_entropy(self, outputs: Tensor) -> Tensor:
        """The loss, by PyTorch."""
        return F.cross_entropy(outputs.flatten(0, -2), self.target.flatten())


def rule_call(rule: str, problem: Workload) -> Callable[[], RuleGradients]:
    """A rule of `RULES` as the trainer calls it."""
    name, options = RULES[rule]
    network, loss, bound = problem.network, Loss(when=problem.when), load_rule(name, **options).bind(problem.network)
    asked = Problem(network, network.params(), problem.x, problem.target, loss)
    return torch.no_grad()(lambda: bound.gradients(asked))


def torch_rnn(problem: Workload) -> Callable[[], LossAndGradients]:
    """Forward and backward at α = 1 by `torch.nn.RNN` (ReLU, no bias), `nn.Linear` and `F.cross_entropy`.

    Its recurrent weights have their diagonal zeroed beforehand, so it masks neither weights nor gradients. The readout
    sees the steps that have a loss, x needs no gradient, gradients are set to None before each call.
    """
    net, weights, dtype = problem.network, problem.network.params(), problem.x.dtype
    rnn = nn.RNN(net.n_in, net.n_rec, nonlinearity="relu", bias=False, dtype=dtype)
    readout = nn.Linear(net.n_rec, net.n_out, dtype=dtype)
    rnn.load_state_dict({"weight_hh_l0": weights["W_rec"] * net.masks()["W_rec"], "weight_ih_l0": weights["W_in"]})
    readout.load_state_dict({"weight": weights["W_out"], "bias": weights["b_out"]})
    W_in, W_rec = rnn.parameters()
    p = {"W_rec": W_rec, "W_in": W_in, "W_out": readout.weight, "b_out": readout.bias}

    def call() -> LossAndGradients:
        for weight in p.values():
            weight.grad = None
        h, _ = rnn(problem.x)
        loss = problem.cross_entropy(readout(h if problem.when == "all" else h[-1]))
        loss.backward()
        return loss.detach(), {name: weight.grad for name, weight in p.items()}

    return call


def autograd_loop(problem: Workload, tuned: bool) -> Callable[[], LossAndGradients]:
    """Forward and backward by a loop over time under autograd that appends activities to a list and stacks them.

    At each step I = W_in x_t + W_rec h, s = (1-α) s + α I (s = I at α = 1), h = relu(s), with the diagonal of W_rec
    masked once per call (the loop of nn-brain and its many descendants). The readout sees the steps of the stack that
    have a loss; x needs no gradient, gradients are set to None before each call.
    Tuned: W_in x is one product over all steps, I is one `addmm`, and nothing is stacked for a loss at the last step.
    """
    p = {name: value.clone().requires_grad_() for name, value in problem.network.params().items()}
    mask, alpha, x = problem.network.masks()["W_rec"], problem.alpha, problem.x

    def call() -> LossAndGradients:
        for weight in p.values():
            weight.grad = None
        W, s, h, activities = p["W_rec"] * mask, problem.start, problem.start, []
        for x_t in F.linear(x, p["W_in"]).unbind(0) if tuned else x.unbind(0):
            I = torch.addmm(x_t, h, W.t()) if tuned else F.linear(x_t, p["W_in"]) + F.linear(h, W)
            s = I if alpha == 1 else (1 - alpha) * s + alpha * I
            h = torch.relu(s)
            activities.append(h)
        read = h if tuned and problem.when == "last" else torch.stack(activities)
        read = read if problem.when == "all" or tuned else read[-1]
        loss = problem.cross_entropy(F.linear(read, p["W_out"], p["b_out"]))
        loss.backward()
        return loss.detach(), {name: weight.grad for name, weight in p.items()}

    return call
